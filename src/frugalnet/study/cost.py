"""The sections "Accuracy against cost" and "Layers": charts and tables of what the networks cost."""

from collections.abc import Sequence
from dataclasses import replace

from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.families import colours, names_in_charts
from frugalnet.comparison.networks import Row
from frugalnet.document.blocks import Cell, Chart, Fold, Grid, Point, Section, Table
from frugalnet.document.charts import scatter
from frugalnet.document.wording import NOT_MEASURED, interval, percent, prefixed, scale, seed_mean
from frugalnet.metrics.statistics import Quantiles
from frugalnet.study import tables
from frugalnet.study.tables import BY_KEY

SLOWER = 1.1  # from this ratio of medians on, a network is called slower
ANSWER = "macs"  # the axis of the chart beside the recommendation
COST_AXES = {
    "macs": "MACs per image",
    "parameters_trainable": "trainable parameters",
    "latency_ms": "latency at batch 1 (ms)",
    "train_step_ms": "time of a training step (ms)",
}


def section(comparison: Comparison) -> Section:
    """A chart for each cost but the one beside the recommendation, and a table of further costs."""
    charts = [cost_chart(comparison.rows, key) for key in COST_AXES if key != ANSWER]
    table = tables.networks(comparison.rows, "More on cost", tables.COST)
    note = KERAS if comparison.is_of_the_paper else KERAS.replace(", as in the paper,", "")
    return Section("cost", "Accuracy against cost", [Grid(charts, 3), FRONT, table, f"{note} {COST_NOTE}"])


def layers_section(comparison: Comparison) -> Section:
    """Each network's layers, with their fractions of MACs and time."""
    return Section("layers", "Layers", [Fold(row.model, [layers(row)]) for row in comparison.rows])


def cost_chart(rows: Sequence[Row], key: str) -> Chart:
    """Accuracy against one cost; empty if the cost was not measured."""
    axis = COST_AXES[key]
    colour = colours(rows)
    name = names_in_charts(rows)
    measure = rows[0].measure
    points = []
    for row in rows:
        cost = BY_KEY[key].value(row)
        measured = row.figure(key)
        if cost is None or cost <= 0:
            continue
        costs = [f"{BY_KEY[other].title}: {BY_KEY[other].cell(row, [row]).text}" for other in COST_AXES]
        span = (measured.p5, measured.p95) if isinstance(measured, Quantiles) else None
        point = lead_point(row, colour[row.model], float(cost), costs)
        points.append(replace(point, span=span, name=name[row.model], network=row.model))
    title = f"{measure.title} against {axis.removesuffix(' (ms)')}"
    return replace(scatter(f"accuracy_{key}", title, axis, points), y_title=f"{measure.name}, %")


def lead_point(row: Row, colour: str, cost: float, costs: Sequence[str]) -> Point:
    """A network at its cost, with its accuracy and interval. costs: what the pointer shows beside the accuracy."""
    reached = f"{row.measure.name} {seed_mean(row.lead)} ({interval(row.lead_interval)})"
    bounds = (100 * row.lead_interval.low, 100 * row.lead_interval.high)
    return Point(row.model, colour, cost, 100 * row.lead.mean, bounds, [reached, *costs])


def layers(row: Row) -> Table:
    """layers.csv, with each layer's fraction of the MACs, and of the measured time."""
    layers = row.records[0].layers
    times = row.cost.get("layer_ms") or {}
    total_macs = sum(layer.macs for layer in layers) or 1
    total_ms = sum(times.values())
    counted = scale([layer.macs for layer in layers if layer.macs] or [1], prefixed(""))
    rows = []
    for layer in layers:
        of_macs = layer.macs / total_macs
        of_time = times[layer.layer] / total_ms if total_ms and layer.layer in times else None
        texts = (layer.layer, layer.kind, layer.output_shape, f"{layer.parameters_trainable:,}")
        time = Cell(NOT_MEASURED) if of_time is None else Cell(percent(of_time), bar=of_time)
        rows.append([*map(Cell, texts), Cell(counted(layer.macs)), Cell(percent(of_macs), bar=of_macs), time])
    header = ("Layer", "Kind", "Output", "Parameters", "MACs", "Fraction of MACs", "Fraction of time")
    return Table(f"Layers of {row.model}", header, rows, (0, 1, 5, 6))


FRONT = (
    "Cost is on a logarithmic scale. Filled points are Pareto-optimal by the means. Vertical bars are 95 % intervals, "
    "horizontal ones 5th to 95th percentiles. Networks of about equal cost are drawn side by side. A training step is "
    "the forward and backward pass of one batch."
)
KERAS = "Keras, as in the paper, also counts the running mean and variance of batch norms, which are not trained."
COST_NOTE = (
    "Medians after warm-up, in rounds that alternate between the networks; one batch has the size stated under “cost "
    "measured on”. Backward excludes the optimiser. CPU time is that of all threads. Energy is read from a hardware "
    "counter."
)
