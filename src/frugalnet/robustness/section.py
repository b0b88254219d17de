"""The section "Robustness": a verdict, a table, two charts and the most telling pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.experiment import Experiment
from frugalnet.comparison.families import colours
from frugalnet.document.blocks import Block, Cell, Chart, Line, Pair, Pairs, Section, Table, network_cell
from frugalnet.document.charts import end_labels
from frugalnet.document.wording import count, interval, p_value, percent, with_interval
from frugalnet.metrics.statistics import Interval, mcnemar
from frugalnet.robustness.one_pixel import change
from frugalnet.robustness.rates import accuracy_kept, fooled_within, median_queries, success_rate
from frugalnet.robustness.result import METHODS, NetworkResult, RobustnessResult, read_result

TITLE = "Robustness"
SHOWN = 4  # pictures of each network
DETAIL = 64  # pixels a side around a changed one that are shown: in a larger picture it could not be seen
NO_PICTURE = "No validation picture is classified correctly by every network, so none was attacked."


def load(results: Path, comparison: Comparison) -> RobustnessResult | None:
    """What was measured of the networks compared, in their order, and then of what is quantised of them."""
    result = read_result(results)
    if result is None:
        return None
    names = [record.name for row in comparison.rows for record in row.records[:1]]
    networks = [network for network in result.networks if f"{network.model}-{network.seed}" in names]
    networks.sort(key=lambda network: (network.format, names.index(f"{network.model}-{network.seed}")))
    return result.model_copy(update={"networks": networks}) if networks else None


def one_pixel_rates(result: RobustnessResult) -> dict[str, Interval]:
    """The share of the attacked pictures that one changed pixel makes each network misclassify."""
    if not result.one_pixel:
        return {}
    return {network.title: success_rate(network.attack(1).fooled("evolution")) for network in result.networks}


def section(result: RobustnessResult, comparison: Comparison) -> Section:
    """A verdict, a table, two charts and, with the validation images, the most telling successes."""
    colour_of = colours(comparison.rows)  # quantised, a network keeps its colour
    said = verdict(result, comparison)
    blocks: list[Block] = [said, _table(result)] if said else [_table(result)]
    if not result.attacked and result.pictures:
        blocks.append(NO_PICTURE)
    if result.one_pixel:
        blocks += [_by_queries(result, colour_of), BY_QUERIES]
    if judged := [network for network in result.networks if _is_judged(result, network)]:
        blocks += [_by_kind(judged, colour_of), BY_KIND]
    if comparison.images is not None and result.one_pixel:
        pairs = [pair for network in result.networks for pair in _pairs(result, network, comparison)]
        blocks += [PICTURES, Pairs(pairs)] if pairs else []
    return Section("robustness", TITLE, blocks)


def _is_judged(result: RobustnessResult, network: NetworkResult) -> bool:
    """Whether there is an accuracy of which corruptions can leave a fraction."""
    return bool(result.corrupted) and bool(network.clean_right().any())


def summary(result: RobustnessResult, comparison: Comparison) -> dict[str, Any]:
    """Every figure of the section, ready for JSON."""
    return {
        "seed": result.seed,
        "pixels": result.pixels,
        "candidates": result.candidates,
        "generations": result.generations,
        "attacked": len(result.attacked),
        "corrupted": len(result.corrupted),
        "verdict": verdict(result, comparison),
        "networks": {network.title: _figures(result, network) for network in result.networks},
        "mcnemar": paired(result),
    }


def _figures(result: RobustnessResult, network: NetworkResult) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for attacks in network.attacks if result.attacked else ():
        for method in METHODS:
            fooled = attacks.fooled(method)
            median = median_queries(fooled, attacks.queries(method))
            figures[f"{method}_{attacks.pixels}"] = asdict(success_rate(fooled)) | {"median_queries": median}
    if result.corrupted:
        clean = network.clean_right()
        corrupted = network.corrupted_right()
        figures["clean_top1"] = float(clean.mean())
        figures["corrupted_top1"] = float(corrupted.mean())
        figures["kept"] = asdict(accuracy_kept(clean, corrupted))
        figures["kept_by_kind"] = {
            corruption.kind: asdict(accuracy_kept(clean, corrupted[[i]]))
            for i, corruption in enumerate(network.corruptions)
        }
    return figures


def paired(result: RobustnessResult) -> dict[str, float]:
    """McNemar's p-value of the one-pixel attack, for each two networks."""
    if not result.one_pixel:
        return {}
    return {f"{a.title} and {b.title}": _mcnemar(a, b) for a, b in combinations(result.networks, 2)}


