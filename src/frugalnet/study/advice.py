"""The recommendation: which network to use, within a budget or without one, and whether that is more than chance."""

from collections.abc import Callable, Sequence

import numpy as np

from frugalnet.comparison.compare import Comparison, Evidence
from frugalnet.comparison.networks import Row
from frugalnet.document.blocks import Chooser, Limit
from frugalnet.document.wording import (
    BYTES,
    COUNT,
    MILLISECONDS,
    Units,
    human,
    human_bytes,
    interval,
    listed,
    percent,
    points,
    ratio,
    scale,
)
from frugalnet.export.section import Result as Exported
from frugalnet.metrics.statistics import pareto_front
from frugalnet.recommendation import COSTS, MORE, Budget, Candidate, Choice, Cost, choose, frugal, ranked
from frugalnet.study.cost import SLOWER

_IN_WORDS: dict[Cost, Callable[[float], str]] = {
    "macs": lambda count: f"{human(count)} MACs",
    "parameters": lambda count: f"{human(count)} parameters",
    "weights_bytes": lambda size: f"{human_bytes(size)} of weights",
    "latency_ms": lambda milliseconds: f"{milliseconds:.3g} ms per image",
    "memory_bytes": lambda size: f"{human_bytes(size)} of memory",
}
_FIELDS: dict[Cost, tuple[str, Units]] = {
    "macs": ("MACs per image", COUNT),
    "parameters": ("Parameters, trainable", COUNT),
    "weights_bytes": ("Weights", BYTES),
    "latency_ms": ("Latency, batch\u00a01", MILLISECONDS),
    "memory_bytes": ("Memory, ONNX file", BYTES),
}
_TRIED: tuple[Cost, ...] = ("macs", "weights_bytes", "latency_ms")  # on the page, whatever the budget
_FEW = 2  # networks that have a sentence each
_RAISED = f"{100 * (MORE - 1):.0f}\u00a0%"


def candidates(evidence: Evidence) -> list[Candidate]:
    """The networks compared, with what they cost. Memory is that of a process that runs the ONNX file."""
    exported = evidence.result(Exported)
    costs = {network.model: network.costs.formats.get("onnx") for network in exported.networks} if exported else {}
    memory = {model: cost.peak_memory_bytes for model, cost in costs.items() if cost}
    return [
        Candidate(
            name=row.model,
            top1=row.lead.mean,
            macs=row.macs,
            parameters=row.parameters_trainable,
            weights_bytes=row.weights_bytes,
            latency_ms=row.latency_ms.median if row.latency_ms else None,
            memory_bytes=memory.get(row.model),
        )
        for row in evidence.comparison.rows
    ]


def chooser(evidence: Evidence, budget: Budget) -> Chooser | None:
    """The networks and what they cost, for the reader to try budgets, which begin with this one; None for one network.

    MACs, weights and latency can be limited, and what the budget limits.
    """
    networks = ranked(candidates(evidence))
    if len(networks) == 1:
        return None
    figures = [f"{_reached(evidence.comparison, network)}" for network in networks]
    costs = {cost: [getattr(network, cost) for network in networks] for cost in COSTS}
    shown = [cost for cost in COSTS if cost in budget.limits or (cost in _TRIED and any(costs[cost]))]
    return Chooser([n.name for n in networks], figures, [_limit(c, costs[c], budget.limits.get(c)) for c in shown])


def _limit(cost: Cost, values: Sequence[float | None], most: float | None) -> Limit:
    title, units = _FIELDS[cost]
    unit = scale([value for value in (*values, most) if value is not None], units)
    costs = [None if value is None else value / unit.size for value in values]
    return Limit(title, unit.unit.strip(), costs, None if most is None else most / unit.size)


def advise(evidence: Evidence, budget: Budget) -> list[str]:
    """The recommendation in sentences, the most important first."""
    comparison = evidence.comparison
    networks = candidates(evidence)
    if budget.limits:
        return [*_within(comparison, networks, budget), _front(comparison)]
    return _without_limit(comparison, networks)


