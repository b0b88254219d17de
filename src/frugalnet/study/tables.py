"""The networks compared, as tables. Each is described once; HTML, Markdown and the terminal show it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from frugalnet.comparison.compare import Comparison, Reached, Row
from frugalnet.document.blocks import Cell, Table, network_cell
from frugalnet.document.wording import (
    BYTES,
    COUNT,
    DURATIONS,
    JOULES,
    MILLISECONDS,
    NOT_MEASURED,
    Units,
    count,
    interval,
    p_value,
    percent,
    prefixed,
    scale,
    seed_mean,
    signed_points,
)
from frugalnet.metrics import classes
from frugalnet.metrics.statistics import Quantiles, SeedMean


@dataclass(frozen=True)
class Column:
    """A figure of every network: the key of `Row.figure`, how to format it, and whether max, min or none is best.

    units: of a measurement; all numbers of the column are in one of them, with the same decimals.
    text: formats a figure that has no units.
    """

    key: str
    title: str
    best: Callable[[Iterable[float]], float] | None = None
    units: Units = ()
    text: Callable[[Any], str] = seed_mean

    def value(self, row: Row) -> float | None:
        """The figure, its mean over seeds or its median; None if it was not measured."""
        found = row.figure(self.key)
        if isinstance(found, SeedMean):
            return found.mean
        return found.median if isinstance(found, Quantiles) else found

    def cell(self, row: Row, rows: Sequence[Row]) -> Cell:
        """The figure as text, marked if it is the best of the rows: two of them must differ. Repeated measurements
        have their percentiles below."""
        found, value = row.figure(self.key), self.value(row)
        if value is None:
            return Cell(NOT_MEASURED)
        values = {other for one in rows if (other := self.value(one)) is not None}
        is_best = self.best is not None and len(values) > 1 and value == self.best(values)
        if not self.units:
            below = (interval(row.top1_interval), count(len(row.seeds), "seed")) if self.key == "top1" else ()
            return Cell(self.text(found), below, is_best)
        shown = scale([*values], self.units)
        repeated = (shown.range(found.p5, found.p95), f"n\u00a0{found.n}") if isinstance(found, Quantiles) else ()
        return Cell(shown(value), repeated, is_best)


PER_SECOND = ((1.0, ""),)
SUMMARY = (
    Column("top1", "Top-1", max),
    Column("parameters_trainable", "Parameters, trainable", min, text="{:,}".format),
    Column("macs", "MACs per image", min, COUNT),
    Column("latency_ms", "Latency, batch\u00a01", min, MILLISECONDS),
    Column("weights_bytes", "Weights", min, BYTES),
)
ACCURACY = (
    Column("top5", "Top-5", max),
    Column("macro_accuracy", "Macro accuracy", max),
    Column("loss", "Loss (nats)", min, text=lambda value: seed_mean(value, as_percent=False)),
    Column("ece", "Calibration error", min),
    Column("train_top1", "Training top-1"),
)
COST = (
    Column("parameters_keras", "Parameters, Keras’s count", min, text="{:,}".format),
    Column("throughput", "Images per second", max, PER_SECOND),
    Column("train_step_ms", "Training step", min, MILLISECONDS),
    Column("train_latency_ms", "Forward and backward, batch\u00a01", min, MILLISECONDS),
    Column("cpu_seconds_per_image", "CPU time per image", min, ((1e-3, " ms"),)),
    Column("peak_memory_forward_bytes", "Peak memory, forward", min, BYTES),
    Column("peak_memory_train_step_bytes", "Peak memory, forward and backward", min, BYTES),
    Column("energy_joules_per_image", "Energy per image", min, JOULES),
    Column("energy_joules_per_training_image", "Energy per training image", min, JOULES),
)
# Runs may have been trained at different times, on machines that were busy or not: nothing here is marked best.
TRAINING = (
    Column("epoch_macs", "MACs per epoch", None, COUNT),
    Column("epoch_seconds", "Epoch", None, DURATIONS),
    Column("train_seconds", "All epochs", None, DURATIONS),
    Column("epoch_cpu_seconds", "CPU time per epoch", None, DURATIONS),
    Column("epoch_joules", "Energy per epoch", None, JOULES),
)
BY_KEY = {column.key: column for column in (*SUMMARY, *ACCURACY, *COST, *TRAINING)}


def telling(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """The columns without Top-5 where it cannot be wrong: with five classes or fewer."""
    return [column for column in columns if column.key != "top5" or len(rows[0].classes) > 5]


def networks(rows: Sequence[Row], title: str, columns: Sequence[Column]) -> Table:
    """The figures of every network, the best of each column marked; the note names what no network has."""
    columns = telling(columns, rows)
    known = [column for column in columns if any(column.value(row) is not None for row in rows)]
    missing = [column.title for column in columns if column not in known]
    body = [[network_cell(row.model), *(column.cell(row, rows) for column in known)] for row in rows]
    note = f"Not measured on this machine: {', '.join(missing)}." if missing else ""
    return Table(title, ("Network", *(column.title for column in known)), body, note=note)


def terminal(rows: Sequence[Row]) -> str:
    """The table for a terminal: one line per network, the best of each column marked with an asterisk."""
    columns = telling([*SUMMARY, BY_KEY["top5"], BY_KEY["throughput"]], rows)
    lines = [["network", "seeds", *(column.title for column in columns)]]
    for row in rows:
        cells = [column.cell(row, rows) for column in columns]
        lines.append([row.model, str(len(row.seeds)), *(cell.text + (" ", "*")[cell.best] for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def differences(comparison: Comparison) -> Table:
    rows = []
    for one in comparison.differences:
        p_values = [*map(p_value, one.mcnemar.values())]
        bounds = f"{signed_points(one.interval.low)} to {signed_points(one.interval.high)}"
        figures = (f"{signed_points(one.interval.estimate)} points", bounds, ", ".join(p_values) or "no common seed")
        rows.append([Cell(one.wording), *map(Cell, figures)])
    header = ("Two networks", "Difference of top-1", "95 % interval", "McNemar’s exact p, by seed")
    return Table("Differences of top-1", header, rows, style="pairs")


def training_cost(rows: Sequence[Row]) -> Table:
    def cell(one: Reached) -> Cell:
        if one.epochs is None or one.macs is None:
            return Cell(f"{one.seeds_reached} of {one.seeds} seeds" if one.seeds_reached else "not reached")
        return Cell(count(one.epochs, "epoch"), (macs(one.macs),))

    every = [one for row in rows for one in row.reached]
    macs = scale([one.macs for one in every if one.macs] or [1], prefixed("MACs"))
    milestones = [percent(one.milestone, 0) for one in rows[0].reached]
    body = [[network_cell(row.model), *map(cell, row.reached)] for row in rows]
    return Table("Training cost of reaching an accuracy", ("Validation top-1", *milestones), body)


def extremes(rows: Sequence[Row]) -> Table:
    def named(row: Row, chosen: Sequence[int]) -> Cell:
        return Cell(", ".join(f"{row.classes[c].name} {percent(row.classes[c].accuracy or 0, 0)}" for c in chosen))

    best_and_worst = [classes.best_and_worst([one.accuracy for one in row.classes]) for row in rows]
    body = [
        [network_cell(row.model), *(named(row, chosen) for chosen in both)]
        for row, both in zip(rows, best_and_worst, strict=True)
    ]
    return Table("Easiest and hardest classes", ("Network", "Easiest", "Hardest"), body, (0, 1, 2), "prose")


def confused_pairs(row: Row) -> Table:
    pairs = classes.most_confused_pairs(row.confusion, row.records[0].class_names)
    rows = [[Cell(f"{p.first} · {p.second}"), Cell(str(p.forward)), Cell(str(p.backward))] for p in pairs]
    header = ("Classes", "First as second", "Second as first")
    seeds = f", {len(row.seeds)} seeds together" if len(row.seeds) > 1 else ""
    return Table(f"Most confused pairs of {row.model}{seeds}", header, rows, style="")


def layers(row: Row) -> Table:
    """layers.csv, with each layer's fraction of the MACs, and of the measured time."""
    layers, times = row.records[0].layers, row.cost.get("layer_ms") or {}
    macs, milliseconds = sum(float(layer["macs"]) for layer in layers), sum(times.values())
    rows = []
    counted = scale([float(layer["macs"]) for layer in layers if float(layer["macs"])] or [1], prefixed(""))
    for layer in layers:
        of_macs = float(layer["macs"]) / (macs or 1)
        of_time = times[layer["layer"]] / milliseconds if milliseconds and layer["layer"] in times else None
        texts = (layer["layer"], layer["kind"], layer["output_shape"], f"{int(layer['parameters_trainable']):,}")
        time = Cell(NOT_MEASURED) if of_time is None else Cell(percent(of_time), bar=of_time)
        rows.append([*map(Cell, texts), Cell(counted(float(layer["macs"]))), Cell(percent(of_macs), bar=of_macs), time])
    header = ("Layer", "Kind", "Output", "Parameters", "MACs", "Fraction of MACs", "Fraction of time")
    return Table(f"Layers of {row.model}", header, rows, (0, 1, 5, 6))
