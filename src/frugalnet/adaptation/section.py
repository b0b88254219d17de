"""The section "Training on the device": a verdict, a table and a chart for each scenario, and memory by layer."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frugalnet.adaptation.config import PARTS, TRAINED, Scenario, Trained
from frugalnet.adaptation.result import (
    AdaptationResult,
    Method,
    NetworkResult,
    difference,
    read_lacking,
    read_result,
)
from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.experiment import Experiment
from frugalnet.comparison.families import colours
from frugalnet.document.blocks import Block, Cell, Chart, Fold, Grid, Line, Section, Table, measured_column
from frugalnet.document.charts import end_labels
from frugalnet.document.wording import (
    BYTES,
    COUNT,
    DURATIONS,
    JOULES,
    count,
    interval,
    listed,
    percent,
    points,
    ratio,
    scale,
    with_interval,
)
from frugalnet.metrics.statistics import Interval

TITLE = "Training on the device"
NAMES: dict[Method, str] = {
    "general": "nothing, all classes possible",
    "restricted": "nothing, only these classes possible",
    "classifier": "classifier",
    "norms": "classifier, batch norms",
    "blocks": "classifier, last two blocks",
    "all": "everything",
    "scratch": "everything, from scratch",
}
SCENARIOS: dict[Scenario, str] = {
    "seen": "Classes that the network was trained on",
    "unseen": "Classes that the network has never seen",
}
COSTS = (
    ("MACs per picture", COUNT),
    ("Peak memory of a step", BYTES),
    ("To store", BYTES),
    ("Time, one thread", DURATIONS),
    ("Energy", JOULES),
)


def load(results: Path, comparison: Comparison) -> AdaptationResult | None:
    """What was measured of the networks compared."""
    networks = [network for network in read_result(results).networks if comparison.row(network.model)]
    return AdaptationResult(networks=networks) if networks else None


def section(result: AdaptationResult, comparison: Comparison) -> Section:
    """A verdict, a table and a chart for each scenario, and for each network what each layer keeps."""
    scenarios = [scenario for scenario in SCENARIOS if result.of_scenario(scenario)]
    blocks: list[Block] = [*verdict(result, comparison)]
    blocks += [_table(result.of_scenario(scenario)) for scenario in scenarios]
    blocks += [
        _note(result),
        Grid([_chart(result, scenario, comparison) for scenario in scenarios], 2),
        CHART,
        memory(result, comparison),
    ]
    blocks += [Fold(model, [_layers(result.first(model))]) for model in result.models]
    return Section("adapt", TITLE, blocks)


def summary(result: AdaptationResult, comparison: Comparison) -> dict[str, Any]:
    """Every figure of the section that holds no time, ready for JSON."""
    networks: dict[str, dict[str, Any]] = {}
    for network in result.networks:
        figures = {
            f"{method}_{pictures}" if pictures else method: asdict(accuracy)
            for method, pictures in sorted({(outcome.method, outcome.pictures) for outcome in network.outcomes})
            if (accuracy := network.accuracy(method, pictures))
        }
        networks.setdefault(network.scenario, {})[network.model] = figures
    keys = ("seed", "draws", "classes", "pictures", "steps", "scratch_steps")
    scope = {key: getattr(result.networks[0], key) for key in keys}
    return {**scope, "verdict": verdict(result, comparison), "networks": networks}


def verdict(result: AdaptationResult, comparison: Comparison) -> list[str]:
    """Sentences: is it worth training on the device, and is a small network enough there?"""
    small, large = comparison.extremes_by_macs(result.models)
    seen = result.network("seen", small)
    unseen = result.network("unseen", small)
    larger = result.network("seen", large) if comparison.by_macs[small] < comparison.by_macs[large] else None
    sentences = [
        _known_classes(seen) if seen else None,
        _new_classes(unseen) if unseen else None,
        _is_enough(seen, larger) if seen and larger else None,
    ]
    return [sentence for sentence in sentences if sentence]


def _known_classes(seen: NetworkResult) -> str | None:
    general = seen.accuracy("general")
    restricted = seen.accuracy("restricted")
    gain = difference(seen, ("all", seen.most), seen, ("restricted", 0))
    if not general or not restricted or not gain:
        return None
    what = f"Fine-tuning all of it on {count(seen.most, 'picture')} of each, taken from its training set,"
    if gain.excludes_zero:
        worth = f"{'adds' if gain.estimate > 0 else 'costs'} {points(gain)}"
    else:
        worth = f"makes no significant difference: {_more_or_less(gain)}"
    return (
        f"On a device that meets {count(seen.classes, 'class', 'classes')}, {seen.model} goes from "
        f"{with_interval(general)} to {with_interval(restricted)} by choosing among these alone, without any training. "
        f"{what} {worth}."
    )


def _new_classes(unseen: NetworkResult) -> str | None:
    most = unseen.most
    tuned = unseen.accuracy("all", most)
    gain = difference(unseen, ("all", most), unseen, ("scratch", most))
    if not tuned or not gain:
        return None
    what = "more than" if gain.estimate >= 0 else "less than"
    unless = "" if gain.excludes_zero else ", which is not significant"
    return (
        f"On classes that it has never seen, {unseen.model} reaches {with_interval(tuned)} after fine-tuning on "
        f"{most} pictures of each: {points(gain)} {what} from scratch{unless}."
    )


def _is_enough(small: NetworkResult, large: NetworkResult) -> str | None:
    gap = difference(small, ("all", small.most), large, ("restricted", 0))
    if not gap:
        return None
    as_it_is = f"{large.model} as it is, among the same classes"
    if not gap.excludes_zero:
        against = f"may be enough: {small.model}, fine-tuned, is not significantly different from {as_it_is}"
        return f"A smaller network {against}: {_more_or_less(gap)}."
    enough, where = ("is enough", "above") if gap.low > 0 else ("falls short", "below")
    return f"A smaller network {enough}: {small.model}, fine-tuned, is {points(gap)} {where} {as_it_is}."


def _more_or_less(gain: Interval) -> str:
    return f"{points(gain)} {'more' if gain.estimate >= 0 else 'less'}"


def memory(result: AdaptationResult, comparison: Comparison) -> str:
    """What a training step holds beside the weights: with the classifier trained alone, as a fraction of everything."""
    models = [model for model in comparison.by_macs if model in result.models]
    peaks = {model: result.first(model).timing.peak_memory_bytes for model in models}
    shares = [f"{ratio(peak['classifier'] / peak['all'])} ({model})" for model, peak in peaks.items()]
    return f"A step that trains the classifier alone takes {listed(shares)} of the memory of a full step."


def _table(networks: Sequence[NetworkResult]) -> Table:
    """The accuracy of each network and candidate, and what its training takes."""
    pictures = sorted(networks[0].pictures)
    header = ["Network", "What is trained", *(f"Top-1, {number} per class" for number in pictures)]
    shown = [
        (network, method) for network in networks for method in NAMES if method in TRAINED or network.right(method)
    ]
    body = [_accuracies(network, method, pictures) for network, method in shown]
    costs = [_costs(network, method) for network, method in shown]
    for (title, units), values in zip(COSTS, zip(*costs, strict=True), strict=True):
        if any(value is not None for value in values):  # else the note says so
            header.append(title)
            for cells, cell in zip(body, measured_column(values, units), strict=True):
                cells.append(cell)
    return Table(SCENARIOS[networks[0].scenario], tuple(header), body, (0, 1))


def _accuracies(network: NetworkResult, method: Method, pictures: Sequence[int]) -> list[Cell]:
    cells = [Cell(network.model, style="network"), Cell(NAMES[method])]
    for number in pictures:
        value = network.accuracy(method, number if method in TRAINED else 0)
        cells.append(Cell(percent(value.estimate), (interval(value),)) if value else Cell("–"))
    return cells


def _costs(network: NetworkResult, method: Method) -> list[float | None]:
    """A training's COSTS; None: not measured, or nothing was trained."""
    if method == "general" or method == "restricted":
        return [None] * len(COSTS)
    cost = network.costs[method]
    joules = network.joules(method)
    return [
        cost.macs_per_picture,
        network.timing.peak_memory_bytes[method],
        cost.stored_bytes,
        network.seconds(method).median,
        joules.median if joules else None,
    ]


