"""A trained network that names what is in pictures. ONNX Runtime runs it, so neither torch nor training is imported."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalnet import pictures
from frugalnet.errors import UserError
from frugalnet.export.formats import Format
from frugalnet.export.runtimes import Run, open_session
from frugalnet.use.weights import LARGEST_SIDE, SMALLEST_SIDE, Classes, Stored, check_export, choose_network

EXPORTED = "model.onnx"  # in a folder that `frugalnet export` wrote
_BATCH = 100  # pictures of one call: bounds memory


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


@dataclass(frozen=True)
class Network:
    """A network on one thread of the CPU, with its classes.

    side: of the square pictures that it takes, in pixels. path: the file that is run. stored: what a folder of weights
    says of it; None for an exported file. Several threads may call it at once.
    """

    name: str
    classes: Classes
    side: int
    path: Path
    run: Run
    stored: Stored | None = None

    @property
    def class_names(self) -> list[str]:
        return self.classes.names

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, side, side, 3) uint8 RGB → (N, classes) float32. Raises UserError unless all of them are finite."""
        starts = range(0, len(pixels), _BATCH)
        logits = np.concatenate([self.run(pixels[start : start + _BATCH]) for start in starts])
        if not np.isfinite(logits).all():
            raise UserError(f"{self.path}: the network's answers are not finite numbers; train it again")
        return logits

    def predict(self, images: Sequence[str | Path | NDArray[np.uint8]] | NDArray[np.uint8]) -> list[Prediction]:
        """Classify picture files, or arrays of (side, side, 3) uint8 RGB pixels, as one batch.

        Raises UserError for anything that is not a picture, or has another shape or type.
        """
        arrays = [self._pixels(image, number) for number, image in enumerate(images)]
        if not arrays:
            return []
        start = time.perf_counter()
        logits = self.logits(np.stack(arrays))
        milliseconds = 1000 * (time.perf_counter() - start) / len(arrays)
        return [Prediction(self.classes, row, milliseconds) for row in softmax(logits)]

    def _pixels(self, image: str | Path | NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
        if not isinstance(image, np.ndarray):
            return pictures.open_file(str(image), self.side).pixels
        shape = (self.side, self.side, 3)
        if image.shape != shape or image.dtype != np.uint8:
            raise UserError(f"image {number}: expected {shape} uint8, found {image.shape} {image.dtype}")
        return image


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Each row's probabilities, (N, classes), without scipy, whose import takes as long as a prediction."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def load(name: str | None = None, weights: Path | str | None = None) -> Network:
    """The network of that name in a file or folder of weights, or in a folder that `frugalnet export` wrote.

    name, weights: as `choose_network` takes them. Raises UserError if there is none of that name, if its files are not
    what their description says, or if they need PyTorch and it is not installed.
    """
    folder = None if weights is None else Path(weights)
    if folder is not None and (folder / EXPORTED).is_file() and not (folder / "weights.json").is_file():
        return _warm(open_exported(folder / EXPORTED))
    return open_stored(choose_network(name, weights))


def open_stored(stored: Stored, kind: Format = "onnx") -> Network:
    """A stored network: its ONNX file if there is one, or its weights by PyTorch. Raises UserError as `load` does.

    kind: int8 for its int8 file, which there must be.
    """
    if stored.entry.onnx is None:
        from frugalnet.use import pytorch

        path = stored.path
        run = pytorch.open_network(stored)
    else:
        path = check_export(stored, kind)
        run = open_onnx(path)
    return _warm(Network(stored.name, stored.classes, stored.entry.side, path, run, stored))


def open_exported(path: Path) -> Network:
    """The network in an exported ONNX file, which describes itself. Raises UserError if it does not."""
    session = open_session(path)
    try:
        described = _description(session.get_modelmeta().custom_metadata_map)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: does not name its classes; export the network again, or use --weights") from error
    return Network(*described, path, partial(_run, session))


def _description(metadata: Mapping[str, str]) -> tuple[str, Classes, int]:
    classes = Classes(ids=json.loads(metadata["class_ids"]), names=json.loads(metadata["classes"]))
    side = int(metadata["side"])
    if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
        raise ValueError(f"pictures of {side} pixels a side")
    return metadata["name"], classes, side


def open_onnx(path: Path) -> Run:
    """What runs an ONNX file. Raises UserError if it is damaged."""
    return partial(_run, open_session(path))


def _run(session: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = session.run(["logits"], {"images": pixels})[0]
    return logits


def _warm(network: Network) -> Network:
    """The network after its first call, which is slower. Raises UserError unless it gives a number for each class."""
    side = network.side
    try:
        found = network.logits(np.zeros((1, side, side, 3), np.uint8)).shape[1]
    except UserError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{network.path}: does not take pictures of {side}×{side} pixels ({reason}); restore it"
        ) from error
    if found != len(network.classes.ids):
        raise UserError(
            f"{network.path}: tells {found:,} classes apart, but {len(network.classes.ids):,} are named; restore both"
        )
    return network
