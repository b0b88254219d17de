"""A comparison as tables: text, CSV, JSON, and the facts beside them."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from frugalnet.files import write_json
from frugalnet.metrics.statistics import Spread
from frugalnet.report.claims import claims
from frugalnet.report.comparison import COLUMNS, Comparison, Measured, Record, Row, best_in, verdict
from frugalnet.report.wording import NOT_MEASURED, duration, human, number, spread

NO_COUNTER = "not measured on this machine"


def cell(row: Row, key: str) -> str:
    """One figure of the table with its unit."""
    value = getattr(row, key)
    if value is None:
        return NOT_MEASURED
    if isinstance(value, Measured):
        return {
            "latency_ms": f"{number(value.median)} ms",
            "throughput": number(value.median),
            "epoch_seconds": duration(value.median),
        }[key]
    if key == "train_seconds":
        return duration(value.mean)
    if isinstance(value, Spread):
        return spread(value, as_percent=key != "loss")
    if key == "weights_bytes":
        return f"{human(value)}B"
    return human(value) if key == "macs" else f"{value:,}"


def table_text(rows: Sequence[Row]) -> str:
    """The table for a terminal: one line a model, the best of each column marked with an asterisk."""
    wanted = ("top1", "top5", "loss", "parameters_trainable", "macs", "latency_ms", "throughput", "epoch_seconds")
    columns = [column for column in COLUMNS if column.key in wanted]
    lines = [["network", "seeds", *(column.title for column in columns)]]
    for row in rows:
        marks = ["*" if is_best(row, column.key, rows) else " " for column in columns]
        cells = [cell(row, column.key) + mark for column, mark in zip(columns, marks, strict=True)]
        lines.append([row.model, str(len(row.seeds)), *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = [
        "  ".join(
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in padded)


def is_best(row: Row, key: str, rows: Sequence[Row]) -> bool:
    column = next(column for column in COLUMNS if column.key == key)
    best = best_in(column, rows)
    return best is not None and column.value(row) == best


def facts(comparison: Comparison) -> dict[str, str]:
    """What was run: data, networks, recipe, machines and commits, as the results themselves tell it."""
    run = comparison.first.run
    everyone = [record for group in comparison.records.values() for record in group]
    found = {
        "data": f"{run['data']}, {run['num_classes']} classes: {run['n_train']:,} training images, "
        f"{run['n_validation']:,} of the {run['validated_on']}",
        "data hash": run["data_sha256"],
        "views hash": run["views_sha256"],
        "networks": "; ".join(
            f"{model} (seed{'s' if len(group) > 1 else ''} {', '.join(str(r.seed) for r in group)})"
            for model, group in comparison.records.items()
        ),
        "recipe": ", ".join(f"{key} {value}" for key, value in run["train"].items()),
    }
    for title, sources in (
        ("trained on", [record.run.get("environment", {}) for record in everyone]),
        ("cost measured on", [record.cost.get("machine", {}) for record in everyone]),
    ):
        keys = dict.fromkeys(key for source in sources for key in source)
        values = {key: dict.fromkeys(str(source[key]) for source in sources if key in source) for key in keys}
        found[title] = (
            "; ".join(f"{key.replace('_', ' ')} {' / '.join(v)}" for key, v in values.items()) or "not stated"
        )
    commits = {
        record.timing["mlflow.source.git.commit"]
        + (f" with uncommitted changes: {changed}" if (changed := record.timing.get("git_uncommitted_changes")) else "")
        for record in everyone
        if "mlflow.source.git.commit" in record.timing
    }
    return {"commit": ", ".join(sorted(commits)) or "not stated"} | found


def layer_table(record: Record) -> list[dict[str, Any]]:
    """layers.csv with each layer's share of the MACs, and of the measured time where cost.json has it."""
    macs = [float(layer["macs"]) for layer in record.layers]
    times = record.cost.get("layer_ms", {})
    total = sum(times.values()) if times else 0.0
    return [
        {
            **layer,
            "macs_share": mac / (sum(macs) or 1),
            "time_share": times[layer["layer"]] / total if total and layer["layer"] in times else None,
        }
        for layer, mac in zip(record.layers, macs, strict=True)
    ]


