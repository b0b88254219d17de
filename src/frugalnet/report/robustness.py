"""When the picture is not clean: what the report says of one-pixel attacks and common corruptions."""

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from frugalnet.errors import UserError
from frugalnet.files import read_json
from frugalnet.metrics.one_pixel import change
from frugalnet.metrics.robustness import accuracy_kept, fooled_within, median_queries, success_rate
from frugalnet.metrics.statistics import Interval, mcnemar
from frugalnet.report.comparison import Comparison, Row
from frugalnet.report.figures import Chart, Label, Line, colours, spread_apart
from frugalnet.report.tables import Cell, Table
from frugalnet.report.wording import count, interval, listed, percent

SHOWN = 4  # pictures of each network
TITLE = "When the picture is not clean"
NOT_MEASURED = "Not measured: the pipeline ran with robustness=none. Rerun it with -S robustness=quick."
NO_PICTURE = "No validation picture is classified correctly by every network, so none was attacked."


@dataclass(frozen=True)
class Pictures:
    """Pairs of pictures, clean and attacked, as data URLs with a caption. The page shows them; Markdown does not."""

    pictures: list[tuple[str, str, str]]


def load(path: Path) -> dict[str, Any] | None:
    """What the stage `robustness` measured, or None if it was to measure nothing. Raises UserError without the file."""
    try:
        found: dict[str, Any] = read_json(path)
        return found if found["measured"] else None
    except KeyError as error:
        raise UserError(f"{path} cannot be read (no {error}): run `dvc repro`") from error


def _attack(measured: dict[str, Any], row: Row, pixels: int, method: str = "evolution") -> tuple[NDArray[Any], ...]:
    """Whether each attack succeeded and the queries that it took, both (N,)."""
    outcomes = measured["networks"][row.records[0].name]["attacks"][str(pixels)][method]
    found = np.array([one["changes"] is not None for one in outcomes], dtype=bool)
    return found, np.array([one["queries"] for one in outcomes], dtype=np.int64)


def _rows(comparison: Comparison) -> list[Row]:
    """The networks that were attacked or corrupted."""
    measured = (comparison.robustness or {}).get("networks", {})
    return [row for row in comparison.rows if row.records[0].name in measured]


def one_pixel(comparison: Comparison) -> dict[str, Interval]:
    """The share of the attacked pictures that one changed pixel makes each network misclassify."""
    measured = comparison.robustness
    if not measured or not measured["attacked"] or 1 not in measured["pixels"]:
        return {}
    return {row.model: success_rate(_attack(measured, row, 1)[0]) for row in _rows(comparison)}


def _corrupted(measured: dict[str, Any], row: Row) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[str]]:
    """Whether each picture was classified correctly: clean (N,), corrupted (kinds, severities, N); and the kinds."""
    right = dict(measured["networks"][row.records[0].name]["right"])
    clean = np.array([*right.pop("clean")]) == "1"
    return clean, np.array([[[*digits] for digits in severities] for severities in right.values()]) == "1", [*right]


def summary(comparison: Comparison) -> dict[str, Any] | None:
    """Every figure of the section, ready for JSON; None if nothing was measured."""
    measured, networks = comparison.robustness, {}
    if measured is None:
        return None
    for row in _rows(comparison):
        figures: dict[str, Any] = {}
        for pixels in measured["pixels"] if measured["attacked"] else ():
            for method in ("evolution", "random"):
                found, queries = _attack(measured, row, pixels, method)
                figures[f"{method}_{pixels}"] = asdict(success_rate(found)) | {
                    "median_queries": median_queries(found, queries)
                }
        if measured["corrupted"]:
            clean, corrupted, kinds = _corrupted(measured, row)
            figures |= {"clean_top1": float(clean.mean()), "corrupted_top1": float(corrupted.mean())}
            figures["kept"] = asdict(accuracy_kept(clean, corrupted))
            figures["kept_by_kind"] = {
                kind: asdict(accuracy_kept(clean, corrupted[[i]])) for i, kind in enumerate(kinds)
            }
        networks[row.model] = figures
    scope = {key: measured[key] for key in ("seed", "pixels", "candidates", "generations")}
    sizes = {key: len(measured[key]) for key in ("attacked", "corrupted")}
    return {**scope, **sizes, "verdict": verdict(comparison), "networks": networks, "mcnemar": _paired(comparison)}


