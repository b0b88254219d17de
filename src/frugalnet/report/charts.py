"""What the report's charts show, whoever draws them; and the interactive ones.

Those are plain plotly figures, whose "@name" colours the page replaces by those of its scheme.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalnet.metrics.accuracy import mistakes_percent
from frugalnet.metrics.statistics import Interval
from frugalnet.report.comparison import COLUMNS, Comparison, Measured, Record, Row, pareto_front
from frugalnet.report.tables import cell
from frugalnet.report.wording import human, interval, spread

COST_AXES = {
    "parameters_trainable": "trainable parameters",
    "macs": "MACs an image",
    "latency_ms": "latency at batch 1 (ms)",
    "train_seconds": "training time (s)",
}


@dataclass(frozen=True)
class CostChart:
    """Accuracy against one cost: the points measured, the front, and where each name goes."""

    key: str
    title: str
    models: list[str]
    x: list[float]
    x_range: tuple[float, float]
    y: list[float]  # percent
    y_range: tuple[float, float]
    intervals: list[Interval]
    x_spread: list[tuple[float, float]] | None  # 5th and 95th percentile
    on_front: list[bool]
    positions: list[str]  # of the names, in plotly's words

    @property
    def ticks(self) -> list[float]:
        low, high = self.x_range
        steps = [m * 10.0**e for e in range(-6, 16) for m in (1, 2, 5)]
        inside = [step for step in steps if low <= step <= high]
        return inside if len(inside) <= 7 else [s for s in inside if f"{s:.0e}"[0] == "1"]


def cost_chart(rows: Sequence[Row], key: str) -> CostChart | None:
    """None where nothing was measured."""
    value = next(column.value for column in COLUMNS if column.key == key)
    known = [(row, float(cost)) for row in rows if (cost := value(row)) is not None and cost > 0]
    if not known:
        return None
    x = np.array([cost for _, cost in known])
    y = np.array([100 * row.top1.mean for row, _ in known])
    bounds = [100 * bound for row, _ in known for bound in (row.top1_interval.low, row.top1_interval.high)]
    measured = [getattr(row, key) for row, _ in known]
    spans = [(m.p5, m.p95) for m in measured] if all(isinstance(m, Measured) for m in measured) else None
    ends = [*x, *(max(end, 1e-9) for span in spans or [] for end in span)]
    pad = max(0.16 * np.log10(max(ends) / min(ends)), 0.12)
    x_range = (min(ends) / 10**pad, max(ends) * 10**pad)
    margin = max(0.12 * (max(bounds) - min(bounds)), 0.5)
    y_range = (max(min(bounds) - margin, 0.0), min(max(bounds) + margin, 100.0 + margin))
    on_front = pareto_front(x, y)
    drawn_x = _side_by_side(x, 0.014 * np.log10(x_range[1] / x_range[0]))

    def across(value: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.log10(value / x_range[0]) / np.log10(x_range[1] / x_range[0]))

    up = (y - y_range[0]) / (y_range[1] - y_range[0])
    names = [row.model for row, _ in known]
    return CostChart(
        key,
        COST_AXES[key],
        names,
        drawn_x.tolist(),
        x_range,
        y.tolist(),
        y_range,
        [row.top1_interval for row, _ in known],
        spans,
        on_front.tolist(),
        _place_names(across(drawn_x), up, names, on_front),
    )


def _side_by_side(x: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Where points of equal cost are drawn, `step` decades apart, so that their intervals don't cover each other."""
    moved = x.copy()
    for value in np.unique(x):
        same = np.flatnonzero(x == value)
        moved[same] *= 10 ** (step * (np.arange(len(same)) - (len(same) - 1) / 2))
    return moved


def _place_names(
    x: NDArray[np.float64], y: NDArray[np.float64], names: Sequence[str], on_front: NDArray[np.bool_]
) -> list[str]:
    """Beside which of its sides each point's name collides least: greedily, on a unit square as wide as a phone."""
    height, gap = 0.055, 0.025
    chosen: list[str] = []
    taken: list[tuple[float, float, float, float]] = [
        (a - 0.012, b - 0.05, a + 0.012, b + 0.05) for a, b in zip(x, y, strict=True)
    ]
    front = sorted(zip(x[on_front].tolist(), y[on_front].tolist(), strict=True))
    ends = [left for left, _ in front[1:]] + [1.0]
    lines = [(left, up - 0.006, right, up + 0.006) for (left, up), right in zip(front, ends, strict=True)]
    for i, name in enumerate(names):
        width = 0.024 * len(name)
        boxes = {}
        for side, left in (("right", x[i] + gap), ("left", x[i] - gap - width), ("center", x[i] - width / 2)):
            for level, bottom in (
                ("middle", y[i] - height / 2),
                ("top", y[i] + gap),
                ("bottom", y[i] - gap - height),
            ):
                if (side, level) != ("center", "middle"):
                    boxes[f"{level} {side}"] = (left, bottom, left + width, bottom + height)
        best = min(boxes, key=lambda position: _collision(boxes[position], lines + taken[:i] + taken[i + 1 :]))
        chosen.append(best)
        taken.append(boxes[best])
    return chosen


