"""The paper's claims, each judged by what was measured here. Pure functions of a comparison.

Tong, Cho and Sun, 2017; each claim names the paper's section. The paper gives no intervals and most of its figures are
read off curves, so each claim carries the rule by which it is judged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from frugalnet.comparison.compare import Comparison, Evidence, Row
from frugalnet.document.wording import count, percent, points
from frugalnet.metrics.classes import ranks
from frugalnet.metrics.statistics import Interval, Quantiles
from frugalnet.paper import introduction
from frugalnet.paper.judging import Judge, Judgement, Outcome, outcome_of

EASIEST = ("dugong", "trolleybus", "bell pepper", "scoreboard", "black widow")  # section 4.3
HARDEST = ("plunger", "Chihuahua", "reel", "bucket", "bow tie")  # section 4.3
PAPER_CLASSES = 200
PAPER_EPOCHS = 100
PAPER_RECIPE = "paper"
_AS_THE_PAPER = f"{PAPER_EPOCHS} epochs of recipe {PAPER_RECIPE}"
SLIGHTLY_HIGHER = "higher by at most 5 points; undecided if the interval includes zero"
A_THIRD = "forward and backward passes, on a GPU: the ratio within a quarter of the paper's"
LONGER = "forward and backward passes: a longer median; undecided if medians are within 2 % and the ranges overlap"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, what was measured here, the outcome, and the rule that decided."""

    key: str  # stable: README chooses claims by it
    says: str
    section: str
    measured: str
    outcome: Outcome
    rule: str


def _parameters(model: str, expected: int) -> Judge:
    def decide(_: Comparison, row: Row) -> Judgement:
        off = row.parameters_keras - expected
        text = f"{row.parameters_keras:,} by Keras's count ({row.parameters_trainable:,} trainable)"
        return text + (f", {abs(off)} {'more' if off > 0 else 'fewer'}" if off else ""), outcome_of(off == 0)

    rule = "the same number, by Keras's count (running mean and variance of batch norms included)"
    return Judge((model,), rule, decide, depends_on_training=False)


def _same_parameters(first: str, second: str) -> Judge:
    def decide(_: Comparison, a: Row, b: Row) -> Judgement:
        return f"{a.parameters_keras:,} and {b.parameters_keras:,}", outcome_of(
            a.parameters_keras == b.parameters_keras
        )

    return Judge((first, second), "the same number", decide, depends_on_training=False)


def _parameter_ratio(first: str, second: str, expected_percent: int) -> Judge:
    def decide(_: Comparison, a: Row, b: Row) -> Judgement:
        ratio = a.parameters_keras / b.parameters_keras
        return percent(ratio, 2), outcome_of(round(100 * ratio) == expected_percent)

    return Judge((first, second), f"{expected_percent} % after rounding", decide, depends_on_training=False)


def _gap(row: Row) -> float:
    return row.train_top1.mean - row.top1.mean


def _gap_points(gap: float) -> str:
    return f"{100 * gap:.1f} points".replace("-", "−")


def _near(
    model: str, figure: Callable[[Row], float], expected: float, within: float, form: Callable[[float], str] = percent
) -> Judge:
    def decide(_: Comparison, row: Row) -> Judgement:
        return form(figure(row)), outcome_of(abs(figure(row) - expected) <= within)

    return Judge((model,), f"within {100 * within:.0f} points", decide)


def _slightly_higher_training(first: str, second: str) -> Judge:
    def decide(_: Comparison, a: Row, b: Row) -> Judgement:
        text = f"{percent(a.train_top1.mean)} and {percent(b.train_top1.mean)}"
        return text, outcome_of(0 < a.train_top1.mean - b.train_top1.mean <= 0.05)

    return Judge(
        (first, second), "higher by at most 5 points; no interval, as training predictions are not stored", decide
    )


def _smaller_gap(first: str, second: str) -> Judge:
    def decide(_: Comparison, a: Row, b: Row) -> Judgement:
        return f"{_gap_points(_gap(a))}, against {_gap_points(_gap(b))}", outcome_of(_gap(a) < _gap(b))

    return Judge((first, second), "a smaller gap than the other's", decide)