def cost_details(record: Record, row: Row) -> dict[str, dict[str, str]]:
    """What else was measured of a network, in two tables: times, and processor, memory and energy."""

    def shown(key: str, form: Callable[[float], str], missing: str = NOT_MEASURED) -> str:
        value = record.cost.get(key)
        if isinstance(value, Mapping):
            return f"{form(value['median'])} ({number(value['p5'])} to {number(value['p95'])}, n {value['n']})"
        return missing if value is None else form(value)

    def milliseconds(value: float) -> str:
        return f"{number(value)} ms"

    def joules(value: float) -> str:
        return f"{human(value)}J" if value >= 1000 else f"{human(value)} J"

    def median(value: Measured | None, form: Callable[[float], str], missing: str = NOT_MEASURED) -> str:
        return form(value.median) if value else missing

    return {
        "Times": {
            "forward, batch 1": shown("latency_ms", milliseconds),
            "forward and backward, batch 1, evaluation mode": shown("train_latency_ms", milliseconds),
            "images a second, forward": shown("throughput", number),
            "images a second, forward and backward": shown("train_throughput", number),
        },
        "Processor, memory and energy": {
            "MACs an epoch": human(float(np.mean([epoch["train_macs"] for epoch in record.history]))),
            "CPU seconds an epoch": median(row.epoch_cpu_seconds, number),
            "CPU time an image": shown("cpu_seconds_per_image", lambda seconds: milliseconds(1000 * seconds)),
            "peak memory, forward": shown("peak_memory_forward_bytes", lambda size: f"{human(size)}B"),
            "peak memory, forward and backward": shown("peak_memory_train_step_bytes", lambda size: f"{human(size)}B"),
            "energy an image": shown("energy_joules_per_image", joules, NO_COUNTER),
            "energy a training image": shown("energy_joules_per_training_image", joules, NO_COUNTER),
            "energy an epoch": median(row.epoch_joules, joules, NO_COUNTER),
        },
    }


def summary(comparison: Comparison) -> dict[str, Any]:
    """Every figure of the comparison's tables, ready for JSON: what the README is made of."""
    return {
        **{key: comparison.first.run[key] for key in ("is_sample", "num_classes", "validated_on")},
        "facts": facts(comparison),
        "notes": comparison.notes,
        "verdict": verdict(comparison),
        "networks": [
            {key: value for key, value in asdict(row).items() if key != "confusion"} for row in comparison.rows
        ],
        "differences": [asdict(one) for one in comparison.differences],
        "training_cost": {model: [asdict(one) for one in reached] for model, reached in comparison.costs.items()},
        "claims": [asdict(one) for one in claims(comparison)],
    }


def write(comparison: Comparison, folder: Path) -> None:
    """Write comparison.json, table.txt and the CSV files into `folder`."""
    write_json(folder / "comparison.json", summary(comparison))
    (folder / "table.txt").write_text(table_text(comparison.rows) + "\n", encoding="utf-8")
    _write_csv(
        folder / "table.csv",
        ["model", "seeds", "top1_low", "top1_high", *(column.key for column in COLUMNS)],
        (
            [row.model, len(row.seeds), row.top1_interval.low, row.top1_interval.high, *(c.value(row) for c in COLUMNS)]
            for row in comparison.rows
        ),
    )
    everyone = [record for group in comparison.records.values() for record in group]
    keys = list(everyone[0].metrics)
    _write_csv(
        folder / "accuracy.csv",  # one line an evaluation, and nothing in it that varies from run to run
        ["model", "seed", *keys],
        ([r.model, r.seed, *(r.metrics.get(key) for key in keys)] for r in everyone),
    )
    curves = ["epoch", "train_top1", "validation_top1", "train_loss", "validation_loss"]
    _write_csv(
        folder / "curves.csv",
        ["model", "seed", *curves],
        (
            [r.model, r.seed, int(epoch["epoch"]), *(epoch[key] for key in curves[1:])]
            for r in everyone
            for epoch in r.history
        ),
    )
    first = comparison.first
    _write_csv(
        folder / "confusion.csv",  # of the most accurate network, for `dvc plots`
        ["actual", "predicted"],
        ([first.class_names[a], first.class_names[p]] for a, p in zip(first.labels, first.predicted, strict=True)),
    )


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
