"""Findings as tables. Each is described once; HTML, Markdown, the terminal and CSV show it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from frugalnet.files import write_json, write_table
from frugalnet.metrics import classes
from frugalnet.metrics.statistics import Quantiles, SeedMean
from frugalnet.report.comparison import Reached, Row
from frugalnet.report.findings import Findings
from frugalnet.report.results import Record, is_quantiles
from frugalnet.report.wording import (
    NOT_MEASURED,
    duration,
    human,
    interval,
    memory,
    milliseconds,
    number,
    percent,
    seed_mean,
    signed_points,
)

NO_COUNTER = "not measured on this machine"


@dataclass(frozen=True)
class Cell:
    """A table cell: its text, further lines below it, and how it looks."""

    text: str
    below: tuple[str, ...] = ()
    best: bool = False
    bar: float | None = None  # 0..1
    style: str = ""  # CSS class

    @property
    def missing(self) -> bool:
        return self.text.startswith(("not measured", "not reached"))


@dataclass(frozen=True)
class Table:
    """A table to show. The first cell of a row is its heading."""

    title: str
    header: tuple[str, ...]
    rows: list[list[Cell]]
    text_columns: tuple[int, ...] = (0,)  # left-aligned
    style: str = "pin"  # CSS class


@dataclass(frozen=True)
class Column:
    """A figure of every network: `text` formats it, `best` is max, min or None."""

    kind: Literal["accuracy", "cost"]
    key: str  # field of Row
    title: str
    text: Callable[[Any], str]
    best: Callable[[Iterable[float]], float] | None = min
    below: Callable[[Row], str] | None = None  # further text

    def value(self, row: Row) -> float | None:
        """The figure, its mean over seeds or its median; None if it was not measured."""
        found = getattr(row, self.key)
        if isinstance(found, SeedMean):
            return found.mean
        return found.median if isinstance(found, Quantiles) else found

    def cell(self, row: Row, rows: Sequence[Row] = ()) -> Cell:
        """The figure as text, marked if it is the best of the rows: two of them must differ."""
        found, value = getattr(row, self.key), self.value(row)
        if value is None:
            return Cell(NOT_MEASURED)
        values = {other for one in rows if (other := self.value(one)) is not None}
        is_best = self.best is not None and len(values) > 1 and value == self.best(values)
        return Cell(self.text(found), (self.below(row),) if self.below else (), is_best)


def _loss(value: SeedMean) -> str:
    return seed_mean(value, as_percent=False)


def _median(value: Quantiles) -> str:
    return number(value.median)


def _milliseconds(value: Quantiles) -> str:
    return milliseconds(value.median)


def _quantiles(value: Quantiles | None) -> str:
    return f"{number(value.p5)} to {number(value.p95)}, n {value.n}" if value else ""


COLUMNS = (
    Column("accuracy", "top1", "Top-1", seed_mean, max, lambda row: interval(row.top1_interval)),
    Column("accuracy", "top5", "Top-5", seed_mean, max),
    Column("accuracy", "macro_accuracy", "Macro accuracy", seed_mean, max),
    Column("accuracy", "loss", "Loss (nats)", _loss),
    Column("accuracy", "ece", "Calibration error", seed_mean),
    Column("accuracy", "train_top1", "Training top-1", seed_mean, None),
    Column("cost", "parameters_trainable", "Parameters, trainable", "{:,}".format),
    Column("cost", "parameters_keras", "Parameters, Keras's count", "{:,}".format),
    Column("cost", "macs", "MACs per image", human),
    Column("cost", "weights_bytes", "Weights", memory),
    Column("cost", "latency_ms", "Latency, batch\u00a01", _milliseconds, below=lambda row: _quantiles(row.latency_ms)),
    Column("cost", "throughput", "Images per second", _median, max, lambda row: _quantiles(row.throughput)),
    Column("cost", "epoch_seconds", "Epoch", lambda value: duration(value.median)),
    Column("cost", "train_seconds", "Training", lambda value: duration(value.mean)),
)
BY_KEY = {column.key: column for column in COLUMNS}


def figures(rows: Sequence[Row], kind: Literal["accuracy", "cost"]) -> Table:
    """The networks' accuracies or costs, the best of each column marked."""
    columns = [column for column in COLUMNS if column.kind == kind]
    seeds = kind == "accuracy"
    return Table(
        f"{kind} of all networks".capitalize(),
        ("Network", *(column.title for column in columns), *(["Seeds"] if seeds else [])),
        [
            [_network(row), *(c.cell(row, rows) for c in columns), *([Cell(str(len(row.seeds)))] if seeds else [])]
            for row in rows
        ],
    )


