"""What the paper (Tong, Cho and Sun, 2017) says, and how each claim is judged by what was measured here.

The paper gives no intervals and most of its figures are read off curves, so each claim carries the rule that decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from frugalnet.comparison.compare import Evidence
from frugalnet.document.wording import count
from frugalnet.paper import judges
from frugalnet.paper.judges import Case, Judgement, Outcome, near, training, validation

EASIEST = ("dugong", "trolleybus", "bell pepper", "scoreboard", "black widow")  # section 4.3
HARDEST = ("plunger", "Chihuahua", "reel", "bucket", "bow tie")  # section 4.3
PAPER_CLASSES = 200
PAPER_EPOCHS = 100
PAPER_RECIPE = "paper"
_AS_THE_PAPER = f"{PAPER_EPOCHS} epochs of recipe {PAPER_RECIPE}"
_OF_TRAINING = ("4.1", "4.3")  # sections on accuracy: their claims are tested only by networks trained as the paper's
_UNJUDGED = ("not tested", "not measured")


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, what was measured here, the outcome, and the rule that decided, as in comparison.json."""

    key: str  # stable: README chooses claims by it
    says: str
    section: str
    measured: str
    outcome: Outcome
    rule: str


@dataclass(frozen=True)
class Statement:
    """What the paper says, the rule by which it is judged, and the networks that it speaks of."""

    key: str
    section: str
    text: str
    rule: str
    judge: Callable[[Case], Judgement | None]
    models: tuple[str, ...] = ()


_PAIR = ("depthwise", "alexnet")
_SHORTCUTS = ("residual", "depthwise")
CLAIMS = (  # in the order of the paper, as a table
    Statement("one_pixel", "1", "A single changed pixel can lead to a misclassification",
              "every network is fooled at least once; otherwise undecided, since the search is not exhaustive",
              judges.one_pixel),
    Statement("device_training", "1", "Training on the device fits a network to the few kinds of input that it meets",
              "a higher accuracy of the network with the fewest MACs; undecided if the interval includes zero",
              judges.device_training),
    Statement("smaller_is_enough", "1", "Trained on the device, a smaller network is enough",
              "the network with the fewest MACs is more accurate; undecided if the interval includes zero",
              judges.smaller_is_enough),
    Statement("power_and_memory", "1", "Power and memory limit training on a device",
              "not judged: memory and energy are reported, but the limits of a device are not known",
              judges.power_and_memory),
    Statement("alexnet_training", "4.1", "The AlexNet-like network's training accuracy reaches about 96 %",
              "within 5 points", partial(near, figure=training, expected=0.96, within=0.05), ("alexnet",)),
    Statement("depthwise_training", "4.1", "The depthwise network's training accuracy is about 48 %",
              "within 5 points", partial(near, figure=training, expected=0.48, within=0.05), ("depthwise",)),
    Statement("residual_training", "4.1",
              "The residual network's training accuracy is slightly above the depthwise one's",
              "higher by at most 5 points; no interval, as training predictions are not stored",
              judges.slightly_higher_training, _SHORTCUTS),
    Statement("alexnet_overfits", "4.1", "The AlexNet-like network overfits severely (96 % minus 33 %: 63 points)",
              "within 10 points", partial(judges.gap_near, expected=0.63, within=0.10), ("alexnet",)),
    Statement("depthwise_overfits_less", "4.1", "The depthwise network overfits less (48 % minus 33 %: 15 points)",
              "a smaller gap than the other's", judges.smaller_gap, _PAIR),
    Statement("alexnet_validation", "4.1", "The AlexNet-like network's validation accuracy is limited to about 33 %",
              "within 2 points", partial(near, figure=validation, expected=0.33, within=0.02), ("alexnet",)),
    Statement("depthwise_validation", "4.1",
              "Validation accuracy is almost the same with and without depthwise convolutions",
              "within 2 points", partial(judges.higher_validation, least=-0.02, most=0.02), _PAIR),
    Statement("residual_validation", "4.1", "Shortcuts raise validation accuracy slightly",
              "higher by at most 5 points; undecided if the interval includes zero",
              partial(judges.higher_validation, least=0, most=0.05, is_significant=True), _SHORTCUTS),
    Statement("alexnet_parameters", "4.2", "The AlexNet-like network has 415,656 parameters",
              "the same number, by Keras's count (running mean and variance of batch norms included)",
              partial(judges.parameters, expected=415_656), ("alexnet",)),
    Statement("depthwise_parameters", "4.2", "The depthwise network has 74,818 parameters",
              "the same number, by Keras's count (running mean and variance of batch norms included)",
              partial(judges.parameters, expected=74_818), ("depthwise",)),
    Statement("residual_parameters", "4.2", "The residual network has as many parameters as the depthwise one",
              "the same number", judges.same_parameters, _SHORTCUTS),
    Statement("parameters_ratio", "4.2", "Depthwise convolutions reduce the parameters to about 18 %",
              "18 % after rounding", judges.parameters_ratio, _PAIR),
    Statement("epoch_seconds", "4.2", "An epoch takes 12 s instead of 34 s (35 % of the time) on a GTX 1080 Ti",
              "forward and backward passes, on a GPU: the ratio within a quarter of the paper's",
              judges.time_ratio, _PAIR),
    Statement("residual_seconds", "4.2", "Shortcuts make training slower at the same number of parameters",
              "forward and backward passes: a longer median; "
              "undecided if medians are within 2 % and the ranges overlap",
              judges.more_time, _SHORTCUTS),
    Statement("easiest_classes", "4.3", f"The easiest classes are {', '.join(EASIEST)}",
              "at least three of the five are in the easiest tenth; 1 is the easiest class",
              partial(judges.extreme_tenth, names=EASIEST, which="easiest"), ("alexnet",)),
    Statement("easiest_accuracy", "4.3", "These five reach about 70 % each",
              "within 10 points on average", partial(judges.mean_accuracy, names=EASIEST, expected=0.70), ("alexnet",)),
    Statement("hardest_classes", "4.3", f"The hardest classes are {', '.join(HARDEST)}",
              "at least three of the five are in the hardest tenth; 1 is the hardest class",
              partial(judges.extreme_tenth, names=HARDEST, which="hardest"), ("alexnet",)),
)  # fmt: skip


