"""A comparison in words and pictures: HTML, Markdown, CSV, PNG, plain text. Rendering only."""

import base64
import csv
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from frugalnet import accuracy
from frugalnet.accuracy import Interval, Spread
from frugalnet.claims import EASIEST, HARDEST, claims, ranks
from frugalnet.comparison import (
    COLUMNS,
    Comparison,
    Measured,
    Record,
    Row,
    best_in,
    pareto_front,
    percent,
    points,
    verdict,
)
from frugalnet.files import atomic, write_json

NOT_MEASURED = "not measured"
NO_COUNTER = "not measured on this machine"
SAMPLE_BANNER = "sample data: not Tiny ImageNet"
# Mid-tones that stand out against white and against near-black: more than 3:1 on both.
PALETTE = ("#2f7fd6", "#d9661f", "#23946a", "#9560cf", "#d1466b", "#1593a5", "#a8800c", "#7d7f86")
_COST_AXES = {
    "parameters_trainable": "trainable parameters",
    "macs": "MACs an image",
    "latency_ms": "latency at batch 1 (ms)",
    "train_seconds": "training time (s)",
}
_EXAMPLES = 4  # pictures got right, and got wrong, of each class


# ── Figures as text ──────────────────────────────────────────────────────────────────────────────────────────────────


def human(value: float) -> str:
    """12,345,678 → "12.3 M"; below a thousand three significant digits."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {letter}" if value < 999.5 * size else f"{value / size:,.0f} {letter}"
    return f"{value:.3g}"


def number(value: float) -> str:
    """Whole and with commas from a hundred on; below three significant digits."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds below ten minutes, then minutes, then hours."""
    if seconds < 600:
        return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def spread(value: Spread, as_percent: bool = True) -> str:
    """Mean, and deviation where there is one."""
    if not as_percent:
        return f"{value.mean:.3f}" + (f" ± {value.deviation:.3f}" if value.deviation is not None else "")
    deviation = f" ± {100 * value.deviation:.1f}" if value.deviation is not None else ""
    return f"{100 * value.mean:.1f}{deviation}\u00a0%"


def interval(value: Interval) -> str:
    return f"{100 * value.low:.1f} to {100 * value.high:.1f}\u00a0%"


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


# ── What the charts show, whoever draws them ─────────────────────────────────────────────────────────────────────────


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
        _COST_AXES[key],
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


def class_order(confused: NDArray[np.int64]) -> list[int]:
    """An order in which classes that are taken for one another stand together."""
    both = (confused + confused.T).astype(float)
    np.fill_diagonal(both, 0)
    if len(both) < 3 or not both.any():
        return list(range(len(both)))
    distance = 1 - both / both.max()
    np.fill_diagonal(distance, 0)
    return [int(c) for c in leaves_list(linkage(squareform(distance), "average", optimal_ordering=True))]


def mistakes_percent(confused: NDArray[np.int64], order: Sequence[int]) -> NDArray[np.float32]:
    """Percent of each true class's images taken for another class; the diagonal, the share got right, is left blank."""
    share = 100 * confused / np.maximum(confused.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(share, np.nan)
    return np.asarray(share[np.ix_(order, order)], dtype=np.float32)


# ── Interactive charts: plain plotly figures, whose "@name" colours the page replaces by those of its scheme ──────────


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


def _cost_figure(chart: CostChart, comparison: Comparison, colours: Mapping[str, str]) -> dict[str, Any]:
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
        hover += [f"{title}: {cell(row, key)}" for key, title in _COST_AXES.items()]
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


def _curves_figure(records: Sequence[Record], colour: str, epochs: int, top: float) -> dict[str, Any]:
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


def _together_figure(comparison: Comparison, colours: Mapping[str, str], epochs: int, top: float) -> dict[str, Any]:
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


def _confusion_figure(confused: NDArray[np.int64], order: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
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


# ── Pictures for Markdown and MLflow ─────────────────────────────────────────────────────────────────────────────────


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors="#555555", labelsize=9)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})  # the same bytes from any version's name