def _collision(box: tuple[float, float, float, float], others: Sequence[tuple[float, float, float, float]]) -> float:
    """How much of the box is over others or outside of the unit square."""

    def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
        return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))

    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(overlap(box, other) for other in others) + 2 * (area - overlap(box, (0.0, 0.0, 1.0, 1.0)))


def spread_apart(values: Sequence[float], gap: float) -> list[float]:
    """Positions as near as may be to the values, in their order, and at least `gap` apart."""
    order = np.argsort(values, kind="stable")
    placed = np.array(values, dtype=float)[order]
    for _ in range(100):
        short = gap - np.diff(placed)
        if (short <= 1e-9).all():
            break
        for i in np.flatnonzero(short > 1e-9):
            push = (gap - (placed[i + 1] - placed[i])) / 2
            placed[i] -= push
            placed[i + 1] += push
    result = np.empty_like(placed)
    result[order] = placed
    return [float(value) for value in result]


def mean_curve(records: Sequence[Record], key: str) -> list[float]:
    """Percent by epoch, the mean over the seeds, as far as all of them went."""
    epochs = min(len(record.history) for record in records)
    return [100 * float(np.mean([record.history[e][key] for record in records])) for e in range(epochs)]


def _layout(**more: Any) -> dict[str, Any]:
    axis = {"gridcolor": "@rule", "linecolor": "@rule", "zeroline": False, "fixedrange": True, "automargin": True}
    layout: dict[str, Any] = {
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@muted"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 44, "r": 12, "t": 10, "b": 44},
        "showlegend": False,
        "dragmode": False,
        "hoverlabel": {"bgcolor": "@panel", "bordercolor": "@rule", "font": {"color": "@ink"}},
    }
    x, y = more.pop("xaxis", {}), more.pop("yaxis", {})
    return layout | {"xaxis": axis | x, "yaxis": axis | y} | more


def accuracy_against_cost(chart: CostChart, comparison: Comparison, colours: Mapping[str, str]) -> dict[str, Any]:
    front = sorted((x, y) for x, y, on in zip(chart.x, chart.y, chart.on_front, strict=True) if on)
    staircase = {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _ in front] + [chart.x_range[1]],
        "y": [y for _, y in front] + [front[-1][1]],
        "line": {"shape": "hv", "color": "@muted", "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
    }
    traces: list[dict[str, Any]] = [staircase]
    for i, model in enumerate(chart.models):
        row = comparison.row(model)
        assert row is not None
        hover = [f"<b>{html.escape(model)}</b>", f"top-1 {spread(row.top1)} ({interval(row.top1_interval)})"]
        hover += [f"{title}: {cell(row, key)}" for key, title in COST_AXES.items()]
        trace = {
            "type": "scatter",
            "mode": "markers+text",
            "x": [chart.x[i]],
            "y": [chart.y[i]],
            "text": [f"\u00a0{html.escape(model)}\u00a0"],  # plotly sets it too near the point
            "textposition": chart.positions[i],
            "textfont": {"color": "@ink", "size": 12},
            "cliponaxis": False,
            "marker": {
                "size": 10,
                "color": colours[model] if chart.on_front[i] else "@paper",
                "line": {"width": 2, "color": colours[model]},
            },
            "error_y": _plotly_error(
                100 * chart.intervals[i].high - chart.y[i], chart.y[i] - 100 * chart.intervals[i].low, colours[model]
            ),
            "hovertemplate": "<br>".join(hover) + "<extra></extra>",
        }
        if chart.x_spread:
            low, high = chart.x_spread[i]
            trace["error_x"] = _plotly_error(high - chart.x[i], chart.x[i] - low, colours[model])
        traces.append(trace)
    x_range = [float(np.log10(end)) for end in chart.x_range]
    return {
        "data": traces,
        "layout": _layout(
            xaxis={
                "type": "log",
                "range": x_range,
                "tickvals": chart.ticks,
                "ticktext": [human(tick) for tick in chart.ticks],
            },
            yaxis={"range": list(chart.y_range), "ticksuffix": " %"},
        ),
    }


