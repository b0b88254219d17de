"""Charts of the networks compared: accuracy against each cost, the final top-1 of each seed, confusion."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from frugalnet.comparison.compare import Comparison, Row
from frugalnet.document.blocks import Chart, Heatmap, Point
from frugalnet.document.charts import colours, scatter
from frugalnet.document.wording import interval, one_line, seed_mean
from frugalnet.metrics import classes
from frugalnet.metrics.statistics import Quantiles
from frugalnet.study.tables import BY_KEY

COST_AXES = {
    "macs": "MACs per image",
    "parameters_trainable": "trainable parameters",
    "latency_ms": "latency at batch 1 (ms)",
    "train_step_ms": "time of a training step (ms)",
}


def cost_chart(rows: Sequence[Row], key: str) -> Chart:
    """Accuracy against one cost; empty if the cost was not measured."""
    axis, colour, points = COST_AXES[key], colours(row.model for row in rows), []
    for row in rows:
        cost, measured = BY_KEY[key].value(row), getattr(row, key)
        if cost is None or cost <= 0:
            continue
        text = [f"top-1 {seed_mean(row.top1)} ({interval(row.top1_interval)})"]
        text += [f"{BY_KEY[other].title}: {BY_KEY[other].cell(row, [row]).text}" for other in COST_AXES]
        bounds = (100 * row.top1_interval.low, 100 * row.top1_interval.high)
        span = (measured.p5, measured.p95) if isinstance(measured, Quantiles) else None
        points.append(Point(row.model, colour[row.model], float(cost), 100 * row.top1.mean, bounds, text, span))
    return scatter(f"accuracy_{key}", f"Top-1 against {axis.removesuffix(' (ms)')}", axis, points)


def seed_chart(rows: Sequence[Row]) -> Chart:
    """Final top-1 of each seed, by network; empty if each has one seed only."""
    chart = Chart("seeds", "Final top-1 of each seed", "", height=260)
    colour_of = colours(row.model for row in rows)
    points = []
    for i, row in enumerate(rows):
        for k, record in enumerate(row.records):
            x = i + 0.12 * (k - (len(row.records) - 1) / 2)
            top1 = 100 * record.metrics["top1"]
            text = [f"{record.name}: {top1:.2f} %"]
            points.append(Point("", colour_of[row.model], x, top1, (top1, top1), text))
    ends, x_range = [point.y for point in points], (-0.5, len(rows) - 0.5)
    drawn = replace(chart, x_range=x_range, y_range=(min(ends) - 1, max(ends) + 1), points=points)
    return chart if len(points) == len(rows) else replace(drawn, x_names=[row.model for row in rows])


def heatmap(
    name: str, title: str, confused: NDArray[np.int64], order: Sequence[int], class_names: Sequence[str]
) -> Heatmap:
    return Heatmap(name, title, [class_names[c] for c in order], classes.mistakes_percent(confused, order))


def unique_names(comparison: Comparison) -> list[str]:
    """The class names on one line, with the id beside those that two classes share: an axis would merge them."""
    names = [one_line(name) for name in comparison.first.class_names]
    ids = comparison.first.class_ids
    return [n if names.count(n) == 1 else f"{n} ({c})" for c, n in zip(ids, names, strict=True)]
