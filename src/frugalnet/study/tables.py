"""The networks compared, as tables. Each is described once; HTML, Markdown and the terminal show it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from frugalnet.comparison.networks import Row
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
    scale,
    seed_mean,
)
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
        figure = row.figure(self.key)
        if isinstance(figure, SeedMean):
            return figure.mean
        return figure.median if isinstance(figure, Quantiles) else figure

    def cell(self, row: Row, rows: Sequence[Row]) -> Cell:
        """The figure as text, marked if it is the best of the rows: two of them must differ. Repeated measurements
        have their percentiles below."""
        figure = row.figure(self.key)
        value = self.value(row)
        if value is None:
            return Cell(NOT_MEASURED)
        values = {value for value in map(self.value, rows) if value is not None}
        is_best = self.best is not None and len(values) > 1 and value == self.best(values)
        if not self.units:
            return Cell(self.text(figure), self._below(row), is_best)
        shown = scale([*values], self.units)
        if not isinstance(figure, Quantiles):
            return Cell(shown(value), (), is_best)
        mark = BUSY if row.was_busy and self.key in row.cost else ""
        return Cell(mark + shown(value), (shown.range(figure.p5, figure.p95), f"n\u00a0{figure.n}"), is_best)

    def _below(self, row: Row) -> tuple[str, ...]:
        """The interval of an accuracy that has one, and with the one that ranks the networks its number of seeds."""
        intervals = {"top1": row.top1_interval, "macro_accuracy": row.macro_interval}
        known = intervals.get(self.key)
        seeds = (count(len(row.seeds), "seed"),) if self.key == row.measure.key else ()
        return (interval(known), *seeds) if known else ()


BUSY = "~"
BUSY_NOTE = "~: measured while other programs used the machine; measure again when it is idle"
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
    """The columns without Top-5 where it cannot be wrong; with the accuracy that ranks the networks beside Top-1."""
    told = [column for column in columns if column.key != "top5" or not rows[0].has_few_classes]
    lead = BY_KEY[rows[0].measure.key]
    others = [column for column in told if column != lead]
    return [lead, *others] if BY_KEY["top1"] in told else others


def networks(rows: Sequence[Row], title: str, columns: Sequence[Column]) -> Table:
    """The figures of every network, the best of each column marked; the note names what no network has."""
    columns = telling(columns, rows)
    known = [column for column in columns if any(column.value(row) is not None for row in rows)]
    missing = [column.title for column in columns if column not in known]
    body = [[network_cell(row.model), *(column.cell(row, rows) for column in known)] for row in rows]
    notes = [f"Not measured on this machine: {', '.join(missing)}."] if missing else []
    notes += [f"{BUSY_NOTE}."] if any(cell.text.startswith(BUSY) for line in body for cell in line) else []
    return Table(title, ("Network", *(column.title for column in known)), body, note=" ".join(notes))


def terminal(rows: Sequence[Row]) -> str:
    """The table for a terminal: one line per network, the best of each column marked with an asterisk."""
    columns = telling([*SUMMARY, BY_KEY["top5"], BY_KEY["throughput"]], rows)
    lines = [["network", "seeds", *(column.title for column in columns)]]
    for row in rows:
        cells = [column.cell(row, rows) for column in columns]
        lines.append([row.model, str(len(row.seeds)), *(cell.text + (" ", "*")[cell.best] for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    shown = ["  ".join(line).rstrip() for line in padded]
    again = f"{BUSY_NOTE}: dvc repro --force --single-item measure && dvc repro"
    return "\n".join([*shown, again] if any(row.was_busy for row in rows) else shown)
