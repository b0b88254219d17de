"""The usual way to train: JPEG files, ImageFolder, DataLoader, augmentation on the fly.

Default memory layout, eager mode, torch.optim.SGD with default options.
"""

import time
from collections.abc import Callable, Iterator

import albumentations
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]
from torchvision.transforms import InterpolationMode, v2  # type: ignore[import-untyped]

from benchmarks.data import Data
from frugalnet import models
from frugalnet.config import Params
from frugalnet.data.augment import build_policy
from frugalnet.processes import cores


def albumentations_folder(data: Data, params: Params) -> ImageFolder:
    """The project's own policy, applied on the fly."""
    mean, std = ([value / 255 for value in values] for values in (data.dataset.mean, data.dataset.std))
    policy = albumentations.Compose(
        [*build_policy(params.augment.policy), albumentations.Normalize(mean, std), ToTensorV2()]
    )

    def read(path: str) -> np.ndarray:
        image: np.ndarray = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        return image

    return ImageFolder(str(data.jpegs), lambda image: policy(image=image)["image"], loader=read)


def torchvision_folder(data: Data) -> ImageFolder:
    """The default policy with torchvision's transforms. Unlike ours, erased patches need not be square."""
    mean, std = ([value / 255 for value in values] for values in (data.dataset.mean, data.dataset.std))
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomHorizontalFlip(),
            v2.RandomCrop(64, padding=6, padding_mode="reflect"),
            v2.RandomApply([v2.RandomRotation(10, InterpolationMode.BILINEAR)], p=0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomApply([v2.GaussianNoise(sigma=0.03)], p=0.1),
            v2.Normalize(mean, std),
            v2.RandomErasing(p=0.2, scale=(0.016, 0.1), ratio=(0.4, 2.5)),
        ]
    )
    return ImageFolder(str(data.jpegs), transform)


def endless(folder: ImageFolder, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of endless epochs, from one persistent worker per core."""
    cv2.setNumThreads(1)  # set before forking: a forked worker would wait forever for this process's OpenCV threads
    loader = DataLoader(
        folder,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=cores(),
        persistent_workers=True,
    )
    while True:
        yield from loader


def build(model: str, data: Data, params: Params) -> Callable[[Iterator[tuple[Tensor, Tensor]], int], float]:
    """A function that trains a new network on a number of batches and returns the seconds they took."""
    network, config = models.build(model, len(data.dataset.class_ids)), params.train
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate / 100,  # as in the first steps
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=True,
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)

    def train(batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> float:
        network.train()
        running_loss = 0.0
        started = time.monotonic()
        for _ in range(steps):
            images, labels = next(batches)
            optimiser.zero_grad()
            loss = criterion(network(images), labels)
            loss.backward()
            optimiser.step()
            running_loss += loss.item()
        return time.monotonic() - started

    return train
