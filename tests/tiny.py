"""A recipe and data so small that a training takes a second. Processes of tests import it: nothing here is slow."""

import numpy as np

from frugalnet.data.arrays import Split
from frugalnet.training.config import TrainConfig
from frugalnet.training.trainer import Trainer

RECIPE = TrainConfig(
    recipe="test",
    epochs=3,
    batch_size=32,
    optimiser="sgd",
    muon_learning_rate=0.03,
    muon_weight_decay=0.1,
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=5e-5,
    schedule="one_cycle",
    warmup=0.2,
    label_smoothing=0.1,
    ema_decay=0.0,
    distillation=0.0,
    temperature=4.0,
    resolutions=[32],
)


def coloured_noise(count: int, seed: int) -> Split:
    """Four classes that differ in the mean of their red and green channels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    images = generator.integers(0, 160, (count, 32, 32, 3))
    images[..., 0] += 90 * (labels // 2)[:, None, None]
    images[..., 1] += 90 * (labels % 2)[:, None, None]
    return Split(images.astype(np.uint8), labels)


TRAIN, VALIDATION = coloured_noise(160, 0), coloured_noise(80, 1)


def images_of(epoch: int) -> np.ndarray:
    return TRAIN.images[:, :, :: -1 if epoch % 2 else 1]


def bits(trainer: Trainer) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in trainer.result.state_dict().items()}
