"""Charts whose parts find their own places: points whose names do not overlap, and names at the ends of lines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from frugalnet.document.blocks import Chart, Label, Line, Point
from frugalnet.metrics.statistics import pareto_front

# Mid-tones that stand out against white and against near-black: more than 3:1 on both.
PALETTE = ("#2f7fd6", "#d9661f", "#23946a", "#9560cf", "#d1466b", "#1593a5", "#a8800c", "#7d7f86")
Box = tuple[float, float, float, float]  # left, bottom, right, top
Range = tuple[float, float]


def colours(models: Iterable[str]) -> dict[str, str]:
    """Each network's colour, whatever their order."""
    return {model: PALETTE[i % len(PALETTE)] for i, model in enumerate(sorted(models))}


def scatter(name: str, title: str, axis: str, points: Sequence[Point]) -> Chart:
    """Percentages against a cost on a logarithmic axis, with intervals and the Pareto front; empty without points.

    Names stand where they overlap least with points, bars, the front and each other.
    """
    if not points:
        return Chart(name, title, axis)
    x = np.array([point.x for point in points], float)
    y = np.array([point.y for point in points], float)
    x_range, y_range = _ranges(points, 0.3)
    is_optimal = pareto_front(x, y)
    drawn = _side_by_side(x, 0.014 * np.log10(x_range[1] / x_range[0]))
    front = sorted(zip(drawn[is_optimal].tolist(), y[is_optimal].tolist(), strict=True))
    front.append((x_range[1], front[-1][1]))

    inside = partial(_inside, x_range, y_range)
    places = [inside(*place) for place in zip(drawn, y, strict=True)]
    corners = [inside(*corner) for corner in front]
    lines = [(a, b - 0.006, c, b + 0.006) for (a, b), (c, _) in pairwise(corners)]
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


def by_cost(name: str, title: str, axis: str, curves: Sequence[Sequence[Point]]) -> Chart:
    """A curve through the points of each sequence, with their intervals as a band, on a logarithmic axis of cost.

    The points of a curve have one colour, and are sorted by x.
    """
    points = [point for curve in curves for point in curve]
    x_range, y_range = _ranges(points, 0.12)
    inside = partial(_inside, x_range, y_range)
    along = [
        (x - 0.01, y - 0.01, x + 0.01, y + 0.01)
        for curve in curves
        for a, b in pairwise(inside(point.x, point.y) for point in curve)
        for x, y in np.linspace(a, b, 20).tolist()
    ]
    places = [inside(point.x, point.y) for point in points]
    sides = place_names(places, [point.name for point in points], along)
    placed = [replace(point, side=side, filled=True) for point, side in zip(points, sides, strict=True)]
    lines = [
        Line(
            [point.x for point in curve],
            [point.y for point in curve],
            curve[0].colour,
            band=([point.interval[0] for point in curve], [point.interval[1] for point in curve]),
        )
        for curve in curves
    ]
    return Chart(name, title, axis, x_range, y_range, lines, placed, ticks=_ticks(*x_range), height=380)


def _inside(x_range: Range, y_range: Range, x: float, y: float) -> tuple[float, float]:
    """Where a place lies in the unit square of two axes, x being logarithmic."""
    across = np.log10(x / x_range[0]) / np.log10(x_range[1] / x_range[0])
    return float(across), (y - y_range[0]) / (y_range[1] - y_range[0])


def _ranges(points: Sequence[Point], space: float) -> tuple[Range, Range]:
    """The axes that hold the points with their bars. space: at each end of x, as a share of its decades."""
    ends = [end for point in points for end in (point.x, *(max(end, 1e-9) for end in point.span or ()))]
    pad = max(space * np.log10(max(ends) / min(ends)), 0.12)
    bounds = [bound for point in points for bound in point.interval]
    margin = max(0.12 * (max(bounds) - min(bounds)), 0.5)
    y_range = (max(min(bounds) - margin, 0.0), min(max(bounds) + margin, 100.0 + margin))
    return (min(ends) / 10**pad, max(ends) * 10**pad), y_range


def _ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers, or all powers of ten."""
    for digits in ((1, 2, 5), range(1, 10), np.arange(1, 10, 0.5), np.arange(1, 10, 0.25)):
        steps = [float(digit * 10.0**exponent) for exponent in range(-6, 16) for digit in digits]
        inside = [step for step in steps if low <= step <= high]
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
    chosen = [(1, 0)] * len(points)
    placed: dict[int, Box] = {}
    gap = 0.025  # between a point and its name
    marks = [(x - 0.03, y - 0.05, x + 0.03, y + 0.05) for x, y in points]
    for i, ((x, y), name) in [*enumerate(zip(points, names, strict=True))] * 3:
        width, height = 0.012 * len(name), 0.0275  # half of the name's
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