def _note(result: AdaptationResult) -> str:
    first = result.networks[0]
    machines = dict.fromkeys(str(network.timing.machine["cpu"]) for network in result.networks)
    is_measured = any(network.joules("all") for network in result.networks)
    energy = "" if is_measured else " Energy: not measured, this machine has no counter."
    return (
        f"Top-1 on the validation pictures of {first.draws} draws of {first.classes} classes; 95 % intervals "
        f"over draws and pictures. Fine-tuned for {first.steps} steps, trained from scratch for "
        f"{first.scratch_steps}, on at most {first.batch_size} pictures each, on one thread of "
        f"{' or '.join(machines)}. Peak memory: of a step with {first.costs['all'].batch} pictures, beyond the "
        f"weights and pictures. To store: what training changes. Without training the number of pictures does not "
        f"matter.{energy}"
    )


def _chart(result: AdaptationResult, scenario: Scenario, comparison: Comparison) -> Chart:
    networks = result.of_scenario(scenario)
    pictures = sorted(networks[0].pictures)
    colour_of = colours(comparison.rows)
    lines = list[Line]()
    ends = dict[str, tuple[float, str]]()
    for network in networks:
        colour = colour_of[network.model]
        tuned = _line(network, "all", pictures, colour)
        lines += [tuned, _line(network, "scratch", pictures, colour)]
        ends[network.model] = (tuned.y[-1], colour)
    return Chart(
        f"adapt_{scenario}",
        SCENARIOS[scenario],
        "pictures of each class",
        (pictures[0], max(pictures[-1], pictures[0] + 1)),
        (0, 100),
        lines,
        labels=end_labels(ends, 100, Chart.height),
        ticks=pictures,
    )


