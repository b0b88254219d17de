"""Accuracy by class and confusion: pure functions of predicted classes and labels, or of their counts.

Training needs none of this, so editing it retrains nothing. `predicted`, `labels`: (N,) integers in 0..C-1.
`confused`: (C, C) counts as of `confusion`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frugalnet.metrics.statistics import wilson_interval

Array = NDArray[np.generic]
_MOST_ORDERED = (
    1000  # classes in the best of orders: that takes five seconds, and for twice as many eight times as long
)


def confusion(predicted: Array, labels: Array, num_classes: int) -> NDArray[np.int64]:
    """Counts (C, C): rows are true classes, columns predicted classes."""
    pairs = labels.astype(np.int64) * num_classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_order(confused: NDArray[np.int64]) -> list[int]:
    """An order of the classes of (C, C) counts that puts classes confused with each other side by side."""
    # Imported here: they take seconds to import, and evaluation does not need them.
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    both = (confused + confused.T).astype(float)
    np.fill_diagonal(both, 0)
    if len(both) < 3 or not both.any():
        return list(range(len(both)))
    distance = 1 - both / both.max()
    np.fill_diagonal(distance, 0)
    optimal = len(both) <= _MOST_ORDERED
    return [int(c) for c in leaves_list(linkage(squareform(distance), "average", optimal_ordering=optimal))]


def mistakes_percent(confused: NDArray[np.int64], order: Sequence[int]) -> NDArray[np.float32]:
    """Percent of each true class's images predicted as another class; the diagonal is NaN."""
    share = 100 * confused / np.maximum(confused.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(share, np.nan)
    return np.asarray(share[np.ix_(order, order)], dtype=np.float32)


def examples(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], wanted: int, count: int = 4
) -> tuple[list[int], list[int]]:
    """Indices of the first images of a class that were classified correctly, and incorrectly."""
    of_class = np.flatnonzero(labels == wanted)
    right = predicted[of_class] == wanted
    return of_class[right][:count].tolist(), of_class[~right][:count].tolist()


@dataclass(frozen=True)
class ClassAccuracy:
    """One row of per_class.csv; `accuracy` is None without images, `most_confused_with` empty without mistakes."""

    class_id: str
    name: str
    n: int
    correct: int
    accuracy: float | None
    wilson_low: float
    wilson_high: float
    most_confused_with: str


def per_class(
    confused: NDArray[np.int64], class_ids: Sequence[str], class_names: Sequence[str], seeds: int = 1
) -> list[ClassAccuracy]:
    """One row per class, in label order, from the counts of `confusion`.

    seeds: over how many seeds the counts were summed. Wilson intervals count each image once.
    """
    n = confused.sum(axis=1)
    correct = confused.diagonal()
    low, high = wilson_interval(correct / seeds, n / seeds)
    mistakes = confused - np.diag(correct)
    taken_for = mistakes.argmax(axis=1)
    return [
        ClassAccuracy(
            class_id=class_ids[c],
            name=class_names[c],
            n=int(n[c]),
            correct=int(correct[c]),
            accuracy=float(correct[c] / n[c]) if n[c] else None,
            wilson_low=float(low[c]),
            wilson_high=float(high[c]),
            most_confused_with=class_names[taken_for[c]] if mistakes[c].any() else "",
        )
        for c in range(len(class_ids))
    ]


def best_and_worst(accuracies: Sequence[float | None], count: int = 5) -> tuple[list[int], list[int]]:
    """Indices of the most accurate classes, best first, and of the least accurate, worst first.

    No class is in both lists, and none whose accuracy is None. One that is never right is not among the most accurate.
    The lower index wins a tie.
    """
    known = [(accuracy, c) for c, accuracy in enumerate(accuracies) if accuracy is not None]
    ranked = [c for accuracy, c in sorted(known, key=lambda pair: (-pair[0], pair[1]))]
    best = [c for c in ranked[: min(count, (len(ranked) + 1) // 2)] if accuracies[c]]
    rest = sorted(pair for pair in known if pair[1] not in best)
    return best, [c for _, c in rest[:count]]


@dataclass(frozen=True)
class ConfusedPair:
    """Two confused classes: `forward` images of `first` were predicted as `second`, `backward` the other way round."""

    first: str
    second: str
    forward: int
    backward: int


def most_confused_pairs(confused: NDArray[np.int64], class_names: Sequence[str], count: int = 20) -> list[ConfusedPair]:
    """The pairs with the most mistakes, at least two, in descending order; `first` is the class mistaken more often."""
    both = np.triu(confused + confused.T, k=1)
    order = np.argsort(-both, axis=None, kind="stable")[:count]
    pairs = []
    for a, b in zip(*np.unravel_index(order, both.shape), strict=True):
        if both[a, b] < 2:
            break
        a, b = (a, b) if confused[a, b] >= confused[b, a] else (b, a)
        pairs.append(ConfusedPair(class_names[a], class_names[b], int(confused[a, b]), int(confused[b, a])))
    return pairs


@dataclass(frozen=True)
class Rank:
    """A class's rank by accuracy among `count` classes: 1 is the easiest, from_hardest 1 the hardest; ties share."""

    name: str
    accuracy: float
    rank: int
    from_hardest: int
    count: int


def ranks(classes: Sequence[ClassAccuracy], names: Sequence[str]) -> list[Rank]:
    """The ranks of the named classes that are in the data."""
    accuracies = {c.name.casefold(): c.accuracy for c in classes if c.accuracy is not None}
    known = [(name, accuracies[name.casefold()]) for name in names if name.casefold() in accuracies]
    return [
        Rank(
            name,
            accuracy,
            rank=1 + sum(other > accuracy for other in accuracies.values()),
            from_hardest=1 + sum(other < accuracy for other in accuracies.values()),
            count=len(accuracies),
        )
        for name, accuracy in known
    ]
