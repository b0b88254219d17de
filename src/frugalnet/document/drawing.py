"""Renders charts: as plotly figures for the page, and as PNG for Markdown and MLflow."""

import base64
import html
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from frugalnet.document.blocks import Chart, Example, Gallery, Heatmap, Line, Point
from frugalnet.document.wording import human, one_line
from frugalnet.files import atomic

_RIGHT = "#23855a"
_WRONG = "#b3303b"
_TEXT_WIDTH = 2.0  # beside a gallery's images, each 1 wide
_STEP = 1.12  # from one image to the next
_ROW_HEIGHT = 1.4
MOST_NAMES = 30  # more classes leave no room for their names
MOST_NUMBERS = 9  # more classes leave no room for numbers within a heatmap
SHOWN_PIXELS = 128  # a side, of an example
LARGE_PIXELS = 600  # a side, about, of a heatmap of very many classes
MOST_SQUARES = 300  # a side, of the same
_PRINTED = {"@muted": "#666666", "@ink": "#222222"}


def plotly(chart: Chart | Heatmap) -> dict[str, Any]:
    """A figure for plotly.js; the page replaces its "@name" colours."""
    return _plotly_heatmap(chart) if isinstance(chart, Heatmap) else _plotly_chart(chart)


def _plotly_chart(chart: Chart) -> dict[str, Any]:
    traces = [_band_trace(line) for line in chart.lines if line.band]
    traces += [_line_trace(line, chart.x_title) for line in chart.lines]
    traces += [_point_trace(point) for point in chart.points]
    traces += [_names_trace(chart.points)] if chart.points else []  # above all bars
    annotations = [
        {"x": 1, "xref": "paper", "y": label.y, "xanchor": "left", "xshift": 6, "showarrow": False, "align": "left"}
        | {"text": _escaped(label.text), "font": {"color": label.colour, "size": 12}}
        for label in chart.labels
    ]
    x: dict[str, Any] = {"range": list(chart.x_range), "showgrid": False, "title": {"text": chart.x_title}}
    if chart.ticks:
        x |= {"type": "log", "range": [float(np.log10(end)) for end in chart.x_range], "showgrid": True}
        x |= {"tickvals": list(chart.ticks), "ticktext": [human(tick) for tick in chart.ticks]}
    if chart.x_names:
        x |= {"tickvals": [*range(len(chart.x_names))], "ticktext": [*map(_escaped, chart.x_names)], "tickangle": -40}
    margin = 16 + 7 * max((len(label.text) for label in chart.labels), default=0)
    y = {"range": list(chart.y_range), "ticksuffix": " %"}
    return {"data": traces, "layout": _layout(x, y, margin) | {"annotations": annotations}}


def _line_trace(line: Line, x_title: str) -> dict[str, Any]:
    shape = {"dash": "dot" if line.dotted else "solid", "shape": "hv" if line.stepped else "linear"}
    at = f"{x_title} %{{x}}".lstrip()
    hover = f"{_escaped(line.text)}, {at}: %{{y:.1f}} %<extra></extra>"
    return (
        {"type": "scatter", "mode": "lines" if len(line.x) > 2 or line.stepped else "lines+markers"}
        | {"x": list(line.x), "y": list(line.y), "line": {"color": line.colour, "width": line.width} | shape}
        | ({"hovertemplate": hover} if line.text else {"hoverinfo": "skip"})
    )


def _band_trace(line: Line) -> dict[str, Any]:
    assert line.band
    low, high = line.band
    red, green, blue = (int(line.colour[i : i + 2], 16) for i in (1, 3, 5))
    return (
        {"type": "scatter", "mode": "lines", "x": [*line.x, *reversed(line.x)], "y": [*high, *reversed(low)]}
        | {"fill": "toself", "fillcolor": f"rgba({red}, {green}, {blue}, 0.15)"}
        | {"line": {"width": 0}, "hoverinfo": "skip"}
    )


