"""The judges of the paper's claims: functions of what was measured; None if what they need was not.

Whether a case may be judged at all (the data, the recipe) is decided before, in `claims`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from frugalnet.adaptation.result import AdaptationResult, difference
from frugalnet.adaptation.result import NetworkResult as FineTuned
from frugalnet.comparison.compare import Evidence
from frugalnet.comparison.networks import Row
from frugalnet.document.wording import JOULES, human, listed, percent, points, scale, signed_points, with_interval
from frugalnet.metrics.classes import ranks
from frugalnet.metrics.statistics import Interval, Quantiles
from frugalnet.robustness.result import RobustnessResult
from frugalnet.robustness.section import one_pixel_rates

Outcome = Literal["agrees", "differs", "undecided", "not tested", "not judged", "not measured"]
PAPERS_RATIO = 12 / 34  # of the seconds of an epoch, with and without depthwise convolutions (section 4.2)
PEAK_MEMORY = "peak_memory_train_step_bytes"
ENERGY = "energy_joules_per_training_image"


class Judgement(NamedTuple):
    """What was measured, in words, and the outcome."""

    measured: str
    outcome: Outcome


@dataclass(frozen=True)
class Case:
    """What a claim is judged by. rows: of the networks that it speaks of, in its order."""

    evidence: Evidence
    rows: Sequence[Row]


def agreement(agrees: bool) -> Outcome:
    return "agrees" if agrees else "differs"


def sign(interval: Interval) -> Outcome:
    """Whether a difference is above zero; undecided if its interval includes zero."""
    return agreement(interval.low > 0) if interval.excludes_zero else "undecided"


def parameters(case: Case, expected: int) -> Judgement:
    (row,) = case.rows
    more = row.parameters_keras - expected
    text = f"{row.parameters_keras:,} by Keras's count ({row.parameters_trainable:,} trainable)"
    off = f", {abs(more)} {'more' if more > 0 else 'fewer'}" if more else ""
    return Judgement(text + off, agreement(more == 0))


def same_parameters(case: Case) -> Judgement:
    first, second = (row.parameters_keras for row in case.rows)
    return Judgement(f"{first:,} and {second:,}", agreement(first == second))


def parameters_ratio(case: Case) -> Judgement:
    first, second = (row.parameters_keras for row in case.rows)
    return Judgement(percent(first / second, 2), agreement(round(100 * first / second) == 18))


def training(row: Row) -> float:
    return row.train_top1.mean


def validation(row: Row) -> float:
    return row.top1.mean


def gap(row: Row) -> float:
    return training(row) - validation(row)


def in_points(value: float) -> str:
    return f"{100 * value:z.1f} points".replace("-", "−")


def near(case: Case, figure: Callable[[Row], float], expected: float, within: float) -> Judgement:
    (value,) = map(figure, case.rows)
    return Judgement(percent(value), agreement(abs(value - expected) <= within))


def gap_near(case: Case, expected: float, within: float) -> Judgement:
    (value,) = map(gap, case.rows)
    return Judgement(in_points(value), agreement(abs(value - expected) <= within))


def slightly_higher_training(case: Case) -> Judgement:
    first, second = map(training, case.rows)
    return Judgement(f"{percent(first)} and {percent(second)}", agreement(0 < first - second <= 0.05))


def smaller_gap(case: Case) -> Judgement:
    first, second = map(gap, case.rows)
    return Judgement(f"{in_points(first)}, against {in_points(second)}", agreement(first < second))


def higher_validation(case: Case, least: float, most: float, is_significant: bool = False) -> Judgement:
    """Whether the first is more accurate by `least` to `most`, and, if so asked, its interval excludes zero."""
    first, second = (row.model for row in case.rows)
    interval = case.evidence.comparison.difference(first, second)
    text = f"{first} {'higher' if interval.estimate >= 0 else 'lower'} by {points(interval)}"
    if is_significant and not interval.excludes_zero:
        return Judgement(text, "undecided")
    return Judgement(text, agreement(least <= interval.estimate <= most))


def time_ratio(case: Case) -> Judgement | None:
    """By forward and backward passes: epochs of separate trainings may have run under different loads."""
    first, second = (row.train_step_ms for row in case.rows)
    if not (first and second):
        return None
    device = case.rows[0].cost["machine"]["device"]
    if device in ("cpu", "mps"):  # else it is a GPU's name
        return Judgement(f"{_times(first, second)}, on {device}", "not tested")
    ratio = first.median / second.median
    return Judgement(_times(first, second), agreement(abs(ratio / PAPERS_RATIO - 1) <= 0.25))


def more_time(case: Case) -> Judgement | None:
    """By forward and backward passes, too."""
    first, second = (row.train_step_ms for row in case.rows)
    if not (first and second):
        return None
    is_apart = first.p5 > second.p95 or first.p95 < second.p5
    is_clear = is_apart or abs(first.median / second.median - 1) >= 0.02
    return Judgement(_times(first, second), agreement(first.median > second.median) if is_clear else "undecided")


def _times(first: Quantiles, second: Quantiles) -> str:
    ratio = percent(first.median / second.median, 0)
    return f"{first.median:,.1f} against {second.median:,.1f} ms forward and backward for a batch ({ratio})"


def extreme_tenth(case: Case, names: Sequence[str], which: Literal["easiest", "hardest"]) -> Judgement | None:
    """Whether at least three of the named classes are in the easiest or hardest tenth of all."""
    ranked = ranks(case.rows[0].classes, names)
    if len(ranked) < len(names):
        return None
    places = {rank.name: rank.rank if which == "easiest" else rank.from_hardest for rank in ranked}
    extreme = [place for place in places.values() if place <= ranked[0].count // 10]
    return Judgement(", ".join(f"{name} {place}" for name, place in places.items()), agreement(len(extreme) >= 3))


def mean_accuracy(case: Case, names: Sequence[str], expected: float) -> Judgement | None:
    accuracies = [rank.accuracy for rank in ranks(case.rows[0].classes, names)]
    if not accuracies:
        return None
    mean = sum(accuracies) / len(accuracies)
    each = ", ".join(percent(accuracy, 0) for accuracy in accuracies)
    return Judgement(f"{each}; {percent(mean)} on average", agreement(abs(mean - expected) <= 0.10))


def one_pixel(case: Case) -> Judgement | None:
    result = case.evidence.result(RobustnessResult)
    rates = one_pixel_rates(result) if result else {}
    if not rates:
        return None
    shares = listed([f"{model} on {with_interval(rate)}" for model, rate in rates.items()])
    is_fooled = all(rate.estimate > 0 for rate in rates.values())
    text = f"fools {shares} of the pictures that all classify correctly"
    return Judgement(text, "agrees" if is_fooled else "undecided")


def _fine_tuned(evidence: Evidence) -> list[FineTuned]:
    """The networks fine-tuned on classes that they know, the fewest MACs first."""
    result = evidence.result(AdaptationResult)
    if result is None:
        return []
    return [network for model in evidence.comparison.by_macs if (network := result.network("seen", model))]


def _gain(tuned: FineTuned, other: FineTuned) -> Interval | None:
    """Top-1 of a network, fine-tuned, minus that of another whose answers are only restricted to the same classes."""
    return difference(tuned, ("all", tuned.most), other, ("restricted", 0))


def _signed(gain: Interval) -> str:
    low, high = signed_points(gain.low), signed_points(gain.high)
    return f"{signed_points(gain.estimate)} points ({low} to {high})"


def device_training(case: Case) -> Judgement | None:
    networks = _fine_tuned(case.evidence)
    gain = _gain(networks[0], networks[0]) if networks else None
    if gain is None:
        return None
    trained = f"{networks[0].model}, fine-tuned on {networks[0].classes} classes"
    return Judgement(f"{trained}: {_signed(gain)} against only restricting its answers to these", sign(gain))


def smaller_is_enough(case: Case) -> Judgement | None:
    networks = _fine_tuned(case.evidence)
    macs = case.evidence.comparison.by_macs
    if not networks or macs[networks[0].model] == macs[networks[-1].model]:
        return None
    small = networks[0]
    large = max(networks, key=lambda network: macs[network.model])
    gain = _gain(small, large)
    if gain is None:
        return None
    text = f"{small.model}, fine-tuned, against {large.model} as it is: {_signed(gain)}"
    return Judgement(f"{text}, among {small.classes} classes", sign(gain))


def power_and_memory(case: Case) -> Judgement:
    ordered = sorted(case.evidence.comparison.rows, key=lambda row: (row.macs, -row.top1.mean))
    extremes = [ordered[-1], ordered[0]] if len(ordered) > 1 else ordered
    which = " of the networks with the most and the fewest MACs" if len(ordered) > 1 else ""
    is_known = any(row.cost.get(PEAK_MEMORY) for row in extremes)
    text = f"a training step{which}: {'; '.join(_step_cost(row) for row in extremes)}"
    return Judgement(text, "not judged" if is_known else "not measured")


def _step_cost(row: Row) -> str:
    memory = row.cost.get(PEAK_MEMORY)
    joules = row.cost.get(ENERGY)
    energy = f"{scale([joules], JOULES)(joules)} an image" if joules else "energy not measured"
    return f"{row.model} {human(memory)}B, {energy}" if memory else f"{row.model} not measured"
