"""The section "Training": curves, each seed's final accuracy, and what training took."""

from collections.abc import Sequence
from dataclasses import replace

from frugalnet.comparison import curves
from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.families import colours
from frugalnet.comparison.networks import Reached, Row
from frugalnet.document.blocks import Block, Cell, Chart, Grid, Point, Section, Table, network_cell
from frugalnet.document.wording import count, percent, prefixed, scale
from frugalnet.study import tables


def section(comparison: Comparison) -> Section:
    """Curves by network and of all together, final accuracies by seed, and two tables."""
    rows = comparison.rows
    *each, together = curves.charts(rows)
    blocks: list[Block] = [SEEDS, Grid(each, min(len(rows), 3)), together, MEANS]
    by_seed = seed_chart(rows)
    blocks += [] if by_seed.is_empty else [Grid([by_seed])]
    blocks += [tables.networks(rows, "Training as it ran", tables.TRAINING), TRAINING_NOTE]
    blocks += [training_cost(rows), REACHED]
    return Section("curves", "Training", blocks)


def seed_chart(rows: Sequence[Row]) -> Chart:
    """Final top-1 of each seed, by network; empty if each has one seed only."""
    chart = Chart("seeds", "Final top-1 of each seed", "", height=260)
    colour_of = colours(rows)
    points = []
    for i, row in enumerate(rows):
        for k, record in enumerate(row.records):
            x = i + 0.12 * (k - (len(row.records) - 1) / 2)
            top1 = 100 * record.metrics.top1
            text = [f"{record.name}: {top1:.2f} %"]
            points.append(Point("", colour_of[row.model], x, top1, (top1, top1), text))
    if len(points) == len(rows):
        return chart
    accuracies = [point.y for point in points]
    return replace(
        chart,
        x_range=(-0.5, len(rows) - 0.5),
        y_range=(min(accuracies) - 1, max(accuracies) + 1),
        points=points,
        x_names=[row.model for row in rows],
    )


def training_cost(rows: Sequence[Row]) -> Table:
    def cell(reached: Reached) -> Cell:
        if reached.epochs is None or reached.macs is None:
            return Cell(f"{reached.seeds_reached} of {reached.seeds} seeds" if reached.seeds_reached else "not reached")
        return Cell(count(reached.epochs, "epoch"), (macs(reached.macs),))

    costs = [reached.macs for row in rows for reached in row.reached]
    macs = scale([cost for cost in costs if cost] or [1], prefixed("MACs"))
    milestones = [percent(reached.milestone, 0) for reached in rows[0].reached]
    body = [[network_cell(row.model), *map(cell, row.reached)] for row in rows]
    return Table("Training cost of reaching an accuracy", ("Validation top-1", *milestones), body)


TRAINING_NOTE = (
    "Medians over epochs and seeds; “all epochs” is a training’s sum, the mean over seeds. The networks were trained "
    "one after another, maybe on different machines or under other load, so these times cannot be compared with each "
    "other."
)
REACHED = (
    "Cost up to the end of the first epoch that reached the accuracy. A training image counts as three times the "
    "network’s MACs in evaluation: too many for a network that averages several views there only."
)
SEEDS = "Top-1 by epoch, one line per seed. Solid: validation. Dotted: training, on augmented images."
MEANS = "All networks: means over seeds, each name at the height where its validation curve ends."