def _mcnemar(a: NetworkResult, b: NetworkResult) -> float:
    return mcnemar(a.attack(1).fooled("evolution"), b.attack(1).fooled("evolution"))


def verdict(result: RobustnessResult, comparison: Comparison) -> str:
    """One sentence: of the network with the fewest MACs, and whether it fails more often than the one with the most.

    Empty if neither one pixel was changed nor pictures corrupted.
    """
    by_model = {network.model: network for network in result.networks if network.format == "float32"}
    small, large = (by_model[model] for model in comparison.extremes_by_macs([*by_model]))
    parts = []
    if result.one_pixel:
        parts.append(_fooled(result, small, large))
        quantised = [network for network in result.networks if network.format == "int8"]
        parts += [_against_itself(by_model[network.model], network) for network in quantised]
    if ends := [network for network in ([small] if small is large else [small, large]) if _is_judged(result, network)]:
        kept = [accuracy_kept(network.clean_right(), network.corrupted_right()) for network in ends]
        shown = [f"{network.model} {with_interval(share)}" for network, share in zip(ends, kept, strict=True)]
        parts.append(f"corruptions leave {' of its accuracy and '.join(shown)} of its accuracy")
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}." if parts else ""


def _fooled(result: RobustnessResult, small: NetworkResult, large: NetworkResult) -> str:
    rates = one_pixel_rates(result)
    text = f"one changed pixel fools {small.model} on {with_interval(rates[small.title])}"
    if small is large:
        return text
    p = _mcnemar(small, large)
    how = "significantly" if p < 0.05 else "not significantly"
    return (
        f"{text} and {large.model} on {with_interval(rates[large.title])} of the same pictures, {how} different "
        f"(McNemar’s exact p\u00a0{p_value(p)})"
    )


def _against_itself(network: NetworkResult, quantised: NetworkResult) -> str:
    """Whether a network breaks more easily once it is quantised."""
    p = _mcnemar(network, quantised)
    how = f"{'significantly' if p < 0.05 else 'not significantly'} different from float32 (p\u00a0{p_value(p)})"
    rate = success_rate(quantised.attack(1).fooled("evolution"))
    return f"the int8 file of {network.model} on {with_interval(rate)}, {how}"


def _table(result: RobustnessResult) -> Table:
    header = ["Network"]
    for pixels in result.pixels if result.attacked else ():
        header += [f"Fooled by {count(pixels, 'pixel')}", f"By random tries, {count(pixels, 'pixel')}"]
    header += ["Top-1, clean", "Top-1, corrupted", "Accuracy kept"] if result.corrupted else []
    note = (
        f"{len(result.attacked)} pictures that every network classifies correctly, at most {result.most_queries:,} "
        f"queries for each; {len(result.corrupted)} pictures corrupted. Networks of the lowest seed. "
        "Intervals: Wilson, 95 %; for the accuracy kept, a bootstrap over the pictures. Median: over the successes."
    )
    if pairs := "; ".join(f"{names} {p_value(p)}" for names, p in paired(result).items()):
        note += f" One pixel, paired by picture, McNemar’s exact p: {pairs}."
    return Table(TITLE, tuple(header), [_cells(result, network) for network in result.networks], note=note)


def _cells(result: RobustnessResult, network: NetworkResult) -> list[Cell]:
    cells = [network_cell(network.model, *(["int8"] if network.format == "int8" else []))]
    for attacks in network.attacks if result.attacked else ():
        for method in METHODS:
            fooled = attacks.fooled(method)
            rate = success_rate(fooled)
            median = median_queries(fooled, attacks.queries(method))
            queried = () if median is None else (f"median {count(median, 'query', 'queries')}",)
            cells.append(Cell(percent(rate.estimate), (interval(rate), *queried)))
    if result.corrupted:
        clean = network.clean_right()
        corrupted = network.corrupted_right()
        kept = accuracy_kept(clean, corrupted)
        cells += [Cell(percent(clean.mean())), Cell(percent(corrupted.mean()))]
        cells.append(Cell(percent(kept.estimate), (interval(kept),)) if _is_judged(result, network) else Cell("–"))
    return cells


