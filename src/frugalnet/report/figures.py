"""The report's charts, each described once; drawing.py renders them for the page and as PNG.

A colour "@name" is one of the page's own, so that charts follow its colour scheme.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from frugalnet.metrics import classes
from frugalnet.metrics.statistics import Quantiles, pareto_front
from frugalnet.report.comparison import Comparison, Row
from frugalnet.report.tables import BY_KEY
from frugalnet.report.wording import interval, one_line, seed_mean

COST_AXES = {
    "macs": "MACs per image",
    "parameters_trainable": "trainable parameters",
    "latency_ms": "latency at batch 1 (ms)",
    "train_step_ms": "time of a training step (ms)",
}
# Mid-tones that stand out against white and against near-black: more than 3:1 on both.
PALETTE = ("#2f7fd6", "#d9661f", "#23946a", "#9560cf", "#d1466b", "#1593a5", "#a8800c", "#7d7f86")
Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True)
class Line:
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    text: str = ""  # shown by the pointer
    dotted: bool = False
    width: float = 2.0
    stepped: bool = False


@dataclass(frozen=True)
class Point:
    """A measured figure: y and its interval in percent, and x with its span in 90 % of measurements."""

    name: str
    colour: str
    x: float
    y: float
    interval: tuple[float, float]
    text: Sequence[str]  # shown by the pointer
    span: tuple[float, float] | None = None
    side: tuple[int, int] = (1, 0)  # where its name stands: -1, 0 or 1 to the right and upward
    filled: bool = False

    @property
    def y_error(self) -> tuple[float, float]:
        """The lengths of the bar below and above."""
        return max(self.y - self.interval[0], 0), max(self.interval[1] - self.y, 0)

    @property
    def x_error(self) -> tuple[float, float] | None:
        """The lengths of the bar to the left and to the right."""
        return (max(self.x - self.span[0], 0), max(self.span[1] - self.x, 0)) if self.span else None


@dataclass(frozen=True)
class Label:
    """A text right of the chart."""

    y: float
    text: str
    colour: str


@dataclass(frozen=True)
class Chart:
    """Top-1 or another percentage, upward, against costs, epochs or categories."""

    name: str  # of the PNG
    title: str
    x_title: str
    x_range: tuple[float, float] = (0, 1)
    y_range: tuple[float, float] = (0, 1)
    lines: Sequence[Line] = ()
    points: Sequence[Point] = ()
    labels: Sequence[Label] = ()
    ticks: Sequence[float] = ()  # of a logarithmic x axis; else it is linear
    height: int = 300  # pixels on the page
    y_title: str = "top-1, %"
    x_names: Sequence[str] = ()  # of x = 0, 1, …: categories

    @property
    def is_empty(self) -> bool:
        return not (self.lines or self.points)


@dataclass(frozen=True)
class Heatmap:
    """Percent of each true class (down) that was predicted as another (across)."""

    name: str
    title: str
    class_names: Sequence[str]
    percent: NDArray[np.float32]  # (C, C); the diagonal is NaN
    height: int = 520
    is_empty: bool = False


def colours(rows: Sequence[Row]) -> dict[str, str]:
    """Each network's colour, whatever the order of the rows."""
    return {model: PALETTE[i % len(PALETTE)] for i, model in enumerate(sorted(row.model for row in rows))}


def scatter(name: str, title: str, axis: str, points: Sequence[Point]) -> Chart:
    """Percentages against a cost on a logarithmic axis, with intervals and the Pareto front; empty without points.

    Names stand where they overlap least with points, bars, the front and each other.
    """
    if not points:
        return Chart(name, title, axis)
    x, y = np.array([point.x for point in points], float), np.array([point.y for point in points], float)
    ends = [*x, *(max(end, 1e-9) for point in points for end in point.span or ())]
    pad = max(0.3 * np.log10(max(ends) / min(ends)), 0.12)
    x_range = (min(ends) / 10**pad, max(ends) * 10**pad)
    bounds = [bound for point in points for bound in point.interval]
    margin = max(0.12 * (max(bounds) - min(bounds)), 0.5)
    y_range = (max(min(bounds) - margin, 0.0), min(max(bounds) + margin, 100.0 + margin))
    width = np.log10(x_range[1] / x_range[0])
    is_optimal, drawn = pareto_front(x, y), _side_by_side(x, 0.014 * width)
    front = sorted(zip(drawn[is_optimal].tolist(), y[is_optimal].tolist(), strict=True))
    front.append((x_range[1], front[-1][1]))

    def inside(x: float, y: float) -> tuple[float, float]:  # in the unit square
        return float(np.log10(x / x_range[0]) / width), (y - y_range[0]) / (y_range[1] - y_range[0])

    across, places = [inside(*end) for end in front], [inside(*place) for place in zip(drawn, y, strict=True)]
    lines = [(a, b - 0.006, c, b + 0.006) for (a, b), (c, _) in pairwise(across)]
    for point, (a, b) in zip(points, places, strict=True):  # the bars
        low, high = (inside(1, end)[1] for end in point.interval)
        lines.append((a - 0.006, low, a + 0.006, high))
        if point.span:
            lines.append((inside(point.span[0], 1)[0], b - 0.012, inside(point.span[1], 1)[0], b + 0.012))
    sides = place_names(places, [point.name for point in points], lines)
    placed = [
        replace(point, x=at, side=side, filled=filled)
        for point, at, side, filled in zip(points, drawn.tolist(), sides, is_optimal.tolist(), strict=True)
    ]
    staircase = Line([a for a, _ in front], [b for _, b in front], "@muted", dotted=True, width=1, stepped=True)
    return Chart(name, title, axis, x_range, y_range, [staircase], placed, ticks=_ticks(*x_range))


