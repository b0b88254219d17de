"""A stored network with a new classifier, trained on features that ONNX Runtime computes: no PyTorch is needed."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from frugalnet.errors import UserError, needing_study
from frugalnet.use.onnx_file import Classifier, OnnxFile
from frugalnet.use.runtime import open_session
from frugalnet.use.softmax import DECAY, train_classifier
from frugalnet.use.weights import Stored, check_file, check_onnx

_BATCH = 32  # pictures: what the runtime holds at once


class Retrained:
    """A stored network whose classifier was trained on (N, side, side, 3) uint8 pictures with (N,) labels.

    Raises UserError if the network's files are not what they should be, or if it does not end in a classifier.
    """

    def __init__(self, stored: Stored, pixels: NDArray[np.uint8], labels: NDArray[np.int64], is_balanced: bool) -> None:
        self._stored = stored
        self._file = _onnx_file(stored)
        model, outputs = self._file.features_model()
        self._outputs = outputs
        self._session = open_session(self._file.path, model)
        old = self._file.classifier
        self._width = old.weight.shape[1]
        self._check_linear(old, pixels[:_BATCH])
        self._classifier = train_classifier(self.features(pixels), labels, is_balanced)
        saved = len(old.bias) - len(self._classifier.bias)
        self.macs = stored.entry.macs - saved * self._width * self._file.uses
        self.recipe: dict[str, Any] = {"decay": DECAY}

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the classifier takes: (N, side, side, 3) uint8 → (N, features) float32.

        The mean over all places where it is used: of the picture and its mirror image, or of the last feature map.
        """
        starts = range(0, len(pixels), _BATCH)
        return np.concatenate([self._features(pixels[start : start + _BATCH]) for start in starts])

    def _features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = self._session.run(self._outputs, {"images": pixels})
        means = [value.reshape(len(pixels), self._width, -1).mean(axis=2) for value in values]
        return np.asarray(np.mean(means, axis=0), np.float32)

    def _check_linear(self, classifier: Classifier, pixels: NDArray[np.uint8]) -> None:
        (logits,) = self._session.run(["logits"], {"images": pixels})
        again = _answer(classifier, self._features(pixels))
        if not np.allclose(again, logits, rtol=1e-3, atol=1e-3):
            raise UserError(f"{self._file.path}: its answers are not those of its last layer; use --train all")

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, side, side, 3) uint8 → (N, classes) logits."""
        return _answer(self._classifier, self.features(pixels))

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

    def onnx(self, metadata: Mapping[str, str], folder: Path) -> bytes:
        """The ONNX file; `folder` is not used."""
        return self._file.replaced(self._classifier, metadata)


def _answer(classifier: Classifier, features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(features @ classifier.weight.T + classifier.bias)


def _onnx_file(stored: Stored) -> OnnxFile:
    """The network's ONNX file, which PyTorch writes if there is none beside the weights."""
    if stored.entry.onnx is not None:
        return OnnxFile(check_onnx(stored))
    with needing_study(f"{stored.path}: has no ONNX file beside it; to write one"):
        from frugalnet.export.config import ExportConfig
        from frugalnet.use.exported import write_stored
    side = stored.entry.side
    with tempfile.TemporaryDirectory() as temporary:
        config = ExportConfig(calibration_images=1, max_loss_points=0.0)
        write_stored(stored, np.zeros((1, side, side, 3), np.uint8), config, Path(temporary))
        return OnnxFile(Path(temporary) / "model.onnx")
