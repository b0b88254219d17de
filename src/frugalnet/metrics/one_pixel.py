"""The one-pixel attack, and the same number of random tries.

Su, Vargas and Sakurai, One Pixel Attack for Fooling Deep Neural Networks, 2019: differential evolution over the position
and colour of one or a few pixels needs no gradients, only the network's answers. Settings are those of its section 3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import softmax

from frugalnet.metrics.accuracy import predict
from frugalnet.schema import Config

Images = NDArray[np.uint8]  # (N, H, W, 3) RGB
Classify = Callable[[Images], NDArray[Any]]  # (N, H, W, 3) uint8 → (N, classes) logits


class AttackConfig(Config):
    """How many pictures to attack, with how many changed pixels, and how long the search may take."""

    pictures: int = Field(ge=0)  # 0: none
    pixels: list[int] = Field(min_length=1)
    candidates: int = Field(ge=5)  # of a generation
    generations: int = Field(ge=1)  # after the first, random one


@dataclass(frozen=True)
class Success:
    """A changed picture that is misclassified. queries: answers of the network that it took to find it.

    changes: (x, y, red, green, blue) of each changed pixel; predicted: the wrong class.
    """

    queries: int
    changes: list[list[int]]
    predicted: int


def change(image: Images, candidates: NDArray[np.float64]) -> Images:
    """Copies of a picture (H, W, 3) with pixels changed, (N, H, W, 3).

    candidates: (N, 5 K), for each changed pixel x, y, red, green, blue, rounded down to a position and to a colour.
    """
    images, pixels = np.repeat(image[None], len(candidates), axis=0), _pixels(image, candidates)
    images[np.arange(len(images))[:, None], pixels[..., 1], pixels[..., 0]] = pixels[..., 2:]
    return images


def _pixels(image: Images, candidates: NDArray[np.float64]) -> NDArray[np.int64]:
    height, width, _ = image.shape
    found = candidates.reshape(len(candidates), -1, 5).astype(np.int64)
    return np.minimum(found, [width - 1, height - 1, 255, 255, 255])


def draw(image: Images, pixels: int, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Random candidates: uniform positions, and colours from a normal distribution of mean 128 and deviation 127."""
    height, width, _ = image.shape
    places = generator.uniform(0, (width, height), (count, pixels, 2))
    colours = generator.normal(128, 127, (count, pixels, 3)).clip(0, 255)
    return np.concatenate([places, colours], axis=2).reshape(count, 5 * pixels)


class _Search:
    """Asks a network about candidates until one is misclassified."""

    def __init__(self, classify: Classify, image: Images, label: int) -> None:
        self.classify, self.image, self.label = classify, image, label
        self.queries, self.found = 0, None

    def __call__(self, candidates: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of the true class, (N,): what evolution lowers."""
        if self.found:  # nothing is asked any more
            return np.zeros(len(candidates))
        logits = self.classify(change(self.image, candidates))
        predicted = predict(logits)
        if (wrong := predicted != self.label).any():
            first = int(wrong.argmax())
            changes = _pixels(self.image, candidates[first : first + 1])[0].tolist()
            self.found = Success(self.queries + first + 1, changes, int(predicted[first]))
        self.queries += len(candidates)
        return softmax(logits.astype(np.float64), axis=1)[:, self.label]


def evolve(classify, image, label, pixels, config, seed) -> Success | None:
    from scipy.optimize import differential_evolution

    search, generator = _Search(classify, image, label), np.random.default_rng(seed)
    height, width, _ = image.shape
    differential_evolution(
        lambda population: search(population.T),
        [(0, width), (0, height), (0, 255), (0, 255), (0, 255)] * pixels,
        init=draw(image, pixels, config.candidates, generator),
        maxiter=config.generations,
        strategy="rand1bin",
        mutation=0.5,
        recombination=1,
        tol=0,
        polish=False,
        vectorized=True,
        updating="deferred",
        rng=generator,
        callback=lambda intermediate_result: search.found is not None,
    )
    return search.found, search.queries


def guess(classify, image, label, pixels, config, seed):
    search, generator = _Search(classify, image, label), np.random.default_rng(seed)
    for _ in range(config.generations + 1):
        search(draw(image, pixels, config.candidates, generator))
    return search.found, search.queries
