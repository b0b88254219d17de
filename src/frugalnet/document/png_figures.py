"""Charts, heatmaps and galleries as PNG, for Markdown and MLflow; drawn by matplotlib."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from frugalnet.document.blocks import Chart, Example, Gallery, Heatmap
from frugalnet.document.wording import human, one_line
from frugalnet.files import atomic

_HALO = [withStroke(linewidth=3, foreground="white")]
_RIGHT = "#23855a"
_WRONG = "#b3303b"
_TEXT_WIDTH = 2.0  # beside a gallery's images, each 1 wide
_STEP = 1.12  # from one image to the next
_ROW_HEIGHT = 1.4
LARGE_PIXELS = 600  # a side, about, of a heatmap of very many classes
MOST_SQUARES = 300  # a side, of the same
_PRINTED = {"@muted": "#666666", "@ink": "#222222"}


def write_png(figure: Chart | Heatmap | Gallery, path: Path) -> None:
    """Draw a figure as PNG, whole or not at all, the same bytes every time."""
    if isinstance(figure, Gallery):
        drawn = _draw_gallery(figure)
    elif isinstance(figure, Heatmap) and figure.is_large:
        drawn = _draw_large_heatmap(figure)
    else:
        drawn = _draw(figure)
    with atomic(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a script's names; the page shows them
        drawn.savefig(partial, format="png", metadata={"Software": None})  # no matplotlib version in the bytes


def _draw(chart: Chart | Heatmap) -> Figure:
    figure = Figure(figsize=(6, 5.4 if isinstance(chart, Heatmap) else 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors="#555555", labelsize=9)
    if isinstance(chart, Heatmap):
        _draw_heatmap(chart, figure, axes)
    else:
        _draw_chart(chart, axes)
    return figure


def _draw_chart(chart: Chart, axes: Axes) -> None:
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    for line in chart.lines:
        style: dict[str, Any] = {"linestyle": ":" if line.dotted else "-", "linewidth": 0.8 * line.width}
        style |= {"drawstyle": "steps-post"} if line.stepped else {"marker": "o" if len(line.x) < 3 else None}
        if line.band:
            axes.fill_between(line.x, *line.band, color=line.colour, alpha=0.15, linewidth=0)
        axes.plot(line.x, line.y, color=_PRINTED.get(line.colour, line.colour), **style)
    for point in chart.points:
        style = {"markersize": 7, "markerfacecolor": point.colour if point.filled else "white", "markeredgewidth": 1.6}
        style |= {"yerr": [[end] for end in point.y_error], "color": point.colour, "elinewidth": 1.1, "capsize": 2}
        style |= {"xerr": [[end] for end in point.x_error]} if point.x_error else {}
        axes.errorbar(point.x, point.y, fmt="o", **style)
        right, up = point.side
        sides = {"ha": ("center", "left", "right")[right], "va": ("center", "bottom", "top")[up], "color": point.colour}
        _write(axes, point.name, (point.x, point.y), (8 * right, 8 * up), sides)
    for label in chart.labels:
        style = {"va": "center", "color": _PRINTED.get(label.colour, label.colour)}
        _write(axes, label.text, (chart.x_range[1], label.y), (6, 0), style)
    axes.set(xlim=chart.x_range, ylim=chart.y_range, xlabel=chart.x_title, ylabel=chart.y_title)
    if chart.x_names:
        axes.set_xticks(range(len(chart.x_names)), chart.x_names, rotation=40, ha="right", parse_math=False)
    if chart.ticks:
        axes.set_xscale("log")
        axes.set_xticks(chart.ticks, [human(tick) for tick in chart.ticks])
        axes.set_xticks([], minor=True)


def _write(axes: Axes, text: str, at: tuple[float, float], shift: tuple[int, int], style: dict[str, Any]) -> None:
    axes.annotate(
        text, at, xytext=shift, textcoords="offset points", fontsize=9, parse_math=False, path_effects=_HALO, **style
    ).set_zorder(5)


def _draw_heatmap(chart: Heatmap, figure: Figure, axes: Axes) -> None:
    axes.set_facecolor("#c8c8c8")  # of the diagonal, which holds no number
    drawn = axes.imshow(chart.percent, cmap="magma_r", interpolation="nearest", vmin=0)
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="% of the true class")
    axes.set(xlabel="predicted class", ylabel="true class", xticks=[], yticks=[])
    if chart.names_fit:
        names = [_shortened(name, 24) for name in chart.class_names]
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    for row, column, text in chart.numbers():
        axes.text(column, row, text, ha="center", va="center", fontsize=10, path_effects=_HALO)


def _draw_large_heatmap(chart: Heatmap) -> Figure:
    """Squares of so many classes that there are at most MOST_SQUARES a side, each of whole pixels: in an axes that fits
    itself into a figure, single mistakes would vanish."""
    classes = len(chart.class_names)
    each = -(-classes // MOST_SQUARES)
    squares = -(-classes // each)
    percent = np.zeros((squares * each, squares * each), np.float32)
    percent[:classes, :classes] = np.nan_to_num(chart.percent)
    percent = percent.reshape(squares, each, squares, each).max(axis=(1, 3))
    percent[percent == 0] = np.nan  # not drawn
    size = squares * max(1, round(LARGE_PIXELS / squares))
    left, bottom, right, top = 50, 50, 110, 20
    width, height = left + size + right, bottom + size + top
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((left / width, bottom / height, size / width, size / height))
    drawn = axes.imshow(percent, cmap="YlOrRd", interpolation="nearest", vmin=-20)  # so that small ones are not pale
    bar = figure.add_axes(((left + size + 20) / width, (bottom + size / 4) / height, 16 / width, size / 2 / height))
    label = "% of the true class" + (f", the most of {each}×{each}" if each > 1 else "")
    figure.colorbar(drawn, cax=bar).set_label(label, fontsize=13)
    bar.set_ylim(0, max(float(np.nan_to_num(percent).max()), 1))
    axes.plot([-0.5, squares - 0.5], [-0.5, squares - 0.5], color="#c8c8c8", linewidth=1)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("predicted class", fontsize=13)
    axes.set_ylabel("true class", fontsize=13)
    return figure


def _draw_gallery(gallery: Gallery) -> Figure:
    """A row for each class: examples classified correctly (green), and incorrectly (red) with the class predicted."""
    classes = [(title, examples) for title, group in gallery.groups.items() for examples in group]
    most = max(len(shown) for _, examples in classes for shown in (examples.right, examples.wrong))
    width = _TEXT_WIDTH + 2 * most * _STEP + 0.2
    figure = Figure(figsize=(width, _ROW_HEIGHT * len(classes)), dpi=100)
    # One pair of axes for all images: a pair for each would take ten times as long.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for row, (title, examples) in enumerate(classes):
        top = _ROW_HEIGHT * row + 0.3
        text = f"{_shortened(examples.name, 20)}\n{examples.figures}\n{title.lower()}"
        axes.text(0.1, top + 0.5, text, va="center", fontsize=9, parse_math=False)
        for column, example in enumerate(examples.right):
            _draw_image(axes, example, (_TEXT_WIDTH + _STEP * column, top), ("right", _RIGHT))
        for column, example in enumerate(examples.wrong, start=most):
            _draw_image(axes, example, (_TEXT_WIDTH + _STEP * column + 0.1, top), (example.predicted, _WRONG))
    axes.set(xlim=(0, width), ylim=(_ROW_HEIGHT * len(classes), 0), aspect="auto")
    return figure


def _draw_image(axes: Axes, example: Example, corner: tuple[float, float], title: tuple[str, str]) -> None:
    left, top = corner
    text, colour = title
    axes.imshow(example.image, extent=(left, left + 1, top + 1, top), interpolation="nearest")
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, color=colour, linewidth=2))
    axes.text(left, top - 0.07, _shortened(text, 15), fontsize=7, color=colour, parse_math=False)


def _shortened(text: str, length: int) -> str:
    text = one_line(text)
    return text if len(text) <= length else text[: length - 1] + "…"
