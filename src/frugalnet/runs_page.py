"""The pages of MLflow's UI that show the runs: addresses, and the project's own saved view."""

import json
from typing import Any

VIEW = "mlflow.sharedViewState.frugalnet"  # a saved view of MLflow's UI is a tag of its experiment


def page(experiment_id: str) -> str:
    """The address, within the UI, of the training runs in the project's saved view."""
    return (
        f"#/experiments/{experiment_id}/runs"
        "?viewStateShareKey=frugalnet&workflowType=machine_learning&compareRunsMode=CHART"
    )


def view(created: int) -> str:
    """The saved view: the best network first, the columns that matter, and the charts in the order of their questions.

    created: milliseconds since 1970.
    """
    widths = {"metrics.`final/top1`": 100, "metrics.`final/macs`": 110, "metrics.`efficiency/latency_ms`": 190}
    columns = [*widths, "attributes.`Dataset`", "attributes.`Version`", "attributes.`User`"]
    widths["attributes.`Run Name`"] = 330
    lines = ("validation_top1", "train_top1", "validation_loss", "train_loss")
    plain = {"lineSmoothness": 0, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
    axes = {f"{axis}axis": {"key": f"final/{key}", "type": "METRIC"} for axis, key in (("x", "macs"), ("y", "top1"))}
    charts: list[dict[str, Any]] = [
        *({"type": "LINE", "metricKey": f"curves/{key}", "metricSectionId": "curves", **plain} for key in lines),
        {"type": "SCATTER", "metricSectionId": "final", **axes},
        {"type": "BAR", "metricKey": "final/top1", "metricSectionId": "final"},
        {"type": "BAR", "metricKey": "efficiency/latency_ms", "metricSectionId": "efficiency"},
    ]
    sections = {"curves": 2, "final": 3, "efficiency": 3, "schedule": 3}
    state = {
        "orderByKey": "metrics.`final/top1`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": widths,
        "compareRunCharts": [
            {"uuid": f"chart-{number}", "isGenerated": False, "deleted": False, "runsCountToCompare": 10, **chart}
            for number, chart in enumerate(charts)
        ],
        "compareRunSections": [
            {"uuid": key, "name": key, "display": key != "schedule", "isReordered": True, "columns": wide}
            for key, wide in sections.items()
        ],
        "isAccordionReordered": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    return json.dumps({"name": "frugalnet", "createdAt": created, "state": json.dumps(state)})


def links(**pages: str) -> str:
    """Markdown's links to pages of the UI, by what each shows; those without an address are left out."""
    shown = [f"[{name.replace('_', ' ')}]({address})" for name, address in pages.items() if address]
    return f"\n\nSee: {' · '.join(shown)}" if shown else ""
