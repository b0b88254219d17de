"""Accuracy, loss, calibration and confusion: pure functions of logits and labels.

`logits`: (N, C), any float type; computations are in float64. `labels`: (N,) integers in 0..C-1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from frugalnet.errors import UserError
from frugalnet.metrics.statistics import wilson_interval

Array = NDArray[np.generic]


def check(logits: Array, labels: Array) -> None:
    """Raises UserError unless the shapes match, the labels are in range and every logit is finite."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not labels.size:
        raise UserError(f"predictions: expected logits (N, C) and labels (N,), found {logits.shape} and {labels.shape}")
    if not np.isfinite(logits).all():
        row = int(np.argmin(np.isfinite(logits).all(axis=1)))
        raise UserError(f"predictions: the logits of image {row} are not all finite; train and evaluate again")
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise UserError(
            f"predictions: expected labels in 0..{logits.shape[1] - 1}, found {labels.min()}..{labels.max()}"
        )


def predict(logits: Array) -> NDArray[np.int64]:
    """The class with the highest logit, (N, C) → (N,); the lower index wins a tie."""
    return np.asarray(logits.astype(np.float32, copy=False).argmax(axis=1), dtype=np.int64)


def top_k(logits: Array, labels: Array, k: int) -> float:
    """Share of images whose label is among the k highest logits, in 0..1; the lower index wins a tie, as in `predict`.

    float16 logits often tie, so top-1 and top-k need the same rule.
    """
    scores = logits.astype(np.float64)
    own = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None].astype(np.int64)
    rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return float((rank < k).mean())


def cross_entropy(logits: Array, labels: Array) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    return float(-np.take_along_axis(log_probabilities, labels[:, None].astype(np.int64), axis=1).mean())


def macro_accuracy(logits: Array, labels: Array) -> float:
    """Mean accuracy over the classes that occur, in 0..1."""
    counts = np.bincount(labels)
    correct = np.bincount(labels[predict(logits) == labels], minlength=len(counts))
    return float((correct[counts > 0] / counts[counts > 0]).mean())


def expected_calibration_error(logits: Array, labels: Array, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins of confidence, in 0..1; bins are open at their lower end.

    Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.
    """
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    confidence = np.exp(log_probabilities.max(axis=1))
    correct = predict(logits) == labels
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    distance = np.bincount(which, weights=correct - confidence, minlength=bins)
    return float(np.abs(distance).sum() / len(labels))


def figures(logits: Array, labels: Array) -> dict[str, float]:
    """top1, top5, loss (nats), macro_accuracy, ece and n, as in metrics.json. Raises UserError: see `check`."""
    check(logits, labels)
    return {
        "top1": top_k(logits, labels, 1),
        "top5": top_k(logits, labels, 5),
        "loss": cross_entropy(logits, labels),
        "macro_accuracy": macro_accuracy(logits, labels),
        "ece": expected_calibration_error(logits, labels),
        "n": len(labels),
    }


def confusion(predicted: Array, labels: Array, num_classes: int) -> NDArray[np.int64]:
    """Counts (C, C): rows are true classes, columns predicted classes."""
    pairs = labels.astype(np.int64) * num_classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_order(confused: NDArray[np.int64]) -> list[int]:
    """An order of the classes of (C, C) counts that puts classes confused with each other side by side."""
    # Imported here: training imports this module, does not need them and would wait seconds for them.
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    both = (confused + confused.T).astype(float)
    np.fill_diagonal(both, 0)
    if len(both) < 3 or not both.any():
        return list(range(len(both)))
    distance = 1 - both / both.max()
    np.fill_diagonal(distance, 0)
    return [int(c) for c in leaves_list(linkage(squareform(distance), "average", optimal_ordering=True))]


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

    No class is in both lists, and none whose accuracy is None. The lower index wins a tie.
    """
    known = [(accuracy, c) for c, accuracy in enumerate(accuracies) if accuracy is not None]
    ranked = [c for accuracy, c in sorted(known, key=lambda pair: (-pair[0], pair[1]))]
    best = ranked[: min(count, (len(ranked) + 1) // 2)]
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
    """The pairs with the most mistakes, in descending order; `first` is the class that is mistaken more often."""
    both = np.triu(confused + confused.T, k=1)
    order = np.argsort(-both, axis=None, kind="stable")[:count]
    pairs = []
    for a, b in zip(*np.unravel_index(order, both.shape), strict=True):
        if not both[a, b]:
            break
        a, b = (a, b) if confused[a, b] >= confused[b, a] else (b, a)
        pairs.append(ConfusedPair(class_names[a], class_names[b], int(confused[a, b]), int(confused[b, a])))
    return pairs