def _point_trace(point: Point) -> dict[str, Any]:
    hover = "<br>".join([f"<b>{_escaped(point.name)}</b>", *map(_escaped, point.text)]) + "<extra></extra>"
    fill = point.colour if point.filled else "@paper"
    bars = {
        axis: {"type": "data", "symmetric": False, "arrayminus": [error[0]], "array": [error[1]]}
        | {"color": point.colour, "thickness": 1.2, "width": 3}
        for axis, error in (("error_y", point.y_error), ("error_x", point.x_error))
        if error
    }
    return (
        {"type": "scatter", "mode": "markers", "name": _network(point), "hovertemplate": hover}
        | {"x": [point.x], "y": [point.y]}
        | {"cliponaxis": False, "marker": {"size": 10, "color": fill, "line": {"width": 2, "color": point.colour}}}
        | bars
    )


def _names_trace(points: Sequence[Point]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "hoverinfo": "skip",
        "cliponaxis": False,
        "marker": {"size": 10, "opacity": 0},  # so that names keep their distance
        "x": [point.x for point in points],
        "y": [point.y for point in points],
        "text": [f"\u00a0{_escaped(point.name)}\u00a0" for point in points],  # plotly sets it too near the point
        "customdata": [_network(point) for point in points],
        "textposition": [_text_position(*point.side) for point in points],
        "textfont": {"color": [point.colour for point in points], "size": 12},
    }


def _network(point: Point) -> str:
    """By which the page finds what does not fit a budget."""
    return _escaped(point.network or point.name)


def _text_position(right: int, up: int) -> str:
    """right, up: 1, 0 or -1."""
    return f"{('middle', 'top', 'bottom')[up]} {('center', 'right', 'left')[right]}"


def _escaped(text: str) -> str:
    """Text from data for plotly, which reads tags, entities and, between two "$", formulas; the page reads "@name"."""
    return html.escape(text).replace("$", "&#36;").replace("@", "&#64;")


def _plotly_heatmap(chart: Heatmap) -> dict[str, Any]:
    names = [_escaped(name) for name in chart.class_names]
    shown = len(names) <= MOST_NAMES
    trace = {"type": "heatmap", "x": names, "y": names, "z": np.round(chart.percent, 1), "hoverongaps": False}
    trace |= {"colorscale": [[0, "@panel"], [0.25, "@heat1"], [1, "@heat2"]], "zmin": 0}
    if len(names) <= MOST_NUMBERS:  # plotly takes zmin only with zmax; of many classes there is a 0 anyway
        trace["zmax"] = max(float(np.nan_to_num(chart.percent).max()), 1)
    trace |= {"colorbar": {"title": {"text": "%"}, "thickness": 10, "outlinewidth": 0}}
    trace |= {"hovertemplate": "%{y} predicted as %{x}: %{z} %<extra></extra>"}
    axis: dict[str, Any] = {"ticks": "", "showticklabels": shown, "showgrid": False, "type": "category", "dtick": 1}
    x = axis | {"title": {"text": "predicted class", "standoff": 8}, "tickangle": 90}
    y = axis | {"title": {"text": "true class", "standoff": 8}, "autorange": "reversed"}
    numbers = [
        {"x": names[column], "y": names[row], "text": text, "showarrow": False, "bgcolor": "@paper", "borderpad": 3}
        for row, column, text in _numbers(chart)
    ]
    # The background is the diagonal's colour.
    layout = _layout(x, y, 12) | {"plot_bgcolor": "@rule"} | ({"annotations": numbers} if numbers else {})
    return {"data": [trace], "layout": layout}


def _numbers(chart: Heatmap) -> Iterator[tuple[int, int, str]]:
    """The row, column and percentage of every cell, where classes are few; none of 0 % but on the diagonal."""
    if chart.right is None or len(chart.class_names) > MOST_NUMBERS:
        return
    for (row, column), value in np.ndenumerate(chart.percent):
        percent = float(chart.right[row] if row == column else value)
        if row == column or percent > 0:
            yield row, column, f"{percent:.0f} %"