def _line(network: NetworkResult, method: Trained, pictures: Sequence[int], colour: str) -> Line:
    accuracies = [accuracy for number in pictures if (accuracy := network.accuracy(method, number))]
    y = [100 * accuracy.estimate for accuracy in accuracies]
    return Line(pictures, y, colour, f"{network.model}, {NAMES[method]}", dotted=method == "scratch")


def _layers(network: NetworkResult) -> Table:
    """What the forward pass keeps for the backward pass, by layer and by what is trained."""
    kept = {method: network.costs[method].saved_bytes_by_layer for method in PARTS}
    values = [size for by_layer in kept.values() for size in by_layer.values() if size]
    write = scale(values or [1], BYTES)
    body = [
        [Cell(layer), *(Cell(write(by_layer[layer]) if by_layer[layer] else "0") for by_layer in kept.values())]
        for layer in kept["all"]
    ]
    total = [Cell("all layers"), *(Cell(write(sum(by_layer.values()))) for by_layer in kept.values())]
    header = ("Layer", *(NAMES[method] for method in kept))
    batch = network.costs["all"].batch
    return Table(f"Kept for the backward pass of {batch} pictures", header, [*body, total])


CHART = (
    "Solid: everything fine-tuned. Dotted: everything trained from scratch. The number of pictures is on a logarithmic "
    "scale; the lines are only a guide to the eye."
)


EXPERIMENT = Experiment(
    id="adaptation",
    title=TITLE,
    choice="adapt=quick",
    result=AdaptationResult,
    load=load,
    section=section,
    summary=summary,
    lacking=read_lacking,
)