def judge(evidence: Evidence) -> list[Claim]:
    """Every claim with its outcome. "undecided": the evidence settles it neither way. "not tested": the networks were
    not trained, or times not measured, as in the paper. "not judged": the rule says why. "not measured": a network,
    the data or a measurement is missing."""
    return [_claim(statement, _judgement(statement, evidence)) for statement in CLAIMS]


def tested_by(claims: Sequence[Claim], others: Sequence[Claim]) -> list[Claim]:
    """The claims; those on training that could not be judged are taken from `others`, of the paper's recipe."""
    tested = {
        claim.key: replace(claim, measured=f"{claim.measured} after {_AS_THE_PAPER}")
        for claim in others
        if claim.section in _OF_TRAINING and claim.outcome not in _UNJUDGED
    }
    return [tested.get(claim.key, claim) if claim.outcome in _UNJUDGED else claim for claim in claims]


def _claim(statement: Statement, judgement: Judgement) -> Claim:
    says, rule = (text.replace(" %", "\u00a0%") for text in (statement.text, statement.rule))
    return Claim(statement.key, says, statement.section, judgement.measured, judgement.outcome, rule)


def _judgement(statement: Statement, evidence: Evidence) -> Judgement:
    comparison = evidence.comparison
    run = comparison.first.run
    if run.is_sample:
        return Judgement("sample data", "not measured")
    if run.num_classes != PAPER_CLASSES:
        return Judgement(f"{run.num_classes} of {PAPER_CLASSES} classes", "not measured")
    if absent := [model for model in statement.models if not comparison.row(model)]:
        return Judgement(f"{' and '.join(absent)} not evaluated", "not measured")
    rows = [row for model in statement.models if (row := comparison.row(model))]
    judgement = statement.judge(Case(evidence, rows))
    if judgement is None:
        return Judgement("not measured", "not measured")
    trained = dict.fromkeys(f"{count(row.epochs, 'epoch')} of recipe {row.recipe}" for row in rows)
    if statement.section in _OF_TRAINING and [*trained] != [_AS_THE_PAPER]:
        return Judgement(f"{judgement.measured} after {' and '.join(trained)}, not {_AS_THE_PAPER}", "not tested")
    return judgement
