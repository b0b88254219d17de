"""A training run put together: the network, the images and labels of each epoch, and who teaches it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from frugalnet.data.arrays import Dataset, Split
from frugalnet.training.balance import class_weights
from frugalnet.training.batches import Examples, Normaliser, PerView
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.config import TrainConfig
from frugalnet.training.loop import fit
from frugalnet.training.start import start_from
from frugalnet.training.trainer import History, Trainer


@dataclass(frozen=True)
class Job:
    """A network to train, how, and on what.

    views: of `data.train`. logits: a teacher's, for each view. left_out: the classes that the network does not learn.
    start: the stored weights that it starts from, but for its classifier; None: random ones.
    """

    model: str
    seed: int
    recipe: TrainConfig
    data: Dataset
    views: PerView
    logits: PerView | None = None
    left_out: tuple[int, ...] = ()
    start: Path | None = None

    def trainer(self, device: torch.device, compile_mode: str | None = None) -> Trainer:
        """The network with its first weights, on the device."""
        examples = self.examples()
        labels = examples.labels if examples.chosen is None else examples.labels[examples.chosen]
        num_classes = len(self.data.class_ids) - len(self.left_out)
        normalise = Normaliser(self.data.mean, self.data.std, device)
        trainer = Trainer(self.model, self.seed, num_classes, len(labels), normalise, self.recipe)
        if compile_mode:
            trainer.compile(compile_mode)
        if self.start:
            start_from(trainer.network, self.start)
        if self.recipe.balance == "weights":
            trainer.class_weights = torch.from_numpy(class_weights(labels, num_classes)).to(device)
        return trainer

    def fit(
        self,
        trainer: Trainer,
        checkpoints: Checkpoints,
        checkpoint_minutes: float = math.inf,
        on_epoch: Callable[[History], None] = lambda history: None,
    ) -> None:
        """Train to the last epoch: see `loop.fit`."""
        fit(trainer, self.examples(), self.validation(), checkpoints, on_epoch, checkpoint_minutes)

    def examples(self) -> Examples:
        """The training images, and the positions of their classes among those that the network learns."""
        labels = self._positions()[self.data.train.labels]
        chosen = np.flatnonzero(labels >= 0) if self.left_out else None
        return Examples(self.images_of, labels, chosen, self.taught, self.recipe.balance == "sampling")

    def images_of(self, epoch: int) -> np.ndarray:
        """The (N, H, W, 3) uint8 images of an epoch (from 0). Raises UserError if a view is missing or damaged."""
        return self.views.of_epoch(epoch, self.data.train.images)

    def taught(self, epoch: int) -> np.ndarray | None:
        """The teacher's (N, classes) float16 logits for an epoch's images, or None without a teacher."""
        return self.logits.of_epoch(epoch, None) if self.logits else None

    def validation(self) -> Split:
        """The validation images of the classes that the network learns."""
        if not self.left_out:
            return self.data.validation
        labels = self._positions()[self.data.validation.labels]
        shown = np.flatnonzero(labels >= 0)
        return Split(self.data.validation.images[shown], labels[shown])

    def _positions(self) -> np.ndarray:
        """The position of each class among those that the network learns, (classes,) int64; -1: left out."""
        learnt = np.setdiff1d(np.arange(len(self.data.class_ids)), self.left_out)
        positions = np.full(len(self.data.class_ids), -1)
        positions[learnt] = np.arange(len(learnt))
        return positions