def no_better_than_guessing(comparison: Comparison) -> list[str]:
    """A sentence where even the best network is not significantly better than one class named for every image."""
    best = comparison.rows[0]
    counts = np.bincount(best.records[0].labels)
    guessed = 1 / len(best.classes) if best.macro_interval else float(counts.max() / counts.sum())
    if best.lead_interval.low > guessed:
        return []
    return [
        f"No network is significantly better than guessing: one class for every image has {percent(guessed)} "
        f"{best.measure.name}. Train for more epochs, or on more images, before you choose."
    ]


def _within(comparison: Comparison, networks: Sequence[Candidate], budget: Budget) -> list[str]:
    """The best network within the budget, the second, and what a little more would buy."""
    limits = listed([_IN_WORDS[cost](limit) for cost, limit in budget.limits.items()])
    choice = choose(networks, budget)
    if choice.fitting:
        best = choice.fitting[0]
        costs = listed([_IN_WORDS[cost](getattr(best, cost)) for cost in budget.limits])
        said = [f"Within {limits}, use {best.name}: {_reached(comparison, best)} with {costs}."]
        said.append(_second(comparison, choice))
    elif choice.closest:
        exceeded = budget.exceeded(choice.closest)
        excess = listed([f"{_IN_WORDS[c](budget.limits[c])} by {ratio(times - 1)}" for c, times in exceeded.items()])
        closest = f"The closest is {choice.closest.name}, which exceeds {excess}."
        said = [f"No network fits {limits}. {closest}"]
    else:
        said = [f"No network is known to fit {limits}."]
    said.append(_beyond(comparison, networks, choice, budget))
    if choice.unknown:
        names = listed([network.name for network in choice.unknown])
        said.append(f"Left out, because a limited cost was not measured: {names}.")
    return [sentence for sentence in said if sentence]


def _second(comparison: Comparison, choice: Choice) -> str:
    """How sure the order is of the two best networks that fit."""
    if len(choice.fitting) == 1:
        return "No other network fits." if len(comparison.rows) > 1 else "No other network is evaluated."
    best, second, *_ = choice.fitting
    lead = comparison.difference(best.name, second.name)
    real = "is" if lead.excludes_zero else "is not"
    return f"The second that fits, {second.name}, {real} significantly worse: {points(lead)} less."


def _beyond(comparison: Comparison, networks: Sequence[Candidate], choice: Choice, budget: Budget) -> str:
    """Which more accurate network would fit if one limit were higher."""
    best = choice.fitting[0] if choice.fitting else None
    cost = budget.just_beyond(choice.next) if choice.next else None
    if choice.next and cost:
        raised = _IN_WORDS[cost](MORE * budget.limits[cost])
        higher = f"With {raised}, a limit {_RAISED} higher, {choice.next.name} would fit"
        if best is None:
            return f"{higher}: {_reached(comparison, choice.next)}."
        gain = comparison.difference(choice.next.name, best.name)
        if gain.excludes_zero:
            reached = f"{percent(choice.next.top1)} {comparison.measure.name}"
            return f"{higher}: {reached}, {points(gain)} more than {best.name}."
        return f"{higher}, which is not significantly different from {best.name}: {points(gain)} more."
    if best is None or len(networks) == 1:
        return ""
    if best == ranked(networks)[0]:
        return f"No other network is more accurate than {best.name}."
    return f"No more accurate network fits if {'a' if len(budget.limits) > 1 else 'the'} limit is {_RAISED} higher."


def _reached(comparison: Comparison, network: Candidate) -> str:
    row = comparison.row(network.name)
    assert row
    mean = f", mean of {len(row.seeds)} seeds" if len(row.seeds) > 1 else ""
    top1 = f" and {percent(row.top1.mean)} top-1" if row.macro_interval else ""
    return f"{percent(row.lead.mean)} {row.measure.name}{mean} (95\u00a0% interval {interval(row.lead_interval)}){top1}"