def _cost_picture(chart: CostChart, colours: Mapping[str, str], path: Path) -> None:
    figure, axes = _canvas(6, 4)
    front = sorted((x, y) for x, y, on in zip(chart.x, chart.y, chart.on_front, strict=True) if on)
    axes.step(
        [x for x, _ in front] + [chart.x_range[1]],
        [y for _, y in front] + [front[-1][1]],
        where="post",
        color="#888888",
        linewidth=1,
        linestyle=":",
    )
    for i, model in enumerate(chart.models):
        x, y, found = chart.x[i], chart.y[i], chart.intervals[i]
        axes.errorbar(
            x,
            y,
            yerr=[[max(y - 100 * found.low, 0)], [max(100 * found.high - y, 0)]],
            xerr=_matplotlib_error(chart, i),
            fmt="o",
            markersize=7,
            color=colours[model],
            markerfacecolor=colours[model] if chart.on_front[i] else "white",
            markeredgewidth=1.6,
            elinewidth=1.1,
            capsize=2,
        )
        level, side = chart.positions[i].split()
        axes.annotate(
            model,
            (x, y),
            xytext=({"left": -8, "right": 8, "center": 0}[side], {"top": 8, "bottom": -8, "middle": 0}[level]),
            textcoords="offset points",
            ha={"left": "right", "right": "left", "center": "center"}[side],
            va={"top": "bottom", "bottom": "top", "middle": "center"}[level],
            fontsize=9,
        )
    axes.set(xscale="log", xlim=chart.x_range, ylim=chart.y_range, xlabel=chart.title, ylabel="top-1, %")
    axes.set_xticks(chart.ticks, [human(tick) for tick in chart.ticks])
    axes.set_xticks([], minor=True)
    _save(figure, path)


def _matplotlib_error(chart: CostChart, i: int) -> list[list[float]] | None:
    if not chart.x_spread:
        return None
    low, high = chart.x_spread[i]
    return [[max(chart.x[i] - low, 0)], [max(high - chart.x[i], 0)]]


def _curves_picture(
    lines: Iterable[tuple[Sequence[float], str, str]],
    ends: Sequence[tuple[str, int, float, str]],
    top: float,
    path: Path,
) -> None:
    """lines: percent by epoch, colour, line style. ends: label, epoch, percent, colour."""
    figure, axes = _canvas(6, 3.6)
    for curve, colour, style in lines:
        marker = "o" if len(curve) < 3 else None
        axes.plot(range(1, len(curve) + 1), curve, color=colour, linestyle=style, linewidth=1.6, marker=marker)
    last = max(epoch for _, epoch, _, _ in ends)
    places = spread_apart([value for _, _, value, _ in ends], 0.065 * top)
    for (label, _, value, colour), place in zip(ends, places, strict=True):
        text = f"{label} {value:.0f} %"
        axes.annotate(
            text, (last, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color=colour
        )
    axes.set(ylim=(0, top), xlabel="epoch", ylabel="top-1, %")
    _save(figure, path)


def confusion_figure(confused: NDArray[np.int64], class_names: Sequence[str], path: Path) -> None:
    """Draw (C, C) counts as percent of each true class, classes that are confused standing together; a PNG."""
    order = class_order(confused)
    figure, axes = _canvas(6, 5.4)
    axes.grid(False)
    drawn = axes.imshow(mistakes_percent(confused, order), cmap="magma_r", interpolation="nearest", vmin=0)
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="% of the true class")
    if len(order) <= 30:
        axes.set_xticks(range(len(order)), [class_names[c] for c in order], rotation=90)
        axes.set_yticks(range(len(order)), [class_names[c] for c in order])
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set(xlabel="taken for", ylabel="true class")
    _save(figure, path)


def examples(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], wanted: int, count: int = _EXAMPLES
) -> tuple[list[int], list[int]]:
    """The first images of a class that were got right, and wrong: by index, so that nobody picked them."""
    of_class = np.flatnonzero(labels == wanted)
    right = predicted[of_class] == wanted
    return of_class[right][:count].tolist(), of_class[~right][:count].tolist()


