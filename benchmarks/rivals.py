"""The usual way to train: JPEG files, ImageFolder, DataLoader, augmentation on the fly.

Default memory layout, eager mode, torch.optim.SGD with default options.
"""

import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import albumentations
import cv2
import numpy as np
import psutil
import torch
from albumentations.pytorch import ToTensorV2
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2

from frugalnet import models
from frugalnet.data.config import Transform
from frugalnet.data.policy import build_policy
from frugalnet.processes import cores
from frugalnet.training.config import TrainConfig

JPEGS = 20_000  # at most
IN_FLIGHT = 2 * cores()  # batches that an idle DataLoader has prepared or begun

Batches = Iterator[tuple[Tensor, Tensor]]


def extract_jpegs(archive: Path, folder: Path) -> None:
    """Write up to JPEGS training images, spread over all classes, as class/name.JPEG."""
    with zipfile.ZipFile(archive) as members:
        names = [name for name in members.namelist() if "/train/" in name and name.endswith(".JPEG")]
        for name in names[:: -(-len(names) // JPEGS)]:
            path = folder / Path(name).parents[1].name / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            with members.open(name) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)


def albumentations_folder(
    jpegs: Path, policy: Sequence[Transform], mean: Sequence[float], std: Sequence[float]
) -> ImageFolder:
    """The project's own policy, applied on the fly. mean, std: per channel, on the scale 0..1."""
    transform = albumentations.Compose([*build_policy(policy), albumentations.Normalize(mean, std), ToTensorV2()])

    def read(path: str) -> np.ndarray:
        image: np.ndarray = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        return image

    return ImageFolder(str(jpegs), lambda image: transform(image=image)["image"], loader=read)


def torchvision_folder(jpegs: Path, mean: Sequence[float], std: Sequence[float]) -> ImageFolder:
    """The default policy with torchvision's transforms. Unlike ours, erased patches need not be square."""
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
    return ImageFolder(str(jpegs), transform)


def endless_batches(folder: ImageFolder, batch_size: int) -> Batches:
    """Batches of endless epochs, from one persistent worker per core."""
    cv2.setNumThreads(1)  # set before forking: a forked worker would wait forever for this process's OpenCV threads
    loader = DataLoader(folder, batch_size, shuffle=True, drop_last=True, num_workers=cores(), persistent_workers=True)
    while True:
        yield from loader


def wait_for_workers() -> None:
    """Wait until the loaders' workers have filled their queues: until then they take time from the next contestant."""
    workers = psutil.Process().children(recursive=True)
    before = None
    while before != (times := [worker.cpu_times() for worker in workers]) or any(
        worker.status() == psutil.STATUS_RUNNING for worker in workers
    ):
        before = times
        time.sleep(0.3)


class UsualTraining:
    """A new network on the CPU, trained in the usual way."""

    def __init__(self, model: str, num_classes: int, config: TrainConfig) -> None:
        self.network = models.build(model, num_classes).train()
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=config.learning_rate / 100,  # as in the first steps
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=True,
        )
        self.criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)

    def images_per_second(self, batches: Batches, steps: int) -> float:
        """Of `steps` steps, once those batches are used up that were prepared before. Ends with workers at rest."""
        running_loss = 0.0
        for number in range(IN_FLIGHT + steps):
            if number == IN_FLIGHT:
                started = time.monotonic()
            images, labels = next(batches)
            self.optimiser.zero_grad()
            loss = self.criterion(self.network(images), labels)
            loss.backward()
            self.optimiser.step()
            running_loss += loss.item()
        seconds = time.monotonic() - started
        wait_for_workers()
        return steps * len(labels) / seconds
