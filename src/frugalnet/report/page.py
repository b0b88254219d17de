"""The report of a comparison: one HTML file, its Markdown twin, and the folder of tables and pictures beside them."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from frugalnet.files import atomic
from frugalnet.metrics import accuracy
from frugalnet.report import charts, pictures, tables
from frugalnet.report.charts import CostChart
from frugalnet.report.claims import EASIEST, HARDEST, claims, ranks
from frugalnet.report.comparison import COLUMNS, Comparison, Record, Row, verdict
from frugalnet.report.wording import NOT_MEASURED, duration, human, interval, markdown, number, percent, points

SAMPLE_BANNER = "sample data: not Tiny ImageNet"
# Mid-tones that stand out against white and against near-black: more than 3:1 on both.
PALETTE = ("#2f7fd6", "#d9661f", "#23946a", "#9560cf", "#d1466b", "#1593a5", "#a8800c", "#7d7f86")


def write(comparison: Comparison, out: Path, images: NDArray[np.uint8] | None = None) -> None:
    """Fill the folder `out`: report.html, report.md, figures/, comparison.json and tables as CSV.

    images: the validation images (N, H, W, 3) uint8 RGB, for the examples in report.html; None leaves them out.
    """
    colours = {model: PALETTE[i % len(PALETTE)] for i, model in enumerate(sorted(comparison.records))}
    epochs = max(len(r.history) for group in comparison.records.values() for r in group)
    seen = [
        e[k]
        for g in comparison.records.values()
        for r in g
        for e in r.history
        for k in ("train_top1", "validation_top1")
    ]
    top = max(108 * max(seen), 1.0)
    order = accuracy.class_order(np.sum([row.confusion for row in comparison.rows], axis=0))
    costs = {key: charts.cost_chart(comparison.rows, key) for key in charts.COST_AXES}

    with atomic(out) as folder:
        folder.mkdir()
        tables.write(comparison, folder)
        figures = folder / "figures"
        for key, chart in costs.items():
            if chart:
                pictures.accuracy_against_cost(chart, colours, figures / f"accuracy_{key}.png")
        for model, records in comparison.records.items():
            pictures.curves_of(records, colours[model], top, figures / f"curves_{model}.png")
        pictures.curves_together(comparison, colours, top, figures / "curves_together.png")
        best = comparison.rows[0]
        pictures.confusion(best.confusion, comparison.first.class_names, figures / f"confusion_{best.model}.png")

        context = _context(comparison, costs)
        environment = Environment(
            loader=PackageLoader("frugalnet.report"),
            autoescape=lambda name: bool(name and ".html" in name),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["markdown"] = markdown
        twin = environment.get_template("report.md.j2").render(context)
        (folder / "report.md").write_text(twin, encoding="utf-8")

        drawn = {f"cost-{key}": charts.accuracy_against_cost(c, comparison, colours) for key, c in costs.items() if c}
        for model, records in comparison.records.items():
            drawn[f"curves-{model}"] = charts.curves_of(records, colours[model], epochs, top)
        drawn["curves-together"] = charts.curves_together(comparison, colours, epochs, top)
        for row in comparison.rows:
            drawn[f"confusion-{row.model}"] = charts.confusion(row.confusion, order, _unique_names(comparison.first))
        page = environment.get_template("report.html.j2").render(
            context
            | {
                "colours": colours,
                "galleries": {row.model: _gallery(comparison, row, images) for row in comparison.rows},
                "plotly_js": get_plotlyjs(),
                # plotly's JSON writes "<" as an escape, so that no figure can end the script element it stands in.
                "drawn": {key: to_json_plotly(figure) for key, figure in drawn.items()},
            }
        )
        (folder / "report.html").write_text(page, encoding="utf-8")


def _unique_names(record: Record) -> list[str]:
    """The class names, with the id beside those that two classes share: a chart's axis would merge them."""
    return [
        name if record.class_names.count(name) == 1 else f"{name} ({c})"
        for c, name in zip(record.class_ids, record.class_names, strict=True)
    ]


def _context(comparison: Comparison, costs: Mapping[str, CostChart | None]) -> dict[str, Any]:
    run = comparison.first.run
    rows = comparison.rows
    classes = {row.model: comparison.classes(row) for row in rows}
    extremes = {model: accuracy.best_and_worst([one.accuracy for one in found]) for model, found in classes.items()}
    return {
        "sample_banner": SAMPLE_BANNER if run["is_sample"] else "",
        "run": run,
        "facts": tables.facts(comparison),
        "verdict": verdict(comparison),
        "rows": rows,
        "columns": {kind: [column for column in COLUMNS if column.kind == kind] for kind in ("accuracy", "cost")},
        "cell": tables.cell,
        "is_best": lambda row, key: tables.is_best(row, key, rows),
        "interval": interval,
        "percent": percent,
        "points": points,
        "human": human,
        "number": number,
        "duration": duration,
        "differences": comparison.differences,
        "notes": comparison.notes,
        "left_out": comparison.left_out,
        "charts": costs,
        "axes": charts.COST_AXES,
        "training_cost": comparison.costs,
        "classes": classes,
        "extremes": extremes,
        "paper_ranks": {
            title: {row.model: ranks(comparison, row, names) for row in rows}
            for title, names in (("easiest", EASIEST), ("hardest", HARDEST))
        },
        "pairs": {row.model: accuracy.most_confused_pairs(row.confusion, comparison.first.class_names) for row in rows},
        "layers": {model: tables.layer_table(records[0]) for model, records in comparison.records.items()},
        "details": {
            title: {row.model: tables.cost_details(comparison.records[row.model][0], row)[title] for row in rows}
            for title in tables.cost_details(comparison.first, rows[0])
        },
        "claims": claims(comparison),
        "not_measured": NOT_MEASURED,
    }


def _gallery(comparison: Comparison, row: Row, images: NDArray[np.uint8] | None) -> dict[str, list[dict[str, Any]]]:
    """The five best and five worst classes of a model with examples of its first seed's predictions."""
    record = comparison.records[row.model][0]
    classes = comparison.classes(row)
    gallery: dict[str, list[dict[str, Any]]] = {}
    for title, chosen in zip(
        ("best", "worst"), accuracy.best_and_worst([one.accuracy for one in classes]), strict=True
    ):
        gallery[title] = []
        for c in chosen:
            shown = {
                kind: [(_picture_url(images[i]), record.class_names[record.predicted[i]]) for i in chosen_images]
                for kind, chosen_images in zip(
                    ("right", "wrong"), accuracy.examples(record.predicted, record.labels, c), strict=True
                )
                if images is not None
            }
            gallery[title].append({"figures": classes[c], "pictures": shown})
    return gallery


def _picture_url(image: NDArray[np.uint8]) -> str:
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert encoded
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