def _paired(comparison: Comparison) -> dict[str, float]:
    """McNemar's p-value of the one-pixel attack, for each two networks."""
    if not one_pixel(comparison):
        return {}
    found = {row.model: _attack(comparison.robustness or {}, row, 1)[0] for row in _rows(comparison)}
    return {f"{a} and {b}": mcnemar(found[a], found[b]) for a, b in combinations(found, 2)}


def verdict(comparison: Comparison) -> str:
    """One sentence: of the network with the fewest MACs, and whether it fails more often than the one with the most."""
    measured, rows, rates = comparison.robustness, _rows(comparison), one_pixel(comparison)
    if not measured or not rows:
        return ""
    small, large = min(rows, key=lambda row: (row.macs, -row.top1.mean)), max(rows, key=lambda row: row.macs)
    parts = []
    if rates:
        p = _paired(comparison).get(f"{large.model} and {small.model}", 1.0)
        p = _paired(comparison).get(f"{small.model} and {large.model}", p)
        text = f"one changed pixel fools {small.model} on {_share(rates[small.model])}"
        if small is not large:
            how = "significantly" if p < 0.05 else "not significantly"
            text += f" and {large.model} on {_share(rates[large.model])} of the same pictures, {how} different"
            text += f" (McNemar’s exact p\u00a0{_p(p)})"
        parts.append(text)
    if measured["corrupted"]:
        kept = {
            row.model: accuracy_kept(*_corrupted(measured, row)[:2])
            for row in {small.model: small, large.model: large}.values()
        }
        parts.append(
            "corruptions leave " + listed([f"{model} {_share(one)} of its accuracy" for model, one in kept.items()])
        )
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else "< 0.0001"


def _share(value: Interval) -> str:
    return f"{percent(value.estimate)} ({interval(value)})"


def blocks(comparison: Comparison, images: NDArray[np.uint8] | None) -> list[str | Table | Chart | Pictures]:
    """The section: a verdict, a table, two charts and, with the validation images, the most telling successes."""
    measured, rows = comparison.robustness, _rows(comparison)
    if not measured or not rows:
        return [NOT_MEASURED]
    found: list[str | Table | Chart | Pictures] = [verdict(comparison), _table(comparison, rows)]
    if not measured["attacked"] and measured["pictures"]:
        found.append(NO_PICTURE)
    if one_pixel(comparison):
        found += [_by_queries(measured, rows, comparison.rows), BY_QUERIES]
    if measured["corrupted"]:
        found += [_by_kind(measured, rows, comparison.rows), BY_KIND]
    if images is not None and one_pixel(comparison):
        pairs = [pair for row in rows for pair in _pairs(measured, row, images)]
        found += [PICTURES, Pictures(pairs)] if pairs else []
    return found


def _table(comparison: Comparison, rows: Sequence[Row]) -> Table:
    measured, header, body = comparison.robustness or {}, ["Network"], [[Cell(r.model, style="network")] for r in rows]
    for pixels in measured["pixels"] if measured["attacked"] else ():
        for method in ("evolution", "random"):
            header.append(f"{'Fooled by' if method == 'evolution' else 'By random tries,'} {count(pixels, 'pixel')}")
            for line, row in zip(body, rows, strict=True):
                found, queries = _attack(measured, row, pixels, method)
                rate, median = success_rate(found), median_queries(found, queries)
                queried = () if median is None else (f"median {count(median, 'query').replace('querys', 'queries')}",)
                line.append(Cell(percent(rate.estimate), (interval(rate), *queried)))
    if measured["corrupted"]:
        header += ["Top-1, clean", "Top-1, corrupted", "Accuracy kept"]
        for line, row in zip(body, rows, strict=True):
            clean, corrupted, _ = _corrupted(measured, row)
            kept = accuracy_kept(clean, corrupted)
            line += [Cell(percent(clean.mean())), Cell(percent(corrupted.mean()))]
            line.append(Cell(percent(kept.estimate), (interval(kept),)))
    tries = measured["candidates"] * (1 + measured["generations"])
    note = (
        f"{len(measured['attacked'])} pictures that every network classifies correctly, at most {tries:,} queries of the "
        f"network for each; {len(measured['corrupted'])} pictures corrupted. Networks of the lowest seed. Below: Wilson "
        "95 % intervals, and of the accuracy kept, a bootstrap over the pictures. Median: over the successes."
    )
    pairs = "; ".join(f"{names} {_p(p)}" for names, p in _paired(comparison).items())
    note += f" One pixel, paired by picture, McNemar’s exact p: {pairs}." if pairs else ""
    return Table(TITLE, tuple(header), body, note=note)


