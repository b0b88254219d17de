"""Charts and examples as PNG, for Markdown and MLflow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from frugalnet.files import atomic
from frugalnet.metrics import accuracy
from frugalnet.report.charts import CostChart, mean_curve, spread_apart
from frugalnet.report.comparison import Comparison, Record
from frugalnet.report.wording import human, percent

_EXAMPLES = 4  # pictures got right, and got wrong, of each class
_CURVES = (("train_top1", "training", ":"), ("validation_top1", "validation", "-"))


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


def accuracy_against_cost(chart: CostChart, colours: Mapping[str, str], path: Path) -> None:
    """Draw top-1 against one cost, with intervals and the Pareto front."""
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


def curves_of(records: Sequence[Record], colour: str, top: float, path: Path) -> None:
    """Draw one model's training and validation top-1 by epoch, a line a seed; `top` is the axis's end in percent."""
    lines = [([100 * e[key] for e in r.history], colour, style) for r in records for key, _, style in _CURVES]
    ends = [(what, mean_curve(records, key)[-1], "#333333") for key, what, _ in _CURVES]
    _curves(lines, ends, len(records[0].history), top, path)


def curves_together(comparison: Comparison, colours: Mapping[str, str], top: float, path: Path) -> None:
    """Draw every model's training and validation top-1 by epoch, means over its seeds."""
    models = comparison.records.items()
    lines = [
        (mean_curve(records, key), colours[model], style) for model, records in models for key, _, style in _CURVES
    ]
    ends = [(model, mean_curve(records, "validation_top1")[-1], colours[model]) for model, records in models]
    _curves(lines, ends, max(len(curve) for curve, _, _ in lines), top, path)


def _curves(
    lines: Sequence[tuple[Sequence[float], str, str]],
    ends: Sequence[tuple[str, float, str]],
    last: int,
    top: float,
    path: Path,
) -> None:
    """lines: percent by epoch, colour, line style. ends: label, percent, colour; they stand right of epoch `last`."""
    figure, axes = _canvas(6, 3.6)
    for curve, colour, style in lines:
        marker = "o" if len(curve) < 3 else None
        axes.plot(range(1, len(curve) + 1), curve, color=colour, linestyle=style, linewidth=1.6, marker=marker)
    places = spread_apart([value for _, value, _ in ends], 0.065 * top)
    for (label, value, colour), place in zip(ends, places, strict=True):
        text = f"{label} {value:.0f} %"
        axes.annotate(
            text, (last, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color=colour
        )
    axes.set(ylim=(0, top), xlabel="epoch", ylabel="top-1, %")
    _save(figure, path)


def confusion(confused: NDArray[np.int64], class_names: Sequence[str], path: Path) -> None:
    """Draw (C, C) counts as percent of each true class, classes that are confused standing together; a PNG."""
    order = accuracy.class_order(confused)
    figure, axes = _canvas(6, 5.4)
    axes.grid(False)
    drawn = axes.imshow(accuracy.mistakes_percent(confused, order), cmap="magma_r", interpolation="nearest", vmin=0)
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="% of the true class")
    if len(order) <= 30:
        axes.set_xticks(range(len(order)), [class_names[c] for c in order], rotation=90)
        axes.set_yticks(range(len(order)), [class_names[c] for c in order])
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set(xlabel="taken for", ylabel="true class")
    _save(figure, path)


def best_and_worst(
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
        for offset, chosen in zip((0, _EXAMPLES), accuracy.examples(predicted, labels, c, _EXAMPLES), strict=True):
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