def _plotly_error(above: float, below: float, colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [max(above, 0.0)],
        "arrayminus": [max(below, 0.0)],
        "symmetric": False,
        "color": colour,
        "thickness": 1.2,
        "width": 3,
    }


def _line(
    x: Sequence[float], y: Sequence[float], colour: str, label: str, *, dash: str = "solid", width: float = 2.0
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines" if len(x) > 2 else "lines+markers",
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": width, "dash": dash},
        "hovertemplate": f"{html.escape(label)}, epoch %{{x}}: %{{y:.1f}} %<extra></extra>",
    }


def _end_label(epoch: float, at: float, text: str, colour: str) -> dict[str, Any]:
    return {
        "x": epoch,
        "y": at,
        "xanchor": "left",
        "xshift": 6,
        "showarrow": False,
        "align": "left",
        "text": html.escape(text),
        "font": {"color": colour, "size": 12},
    }


def curves_of(records: Sequence[Record], colour: str, epochs: int, top: float) -> dict[str, Any]:
    traces = []
    for key, what, dash in (("train_top1", "training", "dot"), ("validation_top1", "validation", "solid")):
        for record in records:
            x = [row["epoch"] for row in record.history]
            y = [100 * row[key] for row in record.history]
            traces.append(_line(x, y, colour, f"{what}, seed {record.seed}", dash=dash))
    ends = [mean_curve(records, key)[-1] for key in ("train_top1", "validation_top1")]
    places = spread_apart(ends, 0.08 * top)
    labels = [
        _end_label(len(records[0].history), place, f"{text} {end:.0f} %", "@ink" if text == "validation" else "@muted")
        for text, end, place in zip(("training", "validation"), ends, places, strict=True)
    ]
    return {"data": traces, "layout": _curves_layout(labels, epochs, top, 110)}


def _curves_layout(labels: list[dict[str, Any]], epochs: int, top: float, right: int) -> dict[str, Any]:
    return _layout(
        xaxis={"title": {"text": "epoch"}, "range": [1 if epochs > 1 else 0, max(epochs, 1)], "showgrid": False},
        yaxis={"range": [0, top], "ticksuffix": " %"},
        annotations=labels,
        margin={"l": 44, "r": right, "t": 10, "b": 44},
    )


def curves_together(comparison: Comparison, colours: Mapping[str, str], epochs: int, top: float) -> dict[str, Any]:
    traces, ends = [], []
    for model, records in comparison.records.items():
        for key, what, dash, width in (
            ("train_top1", "training", "dot", 1.3),
            ("validation_top1", "validation", "solid", 2.4),
        ):
            curve = mean_curve(records, key)
            traces.append(
                _line(range(1, len(curve) + 1), curve, colours[model], f"{model}, {what}", dash=dash, width=width)
            )
        ends.append((model, curve[-1]))
    places = spread_apart([end for _, end in ends], 0.065 * top)
    labels = [_end_label(epochs, place, model, colours[model]) for (model, _), place in zip(ends, places, strict=True)]
    right = 16 + 7 * max(len(model) for model in comparison.records)
    return {"data": traces, "layout": _curves_layout(labels, epochs, top, right)}


def confusion(confused: NDArray[np.int64], order: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    labels = [html.escape(names[c]) for c in order]
    shown = len(order) <= 30
    axis: dict[str, Any] = {"ticks": "", "showticklabels": shown, "showgrid": False, "type": "category"}
    return {
        "data": [
            {
                "type": "heatmap",
                "z": np.round(mistakes_percent(confused, order), 1),
                "x": labels,
                "y": labels,
                "hoverongaps": False,
                "colorscale": [[0, "@panel"], [0.25, "@heat1"], [1, "@heat2"]],
                "showscale": False,
                "hovertemplate": "%{y} taken for %{x}: %{z} %<extra></extra>",
            }
        ],
        "layout": _layout(
            xaxis=axis | {"title": {"text": "taken for"}, "side": "bottom", "tickangle": 90 if shown else 0},
            yaxis=axis | {"title": {"text": "true class"}, "autorange": "reversed"},
            height=520,
        ),
    }
