"""Accuracy, loss and calibration: pure functions of logits and labels.

`logits`: (N, C), any float type; computations are in float64. `labels`: (N,) integers in 0..C-1.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from frugalnet.errors import UserError

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
