"""What an adapted network is worth on the held-out pictures, class by class: as JSON, in words and as a table."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from frugalnet.document.wording import markdown
from frugalnet.metrics.statistics import wilson_interval
from frugalnet.schema import Config

FEW = 20  # pictures of a class: with fewer, its own figure says little


class ClassOutcome(Config):
    """A class. taken_for: the other class that its held-out pictures were most often taken for; None: there is none."""

    name: str
    pictures: int
    held_out: int
    right: int
    taken_for: str | None
    taken_for_count: int


class Mistake(Config):
    """A held-out picture that was taken for another class."""

    file: str
    label: str
    predicted: str


class Outcome(Config):
    """low, high: the 95 % Wilson interval of top1; commonest: the share that always answering one class gets right.

    confusion: of the held-out pictures, a row for each class, a column for each predicted one. int8_top1: of the int8
    file; None: there is none. All shares in 0..1.
    """

    n: int
    right: int
    top1: float
    low: float
    high: float
    mean_over_classes: float
    commonest: float
    warnings: list[str]
    classes: list[ClassOutcome]
    mistakes: list[Mistake]
    confusion: list[list[int]]
    int8_top1: float | None = None

    @property
    def worst_first(self) -> list[ClassOutcome]:
        return sorted(self.classes, key=lambda row: row.right / row.held_out)

    @property
    def in_words(self) -> str:
        return (
            f"{self.right} of {self.n} held-out pictures classified correctly: {self.top1:.1%} (95 % interval "
            f"{self.low:.1%} to {self.high:.1%}); mean over the classes: {self.mean_over_classes:.1%}; "
            f"always predicting the most common class: {self.commonest:.1%}."
            + (f" As int8: {self.int8_top1:.1%}." if self.int8_top1 is not None else "")
        )


def judge(
    classes: Sequence[str],
    sizes: NDArray[np.int64],
    files: Sequence[str],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
) -> Outcome:
    """The outcome on held-out pictures: their files, labels and predicted classes, (n,); sizes: all of each class."""
    count = len(classes)
    confusion = np.bincount(labels * count + predicted, minlength=count**2).reshape(count, count)
    held = confusion.sum(axis=1)
    right = confusion.diagonal()
    wrong = confusion - np.diag(right)
    n = len(labels)
    low, high = map(float, wilson_interval(np.array(right.sum()), np.array(n)))
    commonest = float(held.max() / n)
    rows = [
        ClassOutcome(
            name=name,
            pictures=int(sizes[i]),
            held_out=int(held[i]),
            right=int(right[i]),
            taken_for=classes[int(wrong[i].argmax())] if wrong[i].any() else None,
            taken_for_count=int(wrong[i].max()),
        )
        for i, name in enumerate(classes)
    ]
    return Outcome(
        n=n,
        right=int(right.sum()),
        top1=float(right.sum() / n),
        low=low,
        high=high,
        mean_over_classes=float((right / held).mean()),
        commonest=commonest,
        warnings=_warnings(rows, (low, high), commonest),
        classes=rows,
        mistakes=[
            Mistake(file=files[i], label=classes[labels[i]], predicted=classes[predicted[i]])
            for i in np.flatnonzero(predicted != labels).tolist()
        ],
        confusion=confusion.tolist(),
    )


def _warnings(rows: Sequence[ClassOutcome], interval: tuple[float, float], commonest: float) -> list[str]:
    warnings = []
    if few := [row for row in rows if row.pictures < FEW]:
        named = ", ".join(f"{row.name} ({row.pictures})" for row in few)
        warnings.append(f"fewer than {FEW} pictures, so that the figure of the class says little: {named}")
    if interval[0] <= commonest <= interval[1]:
        warnings.append(
            f"always predicting the most common class, {commonest:.1%}, is within the interval: it is not shown that "
            "the network tells the classes apart; add pictures"
        )
    return warnings


_HEADER = ("class", "pictures", "held out", "right", "most often taken for")


def _cells(row: ClassOutcome) -> tuple[str, ...]:
    taken = f"{row.taken_for} ({row.taken_for_count})" if row.taken_for else ""
    return (row.name, str(row.pictures), str(row.held_out), str(row.right), taken)


def as_text(outcome: Outcome, shown: int) -> str:
    """The classes, the worst first, the warnings, and the first `shown` mistakes, for a terminal."""
    rows = [_HEADER, *map(_cells, outcome.worst_first)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = []
    for name, *numbers, taken in rows:
        right = "  ".join(f"{number:>{width}}" for number, width in zip(numbers, widths[1:4], strict=True))
        lines.append(f"  {name:{widths[0]}}  {right}  {taken}")
    lines += [f"Warning: {warning}." for warning in outcome.warnings]
    if outcome.mistakes:
        lines.append("Held out, and taken for another class:")
        lines += [f"  {mistake.file}: {mistake.predicted}" for mistake in outcome.mistakes[:shown]]
    if (more := len(outcome.mistakes) - shown) > 0:
        lines.append(f"  and {more} more, in adapt.json")
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(outcome: Outcome) -> str:
    """The same for a card, with all mistakes."""
    lines = [f"> Warning: {markdown(warning)}.\n" for warning in outcome.warnings]
    lines += ["| " + " | ".join(_HEADER) + " |", "|---|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(map(markdown, _cells(row))) + " |" for row in outcome.worst_first]
    if outcome.mistakes:
        lines.append("\nHeld out, and taken for another class:\n")
        lines += [f"- {markdown(mistake.file)}: {markdown(mistake.predicted)}" for mistake in outcome.mistakes]
    return "\n".join(lines)