def _without_limit(comparison: Comparison, networks: Sequence[Candidate]) -> list[str]:
    """Which network to use if computation matters, which one if only accuracy counts."""
    best, *others = ranked(networks)
    reached = _reached(comparison, best)
    if not others:
        costs = f"{human(best.macs)} MACs per image"
        return [f"{best.name} reaches {reached} with {costs}. No other network is evaluated."]
    cheap = frugal(networks)
    further = [_front(comparison)]
    if others[0] != cheap:
        lead = comparison.difference(best.name, others[0].name)
        real = "is" if lead.excludes_zero else "is not"
        further.insert(0, f"Its lead over the second, {others[0].name}, {real} significant: {points(lead)}.")
    if cheap == best:
        costs = f"{human(best.macs)} MACs per image"
        return [f"Use {best.name}: it has the highest accuracy, {reached}, with {costs}.", *further]
    difference = comparison.difference(best.name, cheap.name)
    if difference.excludes_zero:
        only = f"If only accuracy counts, use {best.name}: {reached}, {points(difference)} more than {cheap.name}."
    else:
        only = (
            f"{best.name} reaches {reached}, which is not significantly different from {cheap.name}’s: "
            f"{points(difference)} more."
        )
    return [f"If computation matters, use {cheap.name}: {_kept(cheap, best)}.", only, *further]


def _kept(cheap: Candidate, best: Candidate) -> str:
    """What is left of the best network's accuracy, and at what cost."""
    share = cheap.top1 / best.top1
    kept = percent(share) if 0.995 <= share < 1 else ratio(share)  # 100 % is said only where nothing is lost
    macs = f"{ratio(cheap.macs / best.macs)} of its MACs ({human(cheap.macs)} instead of {human(best.macs)})"
    return f"it keeps {kept} of {best.name}’s accuracy with {macs}{_latency(cheap, best)}"


def _latency(cheap: Candidate, best: Candidate) -> str:
    """A gain is added, a loss is set against the rest."""
    if not (cheap.latency_ms and best.latency_ms):
        return ""
    shown = scale([cheap.latency_ms, best.latency_ms], MILLISECONDS)
    takes, instead = shown(cheap.latency_ms), shown(best.latency_ms)
    if 1 / SLOWER < cheap.latency_ms / best.latency_ms < SLOWER:
        return f" and takes about as long, {takes} per image"
    return f"{' and' if cheap.latency_ms < best.latency_ms else ', but'} takes {takes} instead of {instead} per image"


def _front(comparison: Comparison) -> str:
    """Which networks are Pareto-optimal, what dominates the others, and what of that is unclear."""
    rows = comparison.rows
    optimal = pareto_front(np.array([row.macs for row in rows], float), np.array([row.lead.mean for row in rows]))
    front = [row.model for row, is_optimal in zip(rows, optimal, strict=True) if is_optimal]
    dominated: list[str] = []
    unclear: dict[str, Row] = {}  # by name, and a network with no more MACs
    for row in (row for row in rows if row.model not in front):
        ahead = [r for r in rows if r.macs <= row.macs and r.lead.mean >= row.lead.mean and r is not row]
        clearly = next((r for r in ahead if comparison.difference(r.model, row.model).low > 0), None)
        if clearly:
            dominated.append(f"{row.model} by {clearly.model}")
        else:
            unclear[row.model] = ahead[0]
    sentences = [f"Pareto-optimal in accuracy and MACs: {listed(front)}."]
    if dominated:
        sentences.append(f"Dominated: {listed(dominated)}.")
    if len(unclear) > _FEW:
        pairs = listed([f"{model} ({other.model})" for model, other in unclear.items()])
        return " ".join([*sentences, f"Not significantly less accurate than another with no more MACs: {pairs}."])
    for model, other in unclear.items():
        more = "as many" if other.macs == comparison.by_macs[model] else "fewer"
        sentences.append(f"{model} is not significantly different from {other.model}, which has {more} MACs.")
    return " ".join(sentences)