def _network(row: Row) -> Cell:
    return Cell(row.model, style="network")


def terminal(rows: Sequence[Row]) -> str:
    """The table for a terminal: one line per network, the best of each column marked with an asterisk."""
    wanted = ("top1", "top5", "loss", "parameters_trainable", "macs", "latency_ms", "throughput", "epoch_seconds")
    columns = [BY_KEY[key] for key in wanted]
    lines = [["network", "seeds", *(column.title for column in columns)]]
    for row in rows:
        cells = [column.cell(row, rows) for column in columns]
        lines.append([row.model, str(len(row.seeds)), *(cell.text + (" ", "*")[cell.best] for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def differences(found: Findings) -> Table:
    rows = []
    for one in found.comparison.differences:
        p_values = [f"{p:.2g}" if p >= 1e-4 else "< 0.0001" for p in one.mcnemar.values()]
        bounds = f"{signed_points(one.interval.low)} to {signed_points(one.interval.high)}"
        figures = (f"{signed_points(one.interval.estimate)} points", bounds, ", ".join(p_values) or "no common seed")
        rows.append([Cell(one.wording), *map(Cell, figures)])
    header = ("Two networks", "Difference of top-1", "95 % interval", "McNemar’s exact p, by seed")
    return Table("Differences of top-1", header, rows, style="pairs")


def training_cost(rows: Sequence[Row]) -> Table:
    milestones = [percent(one.milestone, 0) for one in rows[0].reached]
    body = [[_network(row), *map(_reached, row.reached)] for row in rows]
    return Table("Training cost of reaching an accuracy", ("Validation top-1", *milestones), body)


def _reached(one: Reached) -> Cell:
    if one.epochs is None or one.macs is None:
        return Cell(f"{one.seeds_reached} of {one.seeds} seeds" if one.seeds_reached else "not reached")
    seconds = duration(one.seconds) if one.seconds else NOT_MEASURED
    return Cell(f"{one.epochs:.3g} epoch{'s' if one.epochs != 1 else ''}", (seconds, f"{human(one.macs)}MACs"))


def _joules(value: float) -> str:
    return f"{human(value)}J" if value >= 1000 else f"{human(value)} J"


def _cost(key: str, form: Callable[[float], str], missing: str = NOT_MEASURED) -> Callable[[Row], Cell]:
    """A figure of cost.json, with its percentiles if it has them."""

    def cell(row: Row) -> Cell:
        value: Any = row.cost.get(key)
        if is_quantiles(value):
            return Cell(form(value["median"]), (_quantiles(Quantiles(**value)),))
        return Cell(missing if value is None else form(value))

    return cell


def _epoch(key: str, form: Callable[[float], str], missing: str = NOT_MEASURED) -> Callable[[Row], Cell]:
    return lambda row: Cell(form(value.median) if (value := getattr(row, key)) else missing)


def _epoch_macs(row: Row) -> Cell:
    return Cell(human(float(np.mean([epoch["train_macs"] for epoch in row.records[0].history]))))


DETAILS: dict[str, dict[str, Callable[[Row], Cell]]] = {
    "Times": {
        "Forward, batch\u00a01": _cost("latency_ms", milliseconds),
        "Forward and backward, batch 1, evaluation mode": _cost("train_latency_ms", milliseconds),
        "Images per second, forward": _cost("throughput", number),
        "Images per second, forward and backward": _cost("train_throughput", number),
    },
    "Processor, memory and energy": {
        "MACs per epoch": _epoch_macs,
        "CPU seconds per epoch": _epoch("epoch_cpu_seconds", number),
        "CPU time per image": _cost("cpu_seconds_per_image", lambda seconds: milliseconds(1000 * seconds)),
        "Peak memory, forward": _cost("peak_memory_forward_bytes", memory),
        "Peak memory, forward and backward": _cost("peak_memory_train_step_bytes", memory),
        "Energy per image": _cost("energy_joules_per_image", _joules, NO_COUNTER),
        "Energy per training image": _cost("energy_joules_per_training_image", _joules, NO_COUNTER),
        "Energy per epoch": _epoch("epoch_joules", _joules, NO_COUNTER),
    },
}


def details(rows: Sequence[Row]) -> list[Table]:
    return [
        Table(title, ("Network", *cells), [[_network(row), *(cell(row) for cell in cells.values())] for row in rows])
        for title, cells in DETAILS.items()
    ]


def paper_classes(found: Findings) -> Table | None:
    """The paper's easiest and hardest classes and their ranks here; None if the data have none of them."""
    models = [row.model for row in found.comparison.rows]
    rows = [
        [Cell(ranks[0].name), Cell(kind), *(Cell(f"{r.rank} of {r.of}", (percent(r.accuracy, 0),)) for r in ranks)]
        for kind, by_model in found.paper_classes.items()
        for ranks in zip(*by_model.values(), strict=True)
    ]
    return Table("The paper’s classes", ("Class", "The paper", *models), rows, (0, 1)) if rows else None


def extremes(rows: Sequence[Row]) -> Table:
    def named(row: Row, chosen: Sequence[int]) -> Cell:
        return Cell(", ".join(f"{row.classes[c].name} {percent(row.classes[c].accuracy or 0, 0)}" for c in chosen))

    best_and_worst = [classes.best_and_worst([one.accuracy for one in row.classes]) for row in rows]
    body = [
        [_network(row), *(named(row, chosen) for chosen in both)]
        for row, both in zip(rows, best_and_worst, strict=True)
    ]
    return Table("Easiest and hardest classes", ("Network", "Easiest", "Hardest"), body, (0, 1, 2), "prose")


def confused_pairs(row: Row) -> Table:
    pairs = classes.most_confused_pairs(row.confusion, row.records[0].class_names)
    rows = [[Cell(f"{p.first} · {p.second}"), Cell(str(p.forward)), Cell(str(p.backward))] for p in pairs]
    header = ("Most confused pairs", "First as second", "Second as first")
    return Table(f"Most confused pairs of {row.model}", header, rows, style="")


def layers(row: Row) -> Table:
    """layers.csv, with each layer's fraction of the MACs, and of the measured time."""
    layers, times = row.records[0].layers, row.cost.get("layer_ms") or {}
    macs, milliseconds = sum(float(layer["macs"]) for layer in layers), sum(times.values())
    rows = []
    for layer in layers:
        of_macs = float(layer["macs"]) / (macs or 1)
        of_time = times[layer["layer"]] / milliseconds if milliseconds and layer["layer"] in times else None
        texts = (layer["layer"], layer["kind"], layer["output_shape"], f"{int(layer['parameters_trainable']):,}")
        time = Cell(NOT_MEASURED) if of_time is None else Cell(percent(of_time), bar=of_time)
        rows.append([*map(Cell, texts), Cell(human(float(layer["macs"]))), Cell(percent(of_macs), bar=of_macs), time])
    header = ("Layer", "Kind", "Output", "Parameters", "MACs", "Fraction of MACs", "Fraction of time")
    return Table(f"Layers of {row.model}", header, rows, (0, 1, 5, 6))


def claims(found: Findings) -> Table:
    rows = [
        [
            Cell(claim.says, (f"section {claim.section}",)),
            Cell(claim.measured, (claim.rule,)),
            Cell(claim.outcome, style=f"outcome {claim.outcome.replace(' ', '-')}"),
        ]
        for claim in found.claims
    ]
    header = ("What the paper says", "Measured here", "Outcome")
    return Table("The paper’s claims", header, rows, (0, 1, 2), "prose claims")


def write(found: Findings, folder: Path) -> None:
    """Write comparison.json, efficiency.json, table.txt and the CSV files into `folder`."""
    rows, records, first = found.comparison.rows, found.comparison.records, found.comparison.first
    write_json(folder / "comparison.json", found.summary())
    write_json(folder / "efficiency.json", {record.name: record.efficiency() for record in records})
    (folder / "table.txt").write_text(terminal(rows) + "\n", encoding="utf-8")
    for name, table in {
        "table": [_csv_row(row) for row in rows],
        # One line per evaluation, without anything that varies from run to run.
        "accuracy": [{**_name(record), **record.metrics} for record in records],
        "curves": [{**_name(record), **_csv_epoch(epoch)} for record in records for epoch in record.history],
        "confusion": [  # of the most accurate network, for `dvc plots`
            {"actual": first.class_names[actual], "predicted": first.class_names[predicted]}
            for actual, predicted in zip(first.labels, first.predicted, strict=True)
        ],
    }.items():
        write_table(folder / f"{name}.csv", table)


def _name(record: Record) -> dict[str, Any]:
    return {"model": record.model, "seed": record.seed}


def _csv_row(row: Row) -> dict[str, Any]:
    interval = {"top1_low": row.top1_interval.low, "top1_high": row.top1_interval.high}
    figures = {column.key: column.value(row) for column in COLUMNS}
    return {"model": row.model, "seeds": len(row.seeds), **interval, **figures}


def _csv_epoch(epoch: dict[str, float]) -> dict[str, Any]:
    keys = ("train_top1", "validation_top1", "train_loss", "validation_loss")
    return {"epoch": int(epoch["epoch"]), **{key: epoch[key] for key in keys}}
