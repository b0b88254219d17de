"""The one-pixel attack, and as many random tries.

Su, Vargas and Sakurai, One Pixel Attack for Fooling Deep Neural Networks, 2019: differential evolution over the
position and colour of one or a few pixels. It needs no gradients, only the network's answers. The settings are those of
its section 3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from frugalnet.metrics.accuracy import predict
from frugalnet.robustness.result import Method, Outcome

Images = NDArray[np.uint8]  # (N, H, W, 3) RGB
Candidates = NDArray[np.float64]  # (N, 5 K): x, y, red, green and blue of each of K changed pixels
Classify = Callable[[Images], NDArray[Any]]  # (N, H, W, 3) uint8 → (N, classes) logits


def pixels_of(candidates: Candidates, side: int) -> NDArray[np.int64]:
    """(N, 5 K) → (N, K, 5), whole positions below `side` and colours up to 255."""
    whole = candidates.reshape(len(candidates), -1, 5).astype(np.int64)
    return np.asarray(whole.clip(0, [side - 1, side - 1, 255, 255, 255]))


def change(image: Images, pixels: NDArray[np.int64]) -> Images:
    """Copies of a picture (H, W, 3) with changed pixels (N, K, 5), (N, H, W, 3)."""
    images = np.repeat(image[None], len(pixels), axis=0)
    images[np.arange(len(images))[:, None], pixels[..., 1], pixels[..., 0]] = pixels[..., 2:]
    return images


def draw(pixels: int, count: int, side: int, generator: np.random.Generator) -> Candidates:
    """Random candidates: uniform positions, and colours from a normal distribution of mean 128 and deviation 127."""
    places = generator.uniform(0, side, (count, pixels, 2))
    colours = generator.normal(128, 127, (count, pixels, 3)).clip(0, 255)
    return np.concatenate([places, colours], axis=2).reshape(count, 5 * pixels)


class _Search:
    """Shows candidates to a network until it misclassifies one."""

    def __init__(self, classify: Classify, image: Images, label: int) -> None:
        self.classify = classify
        self.image = image
        self.label = label
        self.outcome = Outcome(queries=0)

    @property
    def has_succeeded(self) -> bool:
        return self.outcome.changes is not None

    def __call__(self, candidates: Candidates) -> NDArray[np.float64]:
        """The probability of the true class, (N,); after a success, nothing is shown any more."""
        if self.has_succeeded:
            return np.zeros(len(candidates))
        pixels = pixels_of(candidates, len(self.image))
        before = self.outcome.queries
        logits = self.classify(change(self.image, pixels))
        predicted = predict(logits)
        self.outcome = Outcome(queries=before + len(candidates))
        if (wrong := predicted != self.label).any():
            first = int(wrong.argmax())
            self.outcome = Outcome(
                queries=before + first + 1, changes=pixels[first].tolist(), predicted=int(predicted[first])
            )
        return np.asarray(softmax(logits.astype(np.float64), axis=1)[:, self.label])


@dataclass(frozen=True)
class Budget:
    """What an attack may change and try: `candidates` at first, and in each of at most so many further generations."""

    pixels: int
    candidates: int
    generations: int


def attack(classify: Classify, image: Images, label: int, budget: Budget, seed: Sequence[int]) -> dict[Method, Outcome]:
    """Change pixels of a picture (H, H, 3), classified as `label`, until it is misclassified.

    "evolution": differential evolution, from random candidates; "random": as many random candidates, the first of which
    are the same. The outcomes are a function of the arguments.
    """
    from scipy.optimize import differential_evolution  # takes half a second

    side = len(image)
    generator = np.random.default_rng(seed)
    evolution = _Search(classify, image, label)
    chance = _Search(classify, image, label)
    differential_evolution(
        lambda population: evolution(population.T),
        [(0, side), (0, side), (0, 255), (0, 255), (0, 255)] * budget.pixels,
        init=draw(budget.pixels, budget.candidates, side, generator),
        maxiter=budget.generations,
        strategy="rand1bin",
        mutation=0.5,
        recombination=1,  # none
        tol=0,
        polish=False,
        updating="deferred",
        vectorized=True,
        rng=generator,
        callback=lambda intermediate_result: evolution.has_succeeded,
    )
    generator = np.random.default_rng(seed)
    if evolution.has_succeeded and evolution.outcome.queries <= budget.candidates:
        return {"evolution": evolution.outcome, "random": evolution.outcome}
    for _ in range(1 + budget.generations):
        chance(draw(budget.pixels, budget.candidates, side, generator))
    return {"evolution": evolution.outcome, "random": chance.outcome}
