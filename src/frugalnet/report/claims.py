"""The paper's claims beside what was measured: pure functions of a comparison.

Tong, Cho and Sun, 2017; the sections are given with each claim. The paper gives no intervals and reads most figures
off curves, so every claim carries the rule by which it is judged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from frugalnet.report.comparison import Comparison, Measured, Row
from frugalnet.report.wording import percent, points

Outcome = Literal["agrees", "differs", "undecided", "not measured"]

EASIEST = ("dugong", "trolleybus", "bell pepper", "scoreboard", "black widow")  # section 4.3
HARDEST = ("plunger", "Chihuahua", "reel", "bucket", "bow tie")  # section 4.3
_PAPER_CLASSES = 200
_PAPER_EPOCHS = 100


@dataclass(frozen=True)
class Claim:
    """What the paper says, what was measured here, whether they agree, and the rule that decided."""

    says: str
    section: str
    measured: str
    outcome: Outcome
    rule: str


@dataclass(frozen=True)
class Rank:
    """Where one of the paper's ten classes stands here: rank 1 is the easiest of `of` classes, from_hardest 1 the
    hardest; ties share the better place."""

    name: str
    accuracy: float
    rank: int
    from_hardest: int
    of: int


def ranks(comparison: Comparison, row: Row, names: tuple[str, ...]) -> list[Rank]:
    """The place by accuracy of each named class that the data have."""
    classes = [one for one in comparison.classes(row) if one.accuracy is not None]
    found = {one.name.casefold(): one.accuracy for one in classes if one.accuracy is not None}
    return [
        Rank(
            name,
            own,
            1 + sum(other > own for other in found.values()),
            1 + sum(other < own for other in found.values()),
            len(found),
        )
        for name in names
        if (own := found.get(name.casefold())) is not None
    ]


def claims(comparison: Comparison) -> list[Claim]:
    """One row a claim. "undecided": an interval that spans zero; "not measured": a network or the data are not here."""
    run = comparison.first.run
    missing = ""
    if run["is_sample"]:
        missing = "sample data"
    elif run["num_classes"] != _PAPER_CLASSES:
        missing = f"{run['num_classes']} of {_PAPER_CLASSES} classes"
    rows = {model: comparison.row(model) for model in ("alexnet", "depthwise", "residual")}

    table: list[Claim] = []

    def claim(
        says: str, section: str, rule: str, models: tuple[str, ...], judge: Callable[..., tuple[str, Outcome] | None]
    ) -> None:
        present = [found for model in models if (found := rows[model]) is not None]
        absent = [model for model in models if rows[model] is None]
        reason = missing or (f"{' and '.join(absent)} not evaluated" if absent else "")
        verdict = None if reason else judge(*present)
        text, outcome = verdict or (reason or "not measured", "not measured")
        table.append(Claim(says, section, text, outcome, rule))

    def counts(expected: int) -> Callable[[Row], tuple[str, Outcome]]:
        def judge(row: Row) -> tuple[str, Outcome]:
            off = row.parameters_keras - expected
            text = f"{row.parameters_keras:,} in Keras's count ({row.parameters_trainable:,} trainable)"
            return text + (f", {abs(off)} {'more' if off > 0 else 'fewer'}" if off else ""), agree(off == 0)

        return judge

    exact = "the same number, in Keras's count (running mean and variance of batch norms included)"
    claim("The AlexNet-like network has 415,656 parameters", "4.2", exact, ("alexnet",), counts(415_656))
    claim("The depthwise network has 74,818 parameters", "4.2", exact, ("depthwise",), counts(74_818))
    claim(
        "The residual network has as many parameters as the depthwise one",
        "4.2",
        "the same number",
        ("residual", "depthwise"),
        lambda r, d: (
            f"{r.parameters_keras:,} and {d.parameters_keras:,}",
            agree(r.parameters_keras == d.parameters_keras),
        ),
    )
    claim(
        "Depthwise convolutions bring the parameters to about 18\u00a0%",
        "4.2",
        "18\u00a0% after rounding",
        ("depthwise", "alexnet"),
        lambda d, a: (
            percent(d.parameters_keras / a.parameters_keras, 2),
            agree(round(100 * d.parameters_keras / a.parameters_keras) == 18),
        ),
    )

    def after(row: Row) -> str:
        paper = row.epochs == _PAPER_EPOCHS and row.recipe == "paper"
        theirs = "" if paper else f" (the paper: {_PAPER_EPOCHS} of its own)"
        return f"after {row.epochs} epochs of recipe {row.recipe}{theirs}"

    def about(expected: float, tolerance: float, get: Callable[[Row], float]) -> Callable[[Row], tuple[str, Outcome]]:
        return lambda row: (f"{percent(get(row))} {after(row)}", agree(abs(get(row) - expected) <= tolerance))

    online = "within 5 points; training accuracy is counted on the augmented images, while the epoch's weights change"
    train = _train_top1
    claim(
        "The AlexNet-like network's training accuracy reaches about 96\u00a0%",
        "4.1",
        online,
        ("alexnet",),
        about(0.96, 0.05, train),
    )
    claim(
        "The depthwise network's training accuracy is about 48\u00a0%",
        "4.1",
        online,
        ("depthwise",),
        about(0.48, 0.05, train),
    )
    claim(
        "The residual network's training accuracy is slightly above the depthwise one's",
        "4.1",
        "above by at most 5 points; training predictions are not stored, so there is no interval",
        ("residual", "depthwise"),
        lambda r, d: (
            f"{percent(train(r))} and {percent(train(d))} {after(r)}",
            agree(0 < train(r) - train(d) <= 0.05),
        ),
    )
    claim(
        "The AlexNet-like network overfits severely (96 against 33\u00a0%: 63 points, by subtraction)",
        "4.1",
        "within 10 points",
        ("alexnet",),
        lambda a: (f"{_points(_gap(a))} points {after(a)}", agree(abs(_gap(a) - 0.63) <= 0.10)),
    )
    claim(
        "The depthwise network overfits less (48 against 33\u00a0%: 15 points; by subtraction, not said)",
        "4.1",
        "a smaller gap than the AlexNet-like network's",
        ("depthwise", "alexnet"),
        lambda d, a: (f"{_points(_gap(d))} points, against {_points(_gap(a))}", agree(_gap(d) < _gap(a))),
    )
    claim(
        "The AlexNet-like network's validation accuracy is limited to about 33\u00a0%",
        "4.1",
        "within 2 points",
        ("alexnet",),
        about(0.33, 0.02, lambda row: row.top1.mean),
    )

    def equal(d: Row, a: Row) -> tuple[str, Outcome] | None:
        interval = comparison.difference(d.model, a.model)
        if interval is None:
            return None
        which = "higher" if interval.estimate > 0 else "lower"
        return f"depthwise {which} by {points(interval)}", agree(abs(interval.estimate) <= 0.02)

    claim(
        "Validation accuracy is almost the same with and without depthwise convolutions",
        "4.1",
        "within 2 points",
        ("depthwise", "alexnet"),
        equal,
    )

    def slightly(r: Row, d: Row) -> tuple[str, Outcome] | None:
        interval = comparison.difference(r.model, d.model)
        if interval is None:
            return None
        text = f"residual {'higher' if interval.estimate > 0 else 'lower'} by {points(interval)}"
        return text, agree(0 < interval.estimate <= 0.05) if interval.excludes_zero else "undecided"

    claim(
        "Shortcuts raise validation accuracy slightly",
        "4.1",
        "higher by at most 5 points; undecided where the interval spans zero",
        ("residual", "depthwise"),
        slightly,
    )

    def by_times(one: Row, other: Row, judge: Callable[[Measured, Measured], Outcome]) -> tuple[str, Outcome] | None:
        """Judged by both: epochs are what the claims are about, but two runs trained at different times met different
        loads; forward and backward passes were measured in alternating rounds, but leave out data and optimiser."""
        texts, outcomes = [], set()
        for key, what, alike in (
            ("epoch_seconds", "s an epoch", comparison.trained_alike),
            ("train_step_ms", "ms forward and backward", comparison.measured_alike),
        ):
            first, second = getattr(one, key), getattr(other, key)
            if first is None or second is None:
                continue
            if not alike(one.model, other.model):
                texts.append(f"{what}: different machines, versions or numbers of threads")
                continue
            share = percent(first.median / second.median, 0)
            texts.append(f"{first.median:,.1f} against {second.median:,.1f} {what} ({share})")
            outcomes.add(judge(first, second))
        if not texts:
            return None
        return "; ".join(texts), outcomes.pop() if len(outcomes) == 1 else "undecided" if outcomes else "not measured"

    def a_third(depthwise: Measured, alexnet: Measured) -> Outcome:
        return agree(abs(depthwise.median / alexnet.median / (12 / 34) - 1) <= 0.25)

    claim(
        "An epoch takes 12 s instead of 34 s (35\u00a0% of the time) on a GTX 1080 Ti",
        "4.2",
        "the share within a quarter (the paper's machine is another); undecided where epoch and passes differ in this",
        ("depthwise", "alexnet"),
        lambda d, a: by_times(d, a, a_third),
    )

    def longer(residual: Measured, plain: Measured) -> Outcome:
        apart = residual.p5 > plain.p95 or residual.p95 < plain.p5
        clear = apart or abs(residual.median / plain.median - 1) >= 0.02
        return agree(residual.median > plain.median) if clear else "undecided"

    claim(
        "Shortcuts make training slower, though the parameters are as many",
        "4.2",
        "a longer median; undecided where medians are within 2\u00a0% and the 5th to 95th percentiles overlap, "
        "and where epoch and passes differ in this",
        ("residual", "depthwise"),
        lambda r, d: by_times(r, d, longer),
    )

    def among(names: tuple[str, ...], easiest: bool) -> Callable[[Row], tuple[str, Outcome] | None]:
        def judge(row: Row) -> tuple[str, Outcome] | None:
            found = ranks(comparison, row, names)
            if len(found) < len(names):
                return None
            places = [one.rank if easiest else one.from_hardest for one in found]
            text = ", ".join(f"{one.name} {place}" for one, place in zip(found, places, strict=True))
            return text, agree(sum(place <= found[0].of // 10 for place in places) >= 3)

        return judge

    claim(
        f"The easiest classes are {', '.join(EASIEST)}",
        "4.3",
        "at least three of the five among the easiest tenth of the AlexNet-like network's classes (their places)",
        ("alexnet",),
        among(EASIEST, easiest=True),
    )

    def seventy(row: Row) -> tuple[str, Outcome] | None:
        found = ranks(comparison, row, EASIEST)
        mean = sum(one.accuracy for one in found) / len(found) if found else 0.0
        each = ", ".join(percent(one.accuracy, 0) for one in found)
        return (f"{each}: {percent(mean)} on average", agree(abs(mean - 0.70) <= 0.10)) if found else None

    claim("These five reach about 70\u00a0% each", "4.3", "within 10 points on average", ("alexnet",), seventy)
    claim(
        f"The hardest classes are {', '.join(HARDEST)}",
        "4.3",
        "at least three of the five among the hardest tenth of the AlexNet-like network's classes (1 is the hardest)",
        ("alexnet",),
        among(HARDEST, easiest=False),
    )
    return table


def agree(condition: bool) -> Outcome:
    return "agrees" if condition else "differs"


def _train_top1(row: Row) -> float:
    return row.train_top1.mean


def _gap(row: Row) -> float:
    return row.train_top1.mean - row.top1.mean


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "−")
