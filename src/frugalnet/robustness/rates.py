"""Figures of attacks and corruptions: pure functions of arrays."""

import numpy as np
from numpy.typing import NDArray

from frugalnet.metrics.statistics import Interval, wilson_interval


def success_rate(fooled: NDArray[np.bool_]) -> Interval:
    """The share of attacked pictures, (N,), whose attack succeeded, with its Wilson interval; N is at least 1."""
    low, high = wilson_interval(np.array(fooled.sum()), np.array(len(fooled)))
    return Interval(float(fooled.mean()), float(low), float(high))


def median_queries(fooled: NDArray[np.bool_], queries: NDArray[np.int64]) -> float | None:
    """The median of the queries, (N,), over the attacks that succeeded; None if none did."""
    return float(np.median(queries[fooled])) if fooled.any() else None


def accuracy_kept(clean: NDArray[np.bool_], corrupted: NDArray[np.bool_], resamples: int = 2000) -> Interval:
    """Mean accuracy on corrupted pictures as a fraction of that on the clean ones, bootstrap over the pictures.

    clean: (N,) and corrupted: (kinds, severities, N), whether each was classified correctly. Hendrycks and Dietterich
    average over severities and kinds alike. 0 if no clean picture was classified correctly.
    """
    by_picture = np.stack([corrupted.mean(axis=(0, 1)), clean.astype(np.float64)], axis=1)
    weights = np.random.default_rng(0).multinomial(len(clean), np.full(len(clean), 1 / len(clean)), resamples)
    sums = np.vstack([by_picture.sum(axis=0), weights @ by_picture])
    ratios = np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)
    low, high = np.quantile(ratios[1:], [0.025, 0.975])
    return Interval(float(ratios[0]), float(low), float(high))


def fooled_within(fooled: NDArray[np.bool_], queries: NDArray[np.int64]) -> tuple[list[int], list[float]]:
    """The steps of the share of pictures, (N,), that are misclassified within so many queries."""
    steps, counts = np.unique(queries[fooled], return_counts=True)
    return steps.tolist(), (counts.cumsum() / len(fooled)).tolist()
