"""What training on a device was worth: the outcomes of the stage `adapt`, as figures and sentences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalnet.adaptation.draws import over_draws
from frugalnet.document.wording import count, listed, points, ratio, with_interval
from frugalnet.errors import UserError
from frugalnet.files import read_json
from frugalnet.metrics.statistics import Interval, Quantiles, quantiles

TRAINED = ("classifier", "norms", "blocks", "all", "scratch")


@dataclass(frozen=True)
class Adapted:
    """A network in one scenario: its adapt.json and its timing.json."""

    found: dict[str, Any]
    timing: dict[str, Any]

    @property
    def model(self) -> str:
        return str(self.found["model"])

    @property
    def scenario(self) -> str:
        return str(self.found["scenario"])

    def right(self, method: str, pictures: int = 0) -> list[NDArray[np.float64]]:
        """For each draw (N,): 1 where the picture was classified correctly, else 0. Empty if it was not tried.

        pictures: of each class, that were trained on; 0 for what was not trained.
        """
        of = sorted(
            (one for one in self.found["outcomes"] if (one["method"], one["pictures"]) == (method, pictures)),
            key=lambda one: one["draw"],
        )
        return [np.array([*one["right"]], dtype=np.float64) for one in of]

    def accuracy(self, method: str, pictures: int = 0) -> Interval | None:
        """Top-1 among the drawn classes; for the general network as it is, among all."""
        right = self.right(method, pictures)
        return over_draws(right) if right else None

    def seconds(self, method: str) -> Quantiles:
        return quantiles([one["seconds"] for one in self.timing["trainings"] if one["method"] == method])

    def joules(self, method: str) -> Quantiles | None:
        measured = [one["joules"] for one in self.timing["trainings"] if one["method"] == method]
        return None if None in measured else quantiles(measured)

    @property
    def most(self) -> int:
        """The largest number of pictures a class."""
        return int(max(self.found["pictures"]))


def read_adapted(results: Path) -> list[Adapted]:
    """What the stages `adapt` measured, by scenario and model. Raises UserError if a file is damaged or missing.

    Training from scratch, which one scenario holds, is told in the others too.
    """
    found = []
    for path in sorted((results / "adapt").glob("*/adapt.json")):
        adapted = Adapted(read_json(path), read_json(results / "adapt_timing" / path.parent.name / "timing.json"))
        found += [adapted] if adapted.found["measured"] else []
    complete = {one.model: one for one in found if one.right("scratch", one.most)}
    if lacking := sorted({one.model for one in found} - complete.keys()):
        raise UserError(f"{results / 'adapt'}: no training from scratch of {', '.join(lacking)}: run `dvc repro`")
    found = [one if one.right("scratch", one.most) else _with_scratch(one, complete[one.model]) for one in found]
    return sorted(found, key=lambda one: (one.scenario, one.model))


def _with_scratch(one: Adapted, other: Adapted) -> Adapted:
    """One scenario's outcomes with those of training from scratch from another scenario of the same network."""
    outcomes, trainings = (
        [*mine, *(line for line in theirs if line["method"] == "scratch")]
        for mine, theirs in (
            (one.found["outcomes"], other.found["outcomes"]),
            (one.timing["trainings"], other.timing["trainings"]),
        )
    )
    return Adapted(one.found | {"outcomes": outcomes}, one.timing | {"trainings": trainings})


def difference(first: Adapted, method: tuple[str, int], second: Adapted, other: tuple[str, int]) -> Interval | None:
    """How much more accurate one is than the other on the same pictures of the same classes; None if not measured."""
    a, b = first.right(*method), second.right(*other)
    if not a or not b or first.found["drawn"] != second.found["drawn"]:
        return None
    return over_draws([x - y for x, y in zip(a, b, strict=True)])


def of(adapted: Iterable[Adapted], scenario: str, model: str) -> Adapted | None:
    return next((one for one in adapted if (one.scenario, one.model) == (scenario, model)), None)


