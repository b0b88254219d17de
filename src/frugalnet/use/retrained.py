"""A stored network with a new classifier, trained on features that ONNX Runtime computes: no PyTorch is needed."""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from frugalnet.errors import UserError, needing_study
from frugalnet.export.formats import Format
from frugalnet.export.runtimes import open_session
from frugalnet.use.int8_file import with_classifier
from frugalnet.use.onnx_file import Classifier, OnnxFile, read_model, with_features
from frugalnet.use.softmax import DECAY, LEAST_OF_INT8, train_classifier
from frugalnet.use.weights import Stored, check_export, check_file

_BATCH = 32  # pictures: what the runtime holds at once


class Features:
    """What the classifier in an ONNX file takes. path: of the file, for messages."""

    def __init__(self, path: Path, model: Any) -> None:
        contents, self._outputs = with_features(model)
        self._session = open_session(path, contents)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, side, side, 3) uint8 → (N, features) float32.

        The mean over all places where it is used: of the picture and its mirror image, or of the last feature map.
        """
        starts = range(0, len(pixels), _BATCH)
        return np.concatenate([self._of_batch(pixels[start : start + _BATCH]) for start in starts])

    def _of_batch(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = self._session.run(self._outputs, {"images": pixels})
        means = [value.reshape(*value.shape[:2], -1).mean(axis=2) for value in values]
        return np.asarray(np.mean(means, axis=0), np.float32)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the file itself answers."""
        return np.asarray(self._session.run(["logits"], {"images": pixels})[0])


class Retrained:
    """A stored network whose classifier was trained on (N, side, side, 3) uint8 pictures with (N,) labels.

    Raises UserError if the network's files are not what they should be, or if it does not end in a classifier.
    """

    def __init__(self, stored: Stored, pixels: NDArray[np.uint8], labels: NDArray[np.int64], is_balanced: bool) -> None:
        self._stored = stored
        self._file = _onnx_file(stored)
        self._features = Features(self._file.path, self._file.model)
        self._check_linear(pixels[:_BATCH])
        self._train = partial(train_classifier, labels=labels, is_balanced=is_balanced)
        self._pixels = pixels
        self._classifier = self._train(self._features(pixels))
        old = self._file.classifier.weight
        self.macs = stored.entry.macs - (len(old) - len(self._classifier.bias)) * old.shape[1] * self._file.uses
        self.recipe: dict[str, Any] = {"decay": DECAY}

    def _check_linear(self, pixels: NDArray[np.uint8]) -> None:
        again = _answer(self._file.classifier, self._features(pixels))
        if not np.allclose(again, self._features.logits(pixels), rtol=1e-3, atol=1e-3):
            raise UserError(f"{self._file.path}: its answers are not those of its last layer; use --train all")

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, side, side, 3) uint8 → (N, classes) logits."""
        return _answer(self._classifier, self._features(pixels))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The network's parameters and buffers, by the names that they have in PyTorch. Raises UserError as above."""
        check_file(self._stored)
        try:
            tensors: dict[str, NDArray[Any]] = load_file(self._stored.path)
        except SafetensorError as error:
            raise UserError(f"{self._stored.path}: damaged ({error}); restore it") from error
        for kind, values in (("weight", self._classifier.weight), ("bias", self._classifier.bias)):
            (name,) = [name for name in tensors if f".{self._file.key}.{kind}".endswith(f".{name}")]
            tensors[name] = values.reshape(len(values), *tensors[name].shape[1:])
        return tensors

    def files(self, metadata: Mapping[str, str], folder: Path) -> dict[Format, bytes]:
        """The ONNX file, and the int8 file if the stored network has one; `folder` is not used.

        The int8 file gets a classifier of its own, as its features are rounded.
        """
        written: dict[Format, bytes] = {"onnx": self._file.replaced(self._classifier, metadata)}
        if self._stored.entry.int8 is not None:
            path = check_export(self._stored, "int8")
            features = Features(path, read_model(path))
            classifier = self._train(features(self._pixels), least=LEAST_OF_INT8)
            written["int8"] = with_classifier(path, classifier, metadata)
        return written


def _answer(classifier: Classifier, features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(features @ classifier.weight.T + classifier.bias)


def _onnx_file(stored: Stored) -> OnnxFile:
    """The network's ONNX file, which PyTorch writes if there is none beside the weights."""
    if stored.entry.onnx is not None:
        return OnnxFile(check_export(stored, "onnx"))
    with needing_study(f"{stored.path}: has no ONNX file beside it; to write one"):
        from frugalnet.export.config import ExportConfig
        from frugalnet.use.exported import write_stored
    side = stored.entry.side
    with tempfile.TemporaryDirectory() as temporary:
        config = ExportConfig(calibration_images=1, max_loss_points=0.0)
        write_stored(stored, np.zeros((1, side, side, 3), np.uint8), config, Path(temporary))
        return OnnxFile(Path(temporary) / "model.onnx")