def cost_chart(rows: Sequence[Row], key: str) -> Chart:
    """Accuracy against one cost; empty if the cost was not measured."""
    axis, colour, points = COST_AXES[key], colours(rows), []
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


def _ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers, or all powers of ten."""
    for digits in ((1, 2, 5), range(1, 10), np.arange(1, 10, 0.5), np.arange(1, 10, 0.25)):
        inside = [float(step) for e in range(-6, 16) for m in digits if low <= (step := m * 10.0**e) <= high]
        if len(inside) > 1:
            break
    return inside if len(inside) <= 5 else [step for step in inside if f"{step:.0e}"[0] == "1"] or inside[::2]


def _side_by_side(x: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Where points of about equal cost are drawn, `step` decades apart, so that they do not hide each other."""
    decades = np.log10(x)
    return np.asarray(x * 10 ** (np.array(spread_apart(decades.tolist(), step)) - decades))  # exact where not moved


def place_names(
    points: Sequence[tuple[float, float]], names: Sequence[str], lines: Sequence[Box] = ()
) -> list[tuple[int, int]]:
    """The side of each point where its name overlaps least, on a unit square as wide as a phone.

    One name after the other, in three rounds: the later ones see where all the others stand.
    """
    chosen, placed = [(1, 0)] * len(points), dict[int, Box]()
    marks = [(x - 0.03, y - 0.05, x + 0.03, y + 0.05) for x, y in points]
    for i, ((x, y), name) in [*enumerate(zip(points, names, strict=True))] * 3:
        width, height, gap = 0.012 * len(name), 0.0275, 0.025  # half of the name's
        boxes = {}
        for side in ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1)):
            middle, up = x + side[0] * (gap + width), y + side[1] * (gap + height)
            boxes[side] = (middle - width, up - height, middle + width, up + height)
        others = [*lines, *marks[:i], *marks[i + 1 :], *(box for j, box in placed.items() if j != i)]
        chosen[i] = min(boxes, key=lambda side: _cost(boxes[side], others))
        placed[i] = boxes[chosen[i]]
    return chosen


def _cost(box: Box, others: Sequence[Box]) -> float:
    """How much of a box is over others or, counted twice, outside the unit square; rounded, so that ties are ties."""
    return round(sum(_overlap(box, other) for other in others) - 2 * _overlap(box, (0, 0, 1, 1)), 9)


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def spread_apart(values: Sequence[float], gap: float) -> list[float]:
    """Positions as near as possible to the values, in their order, and at least `gap` apart."""
    order = np.argsort(values, kind="stable")
    placed = np.array(values, dtype=float)[order]
    for _ in range(100):
        for i in np.flatnonzero(gap - np.diff(placed) > 1e-9):
            push = (gap - (placed[i + 1] - placed[i])) / 2
            placed[i : i + 2] += (-push, push)
    result = np.empty_like(placed)
    result[order] = placed
    return [float(value) for value in result]


def end_labels(ends: Mapping[str, tuple[float, str]], top: float, height: int) -> list[Label]:
    """Names at the ends of lines, without overlap. ends: by name, where on a y axis from 0 to `top`, and the colour."""
    gap = 18 * top / (height - 54)  # a line of text
    places = np.array(spread_apart([end for end, _ in ends.values()], gap))
    below = places.argsort().argsort()  # how many labels are below each
    places = places.clip(below * gap, top - (len(places) - 1 - below) * gap)  # outside of the axis none is drawn
    return [Label(at, text, ends[text][1]) for at, text in zip(places.tolist(), ends, strict=True)]


def seed_chart(rows: Sequence[Row]) -> Chart:
    """Final top-1 of each seed, by network; empty if each has one seed only."""
    chart, points = Chart("seeds", "Final top-1 of each seed", "", height=260), []
    for i, row in enumerate(rows):
        for k, record in enumerate(row.records):
            x, top1 = i + 0.12 * (k - (len(row.records) - 1) / 2), 100 * record.metrics["top1"]
            points.append(Point("", colours(rows)[row.model], x, top1, (top1, top1), [f"{record.name}: {top1:.2f} %"]))
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
