"""Intervals and tests: pure functions of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Array = NDArray[np.generic]


def wilson_interval(correct: Array, n: Array, confidence: float = 0.95) -> tuple[Array, Array]:
    """The Wilson interval of a proportion, elementwise, as scipy's binomtest(...).proportion_ci(method="wilson").

    Where n is 0 nothing is known: 0 to 1.
    """
    z = ndtri(0.5 + confidence / 2)
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
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Accuracy, or its difference from `other` on the same images, with the bootstrap's percentile interval.

    `correct` and `other`: (seeds, N), whether each trained network got each image right; the numbers of seeds may
    differ. Images are drawn once for both (paired); where a network was trained from several seeds these are drawn
    too, each network's by themselves, so that the interval also covers the luck of training.

    Exact, though no image is drawn: images with the same pattern of right and wrong are interchangeable, so drawing
    N of them is one multinomial draw over the patterns.
    """
    rows = correct if other is None else np.concatenate([correct, other])
    patterns, counts = np.unique(rows.T, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    images = int(counts.sum())
    estimates = np.empty(resamples)
    for start in range(0, resamples, 1000):  # bounds the memory where many seeds make many patterns
        size = min(1000, resamples - start)
        drawn = generator.multinomial(images, counts / images, size=size)
        scores = drawn @ patterns.astype(np.float64) / images  # (size, seeds of both)
        weights = _seed_weights(generator, len(correct), size)
        if other is not None:
            weights = np.concatenate([weights, -_seed_weights(generator, len(other), size)], axis=1)
        estimates[start : start + size] = (scores * weights).sum(axis=1)
    low, high = np.quantile(estimates, [0.5 - confidence / 2, 0.5 + confidence / 2])
    estimate = correct.mean() - (0.0 if other is None else other.mean())
    return Interval(float(estimate), float(low), float(high))


def _seed_weights(generator: np.random.Generator, seeds: int, size: int) -> NDArray[np.float64]:
    """The weight of each seed in each resample. Their spread is widened, since drawing S seeds from S gives only
    (S - 1) / S of the variance between them, which is little for two or three."""
    drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds
    return np.asarray(1 / seeds + (drawn - 1 / seeds) * np.sqrt(seeds / max(seeds - 1, 1)))


def mcnemar(correct: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """p of McNemar's exact test: two networks as accurate as one another would differ on (N,) images at least so."""
    from scipy.stats import binomtest

    only_first = int((correct & ~other).sum())
    only_second = int((other & ~correct).sum())
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, the sample's standard deviation (None for one seed), and the number of seeds."""

    mean: float
    deviation: float | None
    n: int


def across_seeds(values: Sequence[float]) -> Spread:
    """Mean, deviation (n - 1 in the denominator) and n of at least one value."""
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))