def best_and_worst_figure(
    images: NDArray[np.uint8],
    logits: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Draw the five best and five worst classes as a PNG, as the paper's figures 10 and 11.

    images: (N, H, W, 3) uint8 RGB; logits (N, C); labels (N,). A row a class: examples got right (green), examples got
    wrong (red) with what was predicted instead.
    """
    accuracy.check(logits, labels)
    predicted = accuracy.predict(logits)
    confused = accuracy.confusion(predicted, labels, len(class_names))
    classes = accuracy.per_class(confused, [""] * len(class_names), class_names)
    best, worst = accuracy.best_and_worst([one.accuracy for one in classes])
    shown = [*best, *worst]
    width, height = 2.0 + 2 * _EXAMPLES * 1.12 + 0.2, 1.4  # of a row, in units of a picture's side
    figure = Figure(figsize=(width, height * len(shown)), dpi=100)
    FigureCanvasAgg(figure)
    # One pair of axes for all pictures: a pair for each would take ten times as long.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for line, c in enumerate(shown):
        one, top = classes[c], height * line + 0.3
        kind = "best" if line < len(best) else "worst"
        text = f"{_shortened(one.name, 20)}\n{percent(one.correct / one.n, 0)} ({one.correct} of {one.n})\n{kind}"
        axes.text(0.1, top + 0.5, text, va="center", fontsize=9, parse_math=False)
        for offset, chosen in zip((0, _EXAMPLES), examples(predicted, labels, c), strict=True):
            for column, i in enumerate(chosen, start=offset):
                left = 2.0 + 1.12 * column + (0.1 if offset else 0.0)
                right = predicted[i] == c
                title, colour = ("right", "#23855a") if right else (class_names[predicted[i]], "#b3303b")
                axes.imshow(images[i], extent=(left, left + 1, top + 1, top), interpolation="nearest")
                axes.add_patch(Rectangle((left, top), 1, 1, fill=False, color=colour, linewidth=2))
                axes.text(left, top - 0.07, _shortened(title, 15), fontsize=7, color=colour, parse_math=False)
    axes.set(xlim=(0, width), ylim=(height * len(shown), 0), aspect="auto")
    _save(figure, path)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _picture_url(image: NDArray[np.uint8]) -> str:
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert encoded
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


# ── The report ───────────────────────────────────────────────────────────────────────────────────────────────────────


def write(comparison: Comparison, out: Path, images: NDArray[np.uint8] | None = None) -> None:
    """Fill the folder `out`: report.html, report.md, figures/, comparison.json and tables as CSV.

    images: the validation images (N, H, W, 3) uint8 RGB, for the examples in report.html; None leaves them out.
    """
    colours = {model: PALETTE[i % len(PALETTE)] for i, model in enumerate(sorted(comparison.records))}
    epochs = max(len(r.history) for group in comparison.records.values() for r in group)
    seen = [
        e[k]
        for g in comparison.records.values()
        for r in g
        for e in r.history
        for k in ("train_top1", "validation_top1")
    ]
    top = max(108 * max(seen), 1.0)
    order = class_order(np.sum([row.confusion for row in comparison.rows], axis=0))
    charts = {key: cost_chart(comparison.rows, key) for key in _COST_AXES}

    with atomic(out) as folder:
        folder.mkdir()
        _write_tables(comparison, folder)
        pictures = folder / "figures"
        for key, chart in charts.items():
            if chart:
                _cost_picture(chart, colours, pictures / f"accuracy_{key}.png")
        for model, records in comparison.records.items():
            lines = [
                ([100 * e[key] for e in record.history], colours[model], style)
                for record in records
                for key, style in (("train_top1", ":"), ("validation_top1", "-"))
            ]
            ends = [
                (what, len(records[0].history), mean_curve(records, key)[-1], "#333333")
                for key, what in (("train_top1", "training"), ("validation_top1", "validation"))
            ]
            _curves_picture(lines, ends, top, pictures / f"curves_{model}.png")
        together = [
            (mean_curve(records, key), colours[model], style)
            for model, records in comparison.records.items()
            for key, style in (("train_top1", ":"), ("validation_top1", "-"))
        ]
        names = [
            (model, epochs, mean_curve(records, "validation_top1")[-1], colours[model])
            for model, records in comparison.records.items()
        ]
        _curves_picture(together, names, top, pictures / "curves_together.png")
        best = comparison.rows[0]
        confusion_figure(best.confusion, comparison.first.class_names, pictures / f"confusion_{best.model}.png")

        context = _context(comparison, charts)
        environment = Environment(
            loader=PackageLoader("frugalnet"),
            autoescape=lambda name: bool(name and ".html" in name),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["markdown"] = markdown
        twin = environment.get_template("report.md.j2").render(context)
        (folder / "report.md").write_text(twin, encoding="utf-8")

        drawn = {f"cost-{key}": _cost_figure(c, comparison, colours) for key, c in charts.items() if c}
        for model, records in comparison.records.items():
            drawn[f"curves-{model}"] = _curves_figure(records, colours[model], epochs, top)
        drawn["curves-together"] = _together_figure(comparison, colours, epochs, top)
        for row in comparison.rows:
            drawn[f"confusion-{row.model}"] = _confusion_figure(row.confusion, order, _unique_names(comparison.first))
        page = environment.get_template("report.html.j2").render(
            context
            | {
                "colours": colours,
                "galleries": {row.model: _gallery(comparison, row, images) for row in comparison.rows},
                "plotly_js": get_plotlyjs(),
                # plotly's JSON writes "<" as an escape, so that no figure can end the script element it stands in.
                "drawn": {key: to_json_plotly(figure) for key, figure in drawn.items()},
            }
        )
        (folder / "report.html").write_text(page, encoding="utf-8")


def _unique_names(record: Record) -> list[str]:
    """The class names, with the id beside those that two classes share: a chart's axis would merge them."""
    return [
        name if record.class_names.count(name) == 1 else f"{name} ({c})"
        for c, name in zip(record.class_ids, record.class_names, strict=True)
    ]


def markdown(text: object) -> str:
    """Data in a GitHub-flavoured table: no markup, no new column."""
    return "".join("\\" + c if c in "\\`*_[]|~#" else html.escape(c, quote=False) for c in str(text))


def _context(comparison: Comparison, charts: Mapping[str, CostChart | None]) -> dict[str, Any]:
    run = comparison.first.run
    rows = comparison.rows
    classes = {row.model: comparison.classes(row) for row in rows}
    extremes = {model: accuracy.best_and_worst([one.accuracy for one in found]) for model, found in classes.items()}
    return {
        "sample_banner": SAMPLE_BANNER if run["is_sample"] else "",
        "run": run,
        "facts": facts(comparison),
        "verdict": verdict(comparison),
        "rows": rows,
        "columns": {kind: [column for column in COLUMNS if column.kind == kind] for kind in ("accuracy", "cost")},
        "cell": cell,
        "is_best": lambda row, key: is_best(row, key, rows),
        "interval": interval,
        "percent": percent,
        "points": points,
        "human": human,
        "number": number,
        "duration": duration,
        "differences": comparison.differences,
        "notes": comparison.notes,
        "left_out": comparison.left_out,
        "charts": charts,
        "axes": _COST_AXES,
        "training_cost": comparison.costs,
        "classes": classes,
        "extremes": extremes,
        "paper_ranks": {
            title: {row.model: ranks(comparison, row, names) for row in rows}
            for title, names in (("easiest", EASIEST), ("hardest", HARDEST))
        },
        "pairs": {row.model: accuracy.most_confused_pairs(row.confusion, comparison.first.class_names) for row in rows},
        "layers": {model: layer_table(records[0]) for model, records in comparison.records.items()},
        "details": {
            title: {row.model: cost_details(comparison.records[row.model][0], row)[title] for row in rows}
            for title in cost_details(comparison.first, rows[0])
        },
        "claims": claims(comparison),
        "not_measured": NOT_MEASURED,
    }


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


def _gallery(comparison: Comparison, row: Row, images: NDArray[np.uint8] | None) -> dict[str, list[dict[str, Any]]]:
    """The five best and five worst classes of a model with examples of its first seed's predictions."""
    record = comparison.records[row.model][0]
    classes = comparison.classes(row)
    gallery: dict[str, list[dict[str, Any]]] = {}
    for title, chosen in zip(
        ("best", "worst"), accuracy.best_and_worst([one.accuracy for one in classes]), strict=True
    ):
        gallery[title] = []
        for c in chosen:
            shown = {
                kind: [(_picture_url(images[i]), record.class_names[record.predicted[i]]) for i in chosen_images]
                for kind, chosen_images in zip(
                    ("right", "wrong"), examples(record.predicted, record.labels, c), strict=True
                )
                if images is not None
            }
            gallery[title].append({"figures": classes[c], "pictures": shown})
    return gallery


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


def _write_tables(comparison: Comparison, folder: Path) -> None:
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