def _labelled(chart: Chart, ends: dict[str, tuple[float, str]]) -> list[Label]:
    gap = 18 * (chart.y_range[1] - chart.y_range[0]) / (chart.height - 54)  # a line of text
    places = spread_apart([end for end, _ in ends.values()], gap)
    return [Label(at, name, ends[name][1]) for at, name in zip(places, ends, strict=True)]


def _by_queries(measured: dict[str, Any], rows: Sequence[Row], all_rows: Sequence[Row]) -> Chart:
    limit, colour, lines, ends = measured["candidates"] * (1 + measured["generations"]), colours(all_rows), [], {}
    for row in rows:
        for method in ("random", "evolution"):
            steps, shares = fooled_within(*_attack(measured, row, 1, method))
            y = [100 * share for share in (0, *shares, shares[-1] if shares else 0)]
            text, dotted = f"{row.model}, {method}", method == "random"
            lines.append(Line([1, *steps, limit], y, colour[row.model], text, dotted, stepped=True))
        ends[row.model] = (y[-1], colour[row.model])
    top = max(max(line.y) for line in lines) * 1.1 or 1.0
    ticks = [tick for tick in (1, 10, 100, 1000, 10_000, 100_000) if tick <= limit]
    title, axis = "Pictures misclassified, by queries of the network; one pixel", "queries"
    chart = Chart("one_pixel", title, axis, (1, limit), (0, top), lines, ticks=ticks, y_title="fooled, %")
    return Chart(**vars(chart) | {"labels": _labelled(chart, ends)})


def _by_kind(measured: dict[str, Any], rows: Sequence[Row], all_rows: Sequence[Row]) -> Chart:
    colour, kept, kinds = colours(all_rows), {}, list[str]()
    for row in rows:
        clean, corrupted, kinds = _corrupted(measured, row)
        kept[row.model] = [100 * accuracy_kept(clean, one[None]).estimate for one in corrupted]
    order = np.argsort([-sum(values) for values in zip(*kept.values(), strict=True)], kind="stable").tolist()
    places = range(len(kinds))
    lines = [Line(places, [kept[m][i] for i in order], colour[m], m) for m in kept]
    top = max(max(line.y) for line in lines) * 1.08 or 1.0
    title, x_range = "Accuracy on corrupted pictures, relative to clean ones", (0, len(kinds) - 1)
    names = [kinds[i] for i in order]
    chart = Chart("corruptions", title, "", x_range, (0, top), lines, x_names=names, y_title="accuracy kept, %")
    return Chart(**vars(chart) | {"labels": _labelled(chart, {m: (kept[m][order[-1]], colour[m]) for m in kept})})


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
    large = np.ascontiguousarray(image[..., ::-1].repeat(3, axis=0).repeat(3, axis=1))
    if ringed:
        x, y = (3 * place for place in ringed)
        for margin, colour in ((4, (0, 0, 0)), (5, (255, 255, 255))):
            cv2.rectangle(large, (x - margin, y - margin), (x + 2 + margin, y + 2 + margin), colour)
    encoded, data = cv2.imencode(".png", large)
    assert encoded
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


BY_QUERIES = (
    "Solid: differential evolution (Su et al., 2019). Dotted: random pixels and colours; the first tries of both are the "
    "same. An attack that fails does not prove that no such pixel exists."
)
BY_KIND = (
    "After Hendrycks and Dietterich (2019): the mean over five severities, as a fraction of the accuracy on the same "
    "pictures without corruption, by kind; without frost and snow. Lines only lead the eye."
)
PICTURES = (
    "The most telling successes, which are in report.html only: the pictures of which each network was surest before "
    "one pixel, framed, fooled it."
)
