"""The claims of the paper's introduction, which its experiments do not touch, and how each is judged here."""

from collections.abc import Callable

from frugalnet.adaptation.result import AdaptationResult, NetworkResult, difference
from frugalnet.comparison.compare import Evidence
from frugalnet.document.wording import human, listed, signed_points, with_interval
from frugalnet.paper.judging import Judge, Judgement, Outcome, outcome_of
from frugalnet.robustness.result import RobustnessResult
from frugalnet.robustness.section import one_pixel_rates

PEAK_MEMORY, ENERGY = "peak_memory_train_step_bytes", "energy_joules_per_training_image"
SAYS: dict[str, str] = {
    "one_pixel": "A single changed pixel can lead to a misclassification",
    "device_training": "Training on the device fits a network to the few kinds of input that it meets",
    "smaller_is_enough": "Trained on the device, a smaller network is enough",
    "power_and_memory": "Power and memory limit training on a device",
}


def _one_pixel(evidence: Evidence) -> Judgement | None:
    result = evidence.result(RobustnessResult)
    rates = one_pixel_rates(result) if result else {}
    shares = [f"{model} on {with_interval(one)}" for model, one in rates.items()]
    found: Outcome = "agrees" if all(one.estimate > 0 for one in rates.values()) else "undecided"
    return (f"fools {listed(shares)} of the pictures that all classify correctly", found) if rates else None


def _seen(evidence: Evidence) -> list[NetworkResult]:
    """The networks fine-tuned on classes that they know, the fewest MACs first."""
    result = evidence.result(AdaptationResult)
    if result is None:
        return []
    return [network for model in evidence.comparison.by_macs if (network := result.network("seen", model))]


def _device_training(evidence: Evidence) -> Judgement | None:
    found = next(iter(_seen(evidence)), None)
    gain = difference(found, ("all", found.most), found, ("restricted", 0)) if found else None
    if found is None or gain is None:
        return None
    text = f"{found.model}, fine-tuned on {found.classes} classes: {signed_points(gain.estimate)} points"
    text += f" ({signed_points(gain.low)} to {signed_points(gain.high)}) against only restricting its answers to these"
    return text, outcome_of(gain.estimate > 0) if gain.excludes_zero else "undecided"


def _smaller_is_enough(evidence: Evidence) -> Judgement | None:
    seen, macs = _seen(evidence), evidence.comparison.by_macs
    small, large = next(iter(seen), None), max(seen, key=lambda one: macs[one.model], default=None)
    if small is None or large is None or macs[small.model] == macs[large.model]:
        return None
    gap = difference(small, ("all", small.most), large, ("restricted", 0))
    if gap is None:
        return None
    text = f"{small.model}, fine-tuned, against {large.model} as it is: {signed_points(gap.estimate)} points"
    text += f" ({signed_points(gap.low)} to {signed_points(gap.high)}), among {small.classes} classes"
    return text, outcome_of(gap.low > 0) if gap.excludes_zero else "undecided"


def _power_and_memory(evidence: Evidence) -> Judgement | None:
    models, said, is_known = [*evidence.comparison.by_macs], [], False
    for model in dict.fromkeys((models[-1], models[0])):
        row = evidence.comparison.row(model)
        memory, joules = (row.cost.get(key) if row else None for key in (PEAK_MEMORY, ENERGY))
        energy = f"{human(joules)}J an image" if joules else "energy not measured"
        said.append(f"{model} {human(memory)}B, {energy}" if memory else f"{model} not measured")
        is_known = is_known or bool(memory)
    which = " of the networks with the most and the fewest MACs" if len(said) > 1 else ""
    return f"a training step{which}: {'; '.join(said)}", "not judged" if is_known else "not measured"


def _judge(decide: Callable[[Evidence], Judgement | None], rule: str) -> Judge:
    return Judge((), rule, decide, depends_on_training=False)


JUDGES: dict[str, Judge] = {
    "one_pixel": _judge(
        _one_pixel, "every network is fooled at least once; otherwise undecided, since the search is not exhaustive"
    ),
    "device_training": _judge(
        _device_training,
        "a higher accuracy of the network with the fewest MACs; undecided if the interval includes zero",
    ),
    "smaller_is_enough": _judge(
        _smaller_is_enough, "the network with the fewest MACs is more accurate; undecided if the interval includes zero"
    ),
    "power_and_memory": _judge(
        _power_and_memory, "not judged: memory and energy are reported, but the limits of a device are not known"
    ),
}
