"""Parts of a stored network fine-tuned by PyTorch: more than its classifier, which `adapt` trains without."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from frugalnet.adaptation.config import Part, Rates, TuningConfig
from frugalnet.adaptation.finetuning import fine_tune, for_classes
from frugalnet.data.augment import augment
from frugalnet.data.config import AugmentConfig
from frugalnet.export.config import ExportConfig
from frugalnet.export.files import write_files
from frugalnet.export.formats import FILES, Format
from frugalnet.metrics import counts
from frugalnet.training.batches import Examples
from frugalnet.training.inference import infer
from frugalnet.use import weights
from frugalnet.use.weights import Stored

VIEWS = 8  # augmented copies of each training picture, in turn
POLICY = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "Affine", "p": 0.8, "scale": [0.85, 1.15], "translate_percent": [-0.1, 0.1], "rotate": [-10, 10]},
    {"name": "ColorJitter", "p": 0.8, "brightness": [0.8, 1.2], "contrast": [0.8, 1.2], "saturation": [0.8, 1.2]},
]
TUNING = TuningConfig(
    steps=200,
    batch_size=32,
    learning_rate=Rates.model_validate(
        {"classifier": 1e-2, "norms": 1e-2, "blocks": 3e-3, "all": 3e-3, "scratch": 3e-3}
    ),
)


class FineTuned:
    """A stored network whose part was fine-tuned on (N, side, side, 3) uint8 pictures with (N,) labels.

    is_balanced: the pictures of the smaller classes are repeated until each class has as many. Raises UserError as
    `load_network` and `fine_tune` do.
    """

    def __init__(
        self,
        stored: Stored,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        part: Part,
        seed: int,
        is_balanced: bool,
    ) -> None:
        torch.set_num_threads(1)
        normalise, network = weights.load_network(stored)
        config = AugmentConfig.model_validate({"views": VIEWS, "seed": seed, "policy": POLICY})
        views = [augment(pixels, config, view, 0) for view in range(VIEWS)]
        chosen = evened(labels, seed) if is_balanced else np.arange(len(labels))
        tuned = for_classes(network, stored.entry.model, seed, int(labels.max()) + 1)
        examples = Examples(lambda epoch: views[epoch % VIEWS][chosen], labels[chosen])
        fine_tune(tuned, part, examples, normalise, TUNING, seed)
        self._network = nn.Sequential(normalise, tuned)
        self._pixels = pixels
        self.run = partial(infer, tuned, normalise=normalise)
        self.macs = counts.macs(tuned, (3, stored.entry.side, stored.entry.side))
        self.recipe: dict[str, Any] = TUNING.model_dump()

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {name: value.contiguous().numpy() for name, value in self._network[1].state_dict().items()}

    def files(self, metadata: Mapping[str, str], folder: Path) -> dict[Format, bytes]:
        """The ONNX file, and the int8 file, calibrated on the training pictures; `folder` is an empty one."""
        config = ExportConfig(calibration_images=len(self._pixels), max_loss_points=0.0)
        write_files(self._network, self._pixels, config, metadata, folder)
        return {kind: (folder / FILES[kind]).read_bytes() for kind in ("onnx", "int8")}


def evened(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The indices of (n,) labels with those of the smaller classes repeated, until each class has as many."""
    most = int(np.bincount(labels).max())
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    return np.concatenate([np.resize(shuffled[labels[shuffled] == label], most) for label in np.unique(labels)])