def _by_queries(result: RobustnessResult, colour_of: Mapping[str, str]) -> Chart:
    limit = result.most_queries
    lines: list[Line] = []
    ends: dict[str, tuple[float, str]] = {}
    for network in result.networks:
        colour = colour_of[network.model]
        attacks = network.attack(1)
        for method in reversed(METHODS):
            steps, shares = fooled_within(attacks.fooled(method), attacks.queries(method))
            y = [100 * share for share in (0, *shares, shares[-1] if shares else 0)]
            text = f"{network.title}, {method}"
            lines.append(Line([1, *steps, limit], y, colour, text, dotted=method == "random", stepped=True))
        ends[network.title] = (y[-1], colour)
    top = max(max(line.y) for line in lines) * 1.1 or 1.0
    ticks = [tick for tick in (1, 10, 100, 1000, 10_000, 100_000) if tick <= limit]
    title = "Pictures misclassified, by queries of the network; one pixel"
    chart = Chart("one_pixel", title, "queries", (1, limit), (0, top), lines, ticks=ticks, y_title="fooled, %")
    return replace(chart, labels=end_labels(ends, top, chart.height))


def _by_kind(networks: Sequence[NetworkResult], colour_of: Mapping[str, str]) -> Chart:
    kinds = [corruption.kind for corruption in networks[0].corruptions]
    kept: dict[str, list[float]] = {}
    for network in networks:
        clean = network.clean_right().mean()
        kept[network.title] = [100 * float(right.mean() / clean) for right in network.corrupted_right()]
    order = np.argsort([-sum(values) for values in zip(*kept.values(), strict=True)], kind="stable").tolist()
    colour = {network.title: colour_of[network.model] for network in networks}
    lines = [Line(range(len(kinds)), [values[i] for i in order], colour[name], name) for name, values in kept.items()]
    top = max(max(line.y) for line in lines) * 1.08 or 1.0
    ends = {name: (values[order[-1]], colour[name]) for name, values in kept.items()}
    return Chart(
        "corruptions",
        "Accuracy on corrupted pictures, relative to clean ones",
        "",
        (0, len(kinds) - 1),
        (0, top),
        lines,
        labels=end_labels(ends, top, Chart.height),
        x_names=[kinds[i] for i in order],
        y_title="accuracy kept, %",
    )


def _pairs(result: RobustnessResult, network: NetworkResult, comparison: Comparison) -> list[Pair]:
    """The pictures of which the network was surest before one pixel fooled it."""
    assert comparison.images is not None
    class_names = comparison.first.class_names
    outcomes = network.attack(1).evolution
    sure = network.confidence
    fooled = [(outcome.changes, i) for i, outcome in enumerate(outcomes) if outcome.changes]
    pairs = []
    for changes, i in sorted(fooled, key=lambda pair: -sure[pair[1]])[:SHOWN]:
        image = comparison.images[result.attacked[i]]
        (pixel,) = changes
        true = class_names[result.labels[i]]
        wrong = class_names[outcomes[i].predicted or 0]
        text = f"{network.title}: {true} ({percent(sure[i], 0)} sure), after the change {wrong}"
        attacked = change(np.array(image), np.array([[pixel]]))[0]
        left, top = (min(max(place - DETAIL // 2, 0), max(len(image) - DETAIL, 0)) for place in pixel[:2])
        detail = np.s_[top : top + DETAIL, left : left + DETAIL]
        ringed = (pixel[0] - left, pixel[1] - top)
        pairs.append(Pair(_enlarged(image[detail]), _enlarged(attacked[detail], ringed), text))
    return pairs


def _enlarged(image: NDArray[np.uint8], ringed: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """A picture at three times its size, with a frame around one pixel."""
    large = image.repeat(3, axis=0).repeat(3, axis=1)
    if ringed:
        x, y = (3 * place for place in ringed)
        for margin, colour in ((4, (0, 0, 0)), (5, (255, 255, 255))):
            cv2.rectangle(large, (x - margin, y - margin), (x + 2 + margin, y + 2 + margin), colour)
    return large


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


EXPERIMENT = Experiment(
    id="robustness",
    title=TITLE,
    choice="robustness=quick",
    result=RobustnessResult,
    load=load,
    section=section,
    summary=summary,
)
