"""Charts and heatmaps as figures for plotly.js, which the page draws; it replaces their "@name" colours."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from frugalnet.document.blocks import Chart, Heatmap, Line, Point
from frugalnet.document.wording import human


def plotly_figure(chart: Chart | Heatmap) -> dict[str, Any]:
    """A figure as plotly.js takes it: its traces and its layout."""
    return _heatmap(chart) if isinstance(chart, Heatmap) else _chart(chart)


def _chart(chart: Chart) -> dict[str, Any]:
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
    hover = "<br>".join([f"<b>{_network(point)}</b>", *map(_escaped, point.text)]) + "<extra></extra>"
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


def _heatmap(chart: Heatmap) -> dict[str, Any]:
    names = [_escaped(name) for name in chart.class_names]
    trace = {"type": "heatmap", "x": names, "y": names, "z": np.round(chart.percent, 1), "hoverongaps": False}
    trace |= {"colorscale": [[0, "@panel"], [0.25, "@heat1"], [1, "@heat2"]]}
    trace |= {"zmin": 0, "zmax": max(float(np.nan_to_num(chart.percent).max()), 1)}
    trace |= {"colorbar": {"title": {"text": "%"}, "thickness": 10, "outlinewidth": 0}}
    trace |= {"hovertemplate": "%{y} predicted as %{x}: %{z} %<extra></extra>"}
    axis: dict[str, Any] = {"type": "category", "dtick": 1, "ticks": "", "showgrid": False}
    axis |= {"showticklabels": chart.names_fit}
    x = axis | {"title": {"text": "predicted class", "standoff": 8}, "tickangle": 90}
    y = axis | {"title": {"text": "true class", "standoff": 8}, "autorange": "reversed"}
    numbers = [
        {"x": names[column], "y": names[row], "text": text, "showarrow": False, "bgcolor": "@paper", "borderpad": 3}
        for row, column, text in chart.numbers()
    ]
    # The background is the diagonal's colour.
    layout = _layout(x, y, 12) | {"plot_bgcolor": "@rule"} | ({"annotations": numbers} if numbers else {})
    return {"data": [trace], "layout": layout}


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