def _layout(x: dict[str, Any], y: dict[str, Any], right: int) -> dict[str, Any]:
    axis = {"gridcolor": "@rule", "linecolor": "@rule", "zeroline": False, "fixedrange": True, "automargin": True}
    return {
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@muted"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 44, "r": right, "t": 10, "b": 44},
        "showlegend": False,
        "dragmode": False,
        "hoverlabel": {"bgcolor": "@panel", "bordercolor": "@rule", "font": {"color": "@ink"}},
        "xaxis": axis | x,
        "yaxis": axis | y,
    }


def png(figure: Chart | Heatmap | Gallery, path: Path) -> None:
    """Draw a figure as PNG, whole or not at all, the same bytes every time."""
    if isinstance(figure, Gallery):
        drawn = _png_gallery(figure)
    elif isinstance(figure, Heatmap) and figure.is_large:
        drawn = _png_large_heatmap(figure)
    else:
        drawn = _png_of(figure)
    with atomic(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a script's names; the page shows them
        drawn.savefig(partial, format="png", metadata={"Software": None})  # no matplotlib version in the bytes


def _png_of(chart: Chart | Heatmap) -> Figure:
    figure = Figure(figsize=(6, 5.4 if isinstance(chart, Heatmap) else 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors="#555555", labelsize=9)
    if isinstance(chart, Heatmap):
        _png_heatmap(chart, figure, axes)
    else:
        _png_chart(chart, axes)
    return figure


def _png_chart(chart: Chart, axes: Axes) -> None:
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
    halo = [withStroke(linewidth=3, foreground="white")]
    axes.annotate(
        text, at, xytext=shift, textcoords="offset points", fontsize=9, parse_math=False, path_effects=halo, **style
    ).set_zorder(5)


def _png_heatmap(chart: Heatmap, figure: Figure, axes: Axes) -> None:
    axes.set_facecolor("#c8c8c8")  # of the diagonal, which holds no number
    drawn = axes.imshow(chart.percent, cmap="magma_r", interpolation="nearest", vmin=0)
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="% of the true class")
    axes.set(xlabel="predicted class", ylabel="true class", xticks=[], yticks=[])
    if len(chart.class_names) <= MOST_NAMES:
        names = [_shortened(name, 24) for name in chart.class_names]
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    halo = [withStroke(linewidth=3, foreground="white")]
    for row, column, text in _numbers(chart):
        axes.text(column, row, text, ha="center", va="center", fontsize=10, path_effects=halo)


def _png_large_heatmap(chart: Heatmap) -> Figure:
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
    FigureCanvasAgg(figure)
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


def _png_gallery(gallery: Gallery) -> Figure:
    """A row for each class: examples classified correctly (green), and incorrectly (red) with the class predicted."""
    classes = [(title, examples) for title, group in gallery.groups.items() for examples in group]
    most = max(len(shown) for _, examples in classes for shown in (examples.right, examples.wrong))
    width = _TEXT_WIDTH + 2 * most * _STEP + 0.2
    figure = Figure(figsize=(width, _ROW_HEIGHT * len(classes)), dpi=100)
    FigureCanvasAgg(figure)
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


def data_url(image: NDArray[np.uint8], kind: Literal["jpeg", "png"] = "jpeg") -> str:
    """A picture (H, W, 3) uint8 RGB for the page; as JPEG no larger than it is shown on a dense screen."""
    if kind == "jpeg" and len(image) > SHOWN_PIXELS:
        image = cv2.resize(image, (SHOWN_PIXELS, SHOWN_PIXELS), interpolation=cv2.INTER_AREA).astype(np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if kind == "jpeg" else []
    encoded, data = cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    assert encoded
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


def _shortened(text: str, length: int) -> str:
    text = one_line(text)
    return text if len(text) <= length else text[: length - 1] + "…"
