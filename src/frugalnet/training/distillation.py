"""A trained teacher's logits for every view of the training split, stored once, and the loss that learns from them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from frugalnet import models
from frugalnet.errors import UserError
from frugalnet.files import atomic, sha256, sha256_each, write_json
from frugalnet.training.config import TeacherConfig
from frugalnet.training.inference import load_weights

_ROWS_PER_HASH = 10_000


def teacher(config: TeacherConfig, num_classes: int) -> nn.Module | None:
    """The trained teacher, or None if the configuration names none.

    Raises UserError if the file is missing, is another than the configuration's, or does not fit the network.
    """
    if config.model is None or config.weights is None:
        return None
    weights = Path(config.weights)
    found = sha256(weights) if weights.is_file() else "no such file"
    if found != config.sha256:
        raise UserError(f"teacher.weights: {weights}: expected a file with SHA-256 {config.sha256}, found {found}")
    return load_weights(models.build(config.model, num_classes), weights)


def write_logits(logits: Iterable[np.ndarray], folder: Path) -> None:
    """Write a teacher's logits for each view, (N, classes), as float16 arrays in the form that `PerView` reads.

    `folder` is written whole or not at all.
    """
    hashes = {}
    with atomic(folder) as partial:
        partial.mkdir()
        for number, of_view in enumerate(logits):
            halves = of_view.astype(np.float16)
            np.save(partial / f"logits_{number}.npy", halves)
            hashes[f"logits_{number}.npy"] = sha256_each(halves, _ROWS_PER_HASH)
        write_json(partial / "views.json", {"images_per_hash": _ROWS_PER_HASH, "sha256": hashes})


def divergence(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ network), the mean over a batch, of their predictions softened by the temperature T.

    logits, taught: (n, classes). Hinton, Vinyals and Dean (2015), "Distilling the knowledge in a neural network",
    section 2: the factor T² keeps the gradients' size when the temperature changes.
    """
    softened, target = (log_softmax(values.float() / temperature, 1) for values in (logits, taught))
    return temperature**2 * kl_div(softened, target, reduction="batchmean", log_target=True)