def _by_difference(first: str, second: str, rule: str, judge: Callable[[Interval], Outcome]) -> Judge:
    def decide(comparison: Comparison, a: Row, b: Row) -> Judgement:
        interval = comparison.difference(a.model, b.model)
        return f"{a.model} {'higher' if interval.estimate >= 0 else 'lower'} by {points(interval)}", judge(interval)

    return Judge((first, second), rule, decide)


def _almost_equal(interval: Interval) -> Outcome:
    return outcome_of(abs(interval.estimate) <= 0.02)


def _slightly_higher(interval: Interval) -> Outcome:
    return outcome_of(0 < interval.estimate <= 0.05) if interval.excludes_zero else "undecided"


def _by_times(
    first: str, second: str, rule: str, judge: Callable[[Quantiles, Quantiles], Outcome], on_gpu: bool = False
) -> Judge:
    """Judges by forward and backward passes, measured for all networks in alternating rounds.

    The paper compares epochs, but epochs of separate trainings may have run under different loads.
    """

    def decide(_: Comparison, a: Row, b: Row) -> Judgement | None:
        if not (a.train_step_ms and b.train_step_ms):
            return None
        times, other = a.train_step_ms, b.train_step_ms
        ratio = percent(times.median / other.median, 0)
        text = f"{times.median:,.1f} against {other.median:,.1f} ms forward and backward for a batch ({ratio})"
        if on_gpu and (device := a.cost["machine"]["device"]) != "cuda":
            return f"{text}, on {device}", "not tested"
        return text, judge(times, other)

    return Judge((first, second), rule, decide, depends_on_training=False)


def _a_third(first: Quantiles, second: Quantiles) -> Outcome:
    return outcome_of(abs(first.median / second.median / (12 / 34) - 1) <= 0.25)


def _longer(first: Quantiles, second: Quantiles) -> Outcome:
    apart = first.p5 > second.p95 or first.p95 < second.p5
    clear = apart or abs(first.median / second.median - 1) >= 0.02
    return outcome_of(first.median > second.median) if clear else "undecided"


