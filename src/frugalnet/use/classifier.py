"""A stored network that names what is in pictures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalnet import pictures
from frugalnet.errors import UserError
from frugalnet.training.inference import infer
from frugalnet.use.weights import Classes, Stored, load_network


@dataclass(frozen=True)
class Prediction:
    """What a network says of one picture. probabilities: (classes,); milliseconds: of the network alone."""

    classes: Classes
    probabilities: NDArray[np.float32]
    milliseconds: float

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable classes: (name, probability), the most probable first."""
        return [(guess["name"], guess["probability"]) for guess in self.named(count)]

    def named(self, count: int = 5) -> list[dict[str, Any]]:
        """The same as JSON: id, name and probability of each. The lower position wins a tie, as in `accuracy`."""
        ids = self.classes.ids
        names = self.classes.names
        order = np.argsort(-self.probabilities, kind="stable")[:count].tolist()
        return [{"id": ids[i], "name": names[i], "probability": float(self.probabilities[i])} for i in order]


class Classifier:
    """A network on the CPU with its normalisation and classes. Raises UserError if the file's weights do not fit it."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.classes = stored.classes
        self.normalise, self.network = load_network(stored)
        self.logits(np.zeros((1, pictures.SIDE, pictures.SIDE, 3), np.uint8))  # the first call is slower

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, 64, 64, 3) uint8 RGB → (N, classes) float32."""
        logits = infer(self.network, images, self.normalise)
        if not np.isfinite(logits).all():
            raise UserError(f"{self.stored.path}: the network's answers are not finite numbers; train it again")
        return logits

    def predict(self, images: Sequence[str | Path | NDArray[np.uint8]] | NDArray[np.uint8]) -> list[Prediction]:
        """Classify picture files, or arrays of (64, 64, 3) uint8 RGB pixels, as one batch.

        Raises UserError for anything that is not a picture, or has another shape or type.
        """
        arrays = [_pixels(image, number) for number, image in enumerate(images)]
        if not arrays:
            return []
        start = time.perf_counter()
        logits = self.logits(np.stack(arrays))
        milliseconds = 1000 * (time.perf_counter() - start) / len(arrays)
        return [Prediction(self.classes, row, milliseconds) for row in _softmax(logits)]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row's probabilities, (N, classes), without scipy, whose import takes as long as a prediction."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _pixels(image: str | Path | NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    if not isinstance(image, np.ndarray):
        return pictures.open_file(str(image)).pixels
    if image.shape != (pictures.SIDE, pictures.SIDE, 3) or image.dtype != np.uint8:
        raise UserError(
            f"image {number}: expected ({pictures.SIDE}, {pictures.SIDE}, 3) uint8, found {image.shape} {image.dtype}"
        )
    return image
