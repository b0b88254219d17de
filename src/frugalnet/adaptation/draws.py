"""Intervals of figures from several draws of classes, each with pictures of its own: pure functions of arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from frugalnet.metrics.statistics import Interval


def over_draws(values: Sequence[NDArray[np.float64]], resamples: int = 4000) -> Interval:
    """The mean over draws of the mean over each draw's pictures, with a bootstrap interval over draws and pictures.

    values: (N,) for each draw: 1 where a picture was classified correctly and 0 where not, or the difference of two
    networks. Draws are resampled, then the pictures of each. Resampling D draws from D gives only (D - 1) / D of the
    variance between draws; this is corrected for, as far as D > 1 allows. The pictures' variance is part of that
    between draws and thus counts twice, so the interval is rather too wide. One draw: over its pictures alone.
    """
    generator = np.random.default_rng(0)
    means = np.empty((resamples, len(values)))
    for i, one in enumerate(values):
        steps, counts = np.unique(one, return_counts=True)
        means[:, i] = generator.multinomial(len(one), counts / len(one), size=resamples) @ steps / len(one)
    draws = len(values)
    drawn = generator.multinomial(draws, np.full(draws, 1 / draws), size=resamples) / draws
    weights = 1 / draws + (drawn - 1 / draws) * np.sqrt(draws / max(draws - 1, 1))
    low, high = np.quantile((means * weights).sum(axis=1), [0.025, 0.975])
    return Interval(float(np.mean([one.mean() for one in values])), float(low), float(high))