def _in_extreme_tenth(model: str, names: Sequence[str], which: Literal["easiest", "hardest"]) -> Judge:
    def decide(_: Comparison, row: Row) -> Judgement | None:
        found = ranks(row.classes, names)
        if len(found) < len(names):
            return None
        places = [one.rank if which == "easiest" else one.from_hardest for one in found]
        text = ", ".join(f"{one.name} {place}" for one, place in zip(found, places, strict=True))
        return text, outcome_of(sum(place <= found[0].of // 10 for place in places) >= 3)

    return Judge((model,), f"at least three of the five are in the {which} tenth; 1 is the {which} class", decide)


def _mean_accuracy(model: str, names: Sequence[str], expected: float) -> Judge:
    def decide(_: Comparison, row: Row) -> Judgement | None:
        found = [one.accuracy for one in ranks(row.classes, names)]
        if not found:
            return None
        mean = sum(found) / len(found)
        return f"{', '.join(percent(one, 0) for one in found)}; {percent(mean)} on average", outcome_of(
            abs(mean - expected) <= 0.10
        )

    return Judge((model,), "within 10 points on average", decide)


SAYS: dict[str, dict[str, str]] = {  # what the paper says, by section and key
    "1": introduction.SAYS,
    "4.1": {
        "alexnet_training": "The AlexNet-like network's training accuracy reaches about 96 %",
        "depthwise_training": "The depthwise network's training accuracy is about 48 %",
        "residual_training": "The residual network's training accuracy is slightly above the depthwise one's",
        "alexnet_overfits": "The AlexNet-like network overfits severely (96 % minus 33 %: 63 points)",
        "depthwise_overfits_less": "The depthwise network overfits less (48 % minus 33 %: 15 points)",
        "alexnet_validation": "The AlexNet-like network's validation accuracy is limited to about 33 %",
        "depthwise_validation": "Validation accuracy is almost the same with and without depthwise convolutions",
        "residual_validation": "Shortcuts raise validation accuracy slightly",
    },
    "4.2": {
        "alexnet_parameters": "The AlexNet-like network has 415,656 parameters",
        "depthwise_parameters": "The depthwise network has 74,818 parameters",
        "residual_parameters": "The residual network has as many parameters as the depthwise one",
        "parameters_ratio": "Depthwise convolutions reduce the parameters to about 18 %",
        "epoch_seconds": "An epoch takes 12 s instead of 34 s (35 % of the time) on a GTX 1080 Ti",
        "residual_seconds": "Shortcuts make training slower at the same number of parameters",
    },
    "4.3": {
        "easiest_classes": f"The easiest classes are {', '.join(EASIEST)}",
        "easiest_accuracy": "These five reach about 70 % each",
        "hardest_classes": f"The hardest classes are {', '.join(HARDEST)}",
    },
}
JUDGES: dict[str, Judge] = {
    **introduction.JUDGES,
    "alexnet_training": _near("alexnet", lambda row: row.train_top1.mean, 0.96, 0.05),
    "depthwise_training": _near("depthwise", lambda row: row.train_top1.mean, 0.48, 0.05),
    "residual_training": _slightly_higher_training("residual", "depthwise"),
    "alexnet_overfits": _near("alexnet", _gap, 0.63, 0.10, _gap_points),
    "depthwise_overfits_less": _smaller_gap("depthwise", "alexnet"),
    "alexnet_validation": _near("alexnet", lambda row: row.top1.mean, 0.33, 0.02),
    "depthwise_validation": _by_difference("depthwise", "alexnet", "within 2 points", _almost_equal),
    "residual_validation": _by_difference("residual", "depthwise", SLIGHTLY_HIGHER, _slightly_higher),
    "alexnet_parameters": _parameters("alexnet", 415_656),
    "depthwise_parameters": _parameters("depthwise", 74_818),
    "residual_parameters": _same_parameters("residual", "depthwise"),
    "parameters_ratio": _parameter_ratio("depthwise", "alexnet", 18),
    "epoch_seconds": _by_times("depthwise", "alexnet", A_THIRD, _a_third, on_gpu=True),
    "residual_seconds": _by_times("residual", "depthwise", LONGER, _longer),
    "easiest_classes": _in_extreme_tenth("alexnet", EASIEST, "easiest"),
    "easiest_accuracy": _mean_accuracy("alexnet", EASIEST, 0.70),
    "hardest_classes": _in_extreme_tenth("alexnet", HARDEST, "hardest"),
}


def judge(evidence: Evidence) -> list[Claim]:
    """Every claim with its outcome. "undecided": the evidence settles it neither way. "not tested": the networks were
    not trained, or times not measured, as in the paper. "not judged": the rule says why. "not measured": a network,
    the data or a measurement is missing."""
    table = []
    for section, claims in SAYS.items():
        for key, text in claims.items():
            measured, outcome = _decided(evidence, JUDGES[key])
            says, rule = (t.replace(" %", "\u00a0%") for t in (text, JUDGES[key].rule))
            table.append(Claim(key, says, section, measured, outcome, rule))
    return table


def tested_by(claims: Sequence[Claim], others: Sequence[Claim]) -> list[Claim]:
    """The claims; those on training that could not be judged are taken from `others`, of the paper's recipe."""
    unjudged = ("not tested", "not measured")
    found = {one.key: one for one in others if JUDGES[one.key].depends_on_training and one.outcome not in unjudged}
    return [
        replace(found[one.key], measured=f"{found[one.key].measured} after {_AS_THE_PAPER}")
        if one.outcome in unjudged and one.key in found
        else one
        for one in claims
    ]


def _decided(evidence: Evidence, judge: Judge) -> Judgement:
    comparison = evidence.comparison
    run = comparison.first.run
    if run["is_sample"]:
        return "sample data", "not measured"
    if run["num_classes"] != PAPER_CLASSES:
        return f"{run['num_classes']} of {PAPER_CLASSES} classes", "not measured"
    rows = [row for model in judge.models if (row := comparison.row(model))]
    if len(rows) < len(judge.models):
        absent = [model for model in judge.models if not comparison.row(model)]
        return f"{' and '.join(absent)} not evaluated", "not measured"
    judgement = judge.decide(comparison, *rows) if judge.models else judge.decide(evidence)
    if judgement is None:
        return "not measured", "not measured"
    trained = dict.fromkeys(f"{count(row.epochs, 'epoch')} of recipe {row.recipe}" for row in rows)
    if judge.depends_on_training and list(trained) != [_AS_THE_PAPER]:
        return f"{judgement[0]} after {' and '.join(trained)}, not {_AS_THE_PAPER}", "not tested"
    return judgement
