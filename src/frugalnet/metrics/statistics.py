"""Intervals and tests: pure functions of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def wilson_interval(correct: Array, n: Array) -> tuple[Array, Array]:
    """The 95 % Wilson interval of a proportion, elementwise, as scipy's binomtest(...).proportion_ci(method="wilson").

    The interval is 0 to 1 where n is 0.
    """
    z = 1.959963984540054  # between -z and z is 95 % of the normal distribution
    trials = np.maximum(n.astype(np.float64), 1)
    share = correct / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # The bounds at 0 and n are exactly 0 and 1; rounding would leave 1e-17.
    low = np.where((n == 0) | (correct == 0), 0.0, centre - half)
    high = np.where((n == 0) | (correct == n), 1.0, centre + half)
    return low, high


@dataclass(frozen=True)
class Interval:
    """An estimate and the 95 % interval around it."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def bootstrap(
    correct: NDArray[np.bool_],
    other: NDArray[np.bool_] | None = None,
    *,
    weights: NDArray[np.float64] | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Accuracy, or its difference from `other` on the same images, with a percentile bootstrap interval.

    `correct` and `other`: (seeds, N), whether each trained network classified each image correctly. The numbers of
    seeds may differ. Images are resampled jointly (paired bootstrap). Seeds are resampled too, independently for each
    network, so that the interval covers the variance of training.

    Images with the same pattern of correct and incorrect answers are interchangeable, so N draws of images are one
    multinomial draw over the patterns. The interval is clipped to what an accuracy or a difference can be. Where every
    answer is correct, or none, all resamples are alike: then it is Wilson's.

    weights: how much each image counts, (N,); None: all alike. Those of `class_weights` give macro accuracy.
    """
    if other is None and (correct.all() or not correct.any()):
        return _of_one_kind(correct, weights)
    rows = correct if other is None else np.concatenate([correct, other])
    if weights is not None:
        rows = np.concatenate([rows, weights[None]])
    patterns, counts = np.unique(rows.T, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    images = int(counts.sum())
    estimates = np.empty(resamples)
    for start in range(0, resamples, 1000):  # bounds memory: many seeds make many patterns
        size = min(1000, resamples - start)
        drawn = generator.multinomial(images, counts / images, size=size)
        scores = _scores(drawn, patterns, images, is_weighted=weights is not None)  # (size, seeds of both)
        of_seeds = _seed_weights(generator, len(correct), size)
        if other is not None:
            of_seeds = np.concatenate([of_seeds, -_seed_weights(generator, len(other), size)], axis=1)
        estimates[start : start + size] = (scores * of_seeds).sum(axis=1)
    low, high = np.quantile(estimates, [0.5 - confidence / 2, 0.5 + confidence / 2])
    estimate = _mean(correct, weights) - (0.0 if other is None else _mean(other, weights))
    return _clipped(estimate, low, high, lowest=0 if other is None else -1)


def _of_one_kind(correct: NDArray[np.bool_], weights: NDArray[np.float64] | None) -> Interval:
    """Wilson's 95 % interval for answers that are all correct, or all incorrect, from as many images as count."""
    images = correct.shape[1] if weights is None else weights.sum() ** 2 / (weights**2).sum()  # Kish's effective size
    estimate = float(correct.flat[0])
    low, high = wilson_interval(np.asarray(estimate * images), np.asarray(images))
    return Interval(estimate, float(low), float(high))


def _mean(correct: NDArray[np.bool_], weights: NDArray[np.float64] | None) -> float:
    """The mean over seeds and images, (seeds, N) and (N,)."""
    return float(correct.mean() if weights is None else np.average(correct.mean(axis=0), weights=weights))


def _scores(
    drawn: NDArray[np.int64], patterns: NDArray[np.generic], images: int, *, is_weighted: bool
) -> NDArray[np.float64]:
    """The accuracy of each trained network in each resample, (size, seeds).

    drawn: (size, P), how often each pattern was drawn. patterns: (P, seeds), and with weights these as a last column.
    """
    values = patterns.astype(np.float64)
    if not is_weighted:
        return np.asarray(drawn @ values / images)
    right, weights = values[:, :-1], values[:, -1]
    return np.asarray(drawn @ (right * weights[:, None]) / (drawn @ weights)[:, None])


def class_weights(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weight of each image, (N,), with which every class counts as much as another."""
    return np.asarray(1 / np.bincount(labels)[labels], dtype=np.float64)


def over_draws(values: Sequence[NDArray[np.float64]], *, lowest: int = 0, resamples: int = 4000) -> Interval:
    """The mean over draws of classes of the mean over each draw's pictures, with a bootstrap interval over both.

    values: (N,) for each draw: 1 where a picture was classified correctly and 0 where not, or the difference of two
    networks, which can be as low as -1. Draws are resampled like seeds in `bootstrap`, then the pictures of each. The
    pictures' variance is part of that between draws and thus counts twice, so the interval is rather too wide. One
    draw: over its pictures alone.
    """
    generator = np.random.default_rng(0)
    means = np.empty((resamples, len(values)))
    for i, of_draw in enumerate(values):
        steps, counts = np.unique(of_draw, return_counts=True)
        size = len(of_draw)
        means[:, i] = generator.multinomial(size, counts / size, size=resamples) @ steps / size
    estimates = (means * _seed_weights(generator, len(values), resamples)).sum(axis=1)
    low, high = np.quantile(estimates, [0.025, 0.975])
    return _clipped(np.mean([of_draw.mean() for of_draw in values]), low, high, lowest=lowest)


def _clipped(estimate: float, low: float, high: float, *, lowest: int) -> Interval:
    """The scaled weights of a few seeds or draws lead beyond what an accuracy or a difference can be."""
    return Interval(float(estimate), max(float(low), float(lowest)), min(float(high), 1.0))


def _seed_weights(generator: np.random.Generator, seeds: int, size: int) -> NDArray[np.float64]:
    """The weight of each seed in each resample, (size, seeds).

    Resampling S seeds from S gives only (S - 1) / S of the variance between seeds; the weights are scaled to correct
    for this.
    """
    drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds
    return np.asarray(1 / seeds + (drawn - 1 / seeds) * np.sqrt(seeds / max(seeds - 1, 1)))


def mcnemar(correct: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """p-value of McNemar's exact test on (N,) paired answers, correct or not; the null is equal accuracy."""
    from scipy.stats import binomtest

    only_first = int((correct & ~other).sum())
    only_second = int((other & ~correct).sum())
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


@dataclass(frozen=True)
class SeedMean:
    """A figure over seeds: mean, sample standard deviation (None for one seed) and number of seeds."""

    mean: float
    deviation: float | None
    n: int


def seed_mean(values: Sequence[float]) -> SeedMean:
    """Mean and standard deviation (n - 1 in the denominator) of at least one value."""
    return SeedMean(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Quantiles:
    """Repeated measurements: median, 5th and 95th percentile, and number of measurements."""

    median: float
    p5: float
    p95: float
    n: int


def quantiles(values: Sequence[float]) -> Quantiles:
    """The quantiles of at least one value, interpolated linearly."""
    p5, median, p95 = (float(value) for value in np.percentile(values, [5, 50, 95]))
    return Quantiles(median, p5, p95, len(values))


def pareto_front(costs: NDArray[np.float64], accuracies: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the (K,) points are Pareto-optimal: no other is as accurate and as cheap, and better in one of both."""
    cheaper = costs[:, None] <= costs
    better = accuracies[:, None] >= accuracies
    strictly = (costs[:, None] < costs) | (accuracies[:, None] > accuracies)
    return np.asarray(~(cheaper & better & strictly).any(axis=0))
