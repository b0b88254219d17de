"""The section "Robustness": a verdict, a table, two charts and the most telling pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from frugalnet.metrics.one_pixel import change
from frugalnet.metrics.perturbation_figures import accuracy_kept, fooled_within, median_queries, success_rate
from frugalnet.report.comparison import Comparison, Row
from frugalnet.report.drawing import data_url
from frugalnet.report.figures import Chart, Line, colours, end_labels
from frugalnet.report.robustness import INT8, attacks, corruptions, measured_rows, one_pixel, paired, verdict
from frugalnet.report.tables import Cell, Table
from frugalnet.report.wording import count, interval, p_value, percent

SHOWN = 4  # pictures of each network
TITLE = "Robustness"
NOT_MEASURED = "Not measured: the pipeline ran with robustness=none. Rerun it with -S robustness=quick."
NO_PICTURE = "No validation picture is classified correctly by every network, so none was attacked."


@dataclass(frozen=True)
class Pictures:
    """Pairs of pictures, clean and attacked, as data URLs with a caption. The page shows them; Markdown does not."""

    pictures: list[tuple[str, str, str]]


def blocks(comparison: Comparison, images: NDArray[np.uint8] | None) -> list[str | Table | Chart | Pictures]:
    """The section: a verdict, a table, two charts and, with the validation images, the most telling successes."""
    measured, rows = comparison.robustness, measured_rows(comparison)
    if not measured or not rows:
        return [NOT_MEASURED]
    of = colours(comparison.rows)
    colour = {row.model: of[row.model.removesuffix(INT8)] for row in rows}  # quantised, a network keeps its own
    found: list[str | Table | Chart | Pictures] = [*filter(None, [verdict(comparison)]), _table(comparison, rows)]
    if not measured["attacked"] and measured["pictures"]:
        found.append(NO_PICTURE)
    if one_pixel(comparison):
        found += [_by_queries(measured, rows, colour), BY_QUERIES]
    if measured["corrupted"]:
        found += [_by_kind(measured, rows, colour), BY_KIND]
    if images is not None and one_pixel(comparison):
        pairs = [pair for row in rows for pair in _pairs(measured, row, images)]
        found += [PICTURES, Pictures(pairs)] if pairs else []
    return found


def _name(row: Row) -> Cell:
    below = ("int8",) if row.model.endswith(INT8) else ()
    return Cell(row.model.removesuffix(INT8), below, style="network")


def _table(comparison: Comparison, rows: Sequence[Row]) -> Table:
    measured, header, body = comparison.robustness or {}, ["Network"], [[_name(r)] for r in rows]
    for pixels in measured["pixels"] if measured["attacked"] else ():
        for method in ("evolution", "random"):
            header.append(f"{'Fooled by' if method == 'evolution' else 'By random tries,'} {count(pixels, 'pixel')}")
            for line, row in zip(body, rows, strict=True):
                found, queries = attacks(measured, row, pixels, method)
                rate, median = success_rate(found), median_queries(found, queries)
                queried = () if median is None else (f"median {count(median, 'query', 'queries')}",)
                line.append(Cell(percent(rate.estimate), (interval(rate), *queried)))
    if measured["corrupted"]:
        header += ["Top-1, clean", "Top-1, corrupted", "Accuracy kept"]
        for line, row in zip(body, rows, strict=True):
            clean, corrupted, _ = corruptions(measured, row)
            kept = accuracy_kept(clean, corrupted)
            line += [Cell(percent(clean.mean())), Cell(percent(corrupted.mean()))]
            line.append(Cell(percent(kept.estimate), (interval(kept),)))
    tries = measured["candidates"] * (1 + measured["generations"])
    note = (
        f"{len(measured['attacked'])} pictures that every network classifies correctly, at most {tries:,} queries "
        f"for each; {len(measured['corrupted'])} pictures corrupted. Networks of the lowest seed. "
        "Intervals: Wilson, 95 %; for the accuracy kept, a bootstrap over the pictures. Median: over the successes."
    )
    pairs = "; ".join(f"{names} {p_value(p)}" for names, p in paired(comparison).items())
    note += f" One pixel, paired by picture, McNemar’s exact p: {pairs}." if pairs else ""
    return Table(TITLE, tuple(header), body, note=note)


def _by_queries(measured: dict[str, Any], rows: Sequence[Row], colour: Mapping[str, str]) -> Chart:
    limit, lines, ends = measured["candidates"] * (1 + measured["generations"]), list[Line](), {}
    for row in rows:
        for method in ("random", "evolution"):
            steps, shares = fooled_within(*attacks(measured, row, 1, method))
            y = [100 * share for share in (0, *shares, shares[-1] if shares else 0)]
            text, dotted = f"{row.model}, {method}", method == "random"
            lines.append(Line([1, *steps, limit], y, colour[row.model], text, dotted, stepped=True))
        ends[row.model] = (y[-1], colour[row.model])
    top = max(max(line.y) for line in lines) * 1.1 or 1.0
    ticks = [tick for tick in (1, 10, 100, 1000, 10_000, 100_000) if tick <= limit]
    title, axis = "Pictures misclassified, by queries of the network; one pixel", "queries"
    chart = Chart("one_pixel", title, axis, (1, limit), (0, top), lines, ticks=ticks, y_title="fooled, %")
    return replace(chart, labels=end_labels(ends, top, chart.height))


def _by_kind(measured: dict[str, Any], rows: Sequence[Row], colour: Mapping[str, str]) -> Chart:
    kept, kinds = {}, list[str]()
    for row in rows:
        clean, corrupted, kinds = corruptions(measured, row)
        kept[row.model] = [100 * float(one.mean() / max(clean.mean(), 1e-9)) for one in corrupted]
    order = np.argsort([-sum(values) for values in zip(*kept.values(), strict=True)], kind="stable").tolist()
    places = range(len(kinds))
    lines = [Line(places, [kept[m][i] for i in order], colour[m], m) for m in kept]
    top = max(max(line.y) for line in lines) * 1.08 or 1.0
    title, x_range = "Accuracy on corrupted pictures, relative to clean ones", (0, len(kinds) - 1)
    names = [kinds[i] for i in order]
    chart = Chart("corruptions", title, "", x_range, (0, top), lines, x_names=names, y_title="accuracy kept, %")
    ends = {model: (values[order[-1]], colour[model]) for model, values in kept.items()}
    return replace(chart, labels=end_labels(ends, top, chart.height))


def _pairs(measured: dict[str, Any], row: Row, images: NDArray[np.uint8]) -> list[tuple[str, str, str]]:
    """The pictures of which the network was surest before one pixel fooled it."""
    record, network = row.records[0], measured["networks"][row.records[0].name]
    outcomes, sure = network["attacks"]["1"]["evolution"], network["confidence"]
    fooled = sorted((i for i, one in enumerate(outcomes) if one["changes"]), key=lambda i: -sure[i])[:SHOWN]
    pairs = []
    for i in fooled:
        image, (pixel,) = images[measured["attacked"][i]], outcomes[i]["changes"]
        true, wrong = record.class_names[measured["labels"][i]], record.class_names[outcomes[i]["predicted"]]
        text = f"{row.model}: {true} ({percent(sure[i], 0)} sure), after the change {wrong}"
        attacked = change(np.array(image), np.array([[pixel]]))[0]
        pairs.append((_url(image), _url(attacked, (pixel[0], pixel[1])), text))
    return pairs


def _url(image: NDArray[np.uint8], ringed: tuple[int, int] | None = None) -> str:
    """A picture at three times its size, with a frame around one pixel, as PNG: JPEG would smear a pixel."""
    large = image.repeat(3, axis=0).repeat(3, axis=1)
    if ringed:
        x, y = (3 * place for place in ringed)
        for margin, colour in ((4, (0, 0, 0)), (5, (255, 255, 255))):
            cv2.rectangle(large, (x - margin, y - margin), (x + 2 + margin, y + 2 + margin), colour)
    return data_url(large, "png")


BY_QUERIES = (
    "Solid: differential evolution (Su et al., 2019). Dotted: random pixels and colours; the first tries of both are "
    "the same. An attack that fails does not prove that no such pixel exists."
)
BY_KIND = (
    "After Hendrycks and Dietterich (2019): the mean over five severities, as a fraction of the accuracy on the same "
    "pictures without corruption, by kind; without frost and snow. Lines are only a guide to the eye."
)
PICTURES = (
    "The most telling successes, which are in report.html only: the pictures of which each network was surest before "
    "one pixel, framed, fooled it."
)