def verdict(adapted: Sequence[Adapted], by_macs: Mapping[str, int]) -> list[str]:
    """Sentences: is it worth training on the device, and is a small network enough there?

    by_macs: the MACs of each model, the fewest first.
    """
    models = [model for model in by_macs if any(one.model == model for one in adapted)]
    if not models:
        return []
    small, large = models[0], max(models, key=lambda model: by_macs[model])
    found, seen, unseen = list[str](), of(adapted, "seen", small), of(adapted, "unseen", small)
    if seen:
        classes = count(seen.found["classes"], "class", "classes")
        general, restricted = seen.accuracy("general"), seen.accuracy("restricted")
        gain = difference(seen, ("all", seen.most), seen, ("restricted", 0))
        assert general
        assert restricted
        assert gain
        found.append(
            f"On a device that meets {classes}, {small} goes from {with_interval(general)} to "
            f"{with_interval(restricted)} by choosing among these alone, without any training. {_trained(seen, gain)}"
        )
    if unseen:
        most = unseen.most
        tuned, gain = unseen.accuracy("all", most), difference(unseen, ("all", most), unseen, ("scratch", most))
        assert tuned
        assert gain
        what = "more than" if gain.estimate >= 0 else "less than"
        unless = "" if gain.excludes_zero else ", which is not significant"
        found.append(
            f"On classes that it has never seen, {small} reaches {with_interval(tuned)} after fine-tuning on "
            f"{most} pictures of each: {points(gain)} {what} from scratch{unless}."
        )
    largest = of(adapted, "seen", large)
    if seen and largest and by_macs[small] < by_macs[large]:
        gap = difference(seen, ("all", seen.most), largest, ("restricted", 0))
        if gap:
            enough = "is enough" if gap.low > 0 else "falls short" if gap.high < 0 else "may be enough"
            found.append(f"A smaller network {enough}: {small}, fine-tuned, {_against(gap, large)}.")
    return found


def _trained(seen: Adapted, gain: Interval) -> str:
    what = "Fine-tuning all of it on " + count(seen.most, "picture") + " of each, taken from its training set,"
    if not gain.excludes_zero:
        return f"{what} makes no significant difference: {_more_or_less(gain)}."
    return f"{what} {'adds' if gain.estimate > 0 else 'costs'} {points(gain)}."


def _more_or_less(gain: Interval) -> str:
    return f"{points(gain)} {'more' if gain.estimate >= 0 else 'less'}"


def _against(gap: Interval, large: str) -> str:
    if not gap.excludes_zero:
        return f"is not significantly different from {large} as it is, among the same classes: {_more_or_less(gap)}"
    return f"is {points(gap)} {'above' if gap.estimate > 0 else 'below'} {large} as it is, among the same classes"


def memory(adapted: Sequence[Adapted], by_macs: Mapping[str, int]) -> str:
    """What a training step holds beside the weights, everything trained against the classifier alone."""
    shares = []
    for model in by_macs:
        peaks: dict[str, Any] = next((one.timing["peak_memory_bytes"] for one in adapted if one.model == model), {})
        if peaks.get("all") and peaks.get("classifier"):
            shares.append(f"{ratio(peaks['classifier'] / peaks['all'])} ({model})")
    return (
        f"A step that trains the classifier alone takes {listed(shares)} of the memory of a full step."
        if shares
        else ""
    )


def summary(adapted: Sequence[Adapted], by_macs: Mapping[str, int]) -> dict[str, Any]:
    """Every figure of the section that holds no time, ready for JSON."""
    networks: dict[str, dict[str, Any]] = {}
    for one in adapted:
        figures: dict[str, Any] = {}
        for method, pictures in sorted({(o["method"], o["pictures"]) for o in one.found["outcomes"]}):
            value = one.accuracy(method, pictures)
            assert value
            figures[f"{method}_{pictures}" if pictures else method] = vars(value)
        networks.setdefault(one.scenario, {})[one.model] = figures
    scope = {key: adapted[0].found[key] for key in ("seed", "draws", "classes", "pictures", "steps", "scratch_steps")}
    return {**scope, "verdict": verdict(adapted, by_macs), "networks": networks}
