"""From stored uint8 images to batches of normalised floats on a device: the one place where bytes become floats."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from frugalnet.errors import UserError
from frugalnet.files import read_json, sha256_each
from frugalnet.training.balance import draw_balanced

Batch = tuple[Tensor, ...]  # images (n, H, W, 3) uint8, labels (n,) int64; with a teacher, its (n, classes) logits

Stored = TypeVar("Stored", np.ndarray, None)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch reads its images: (count,) int64, a function of (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def batch_indices(seed: int, epoch: int, count: int, steps: int) -> list[np.ndarray]:
    """The indices of each step's images: an epoch's order in `steps` parts, whose sizes differ by one at most."""
    return np.array_split(epoch_order(seed, epoch, count), steps)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """The number of batches of at most `batch_size` images that hold `count` images, none dropped.

    If batches of equal size are possible with at least three quarters of `batch_size`, the largest such size is used:
    a compiled network is compiled again for every size. Otherwise sizes differ by one.
    """
    fewest = -(-count // batch_size)
    equal = (steps for steps in range(fewest, 4 * count // (3 * batch_size) + 1) if count % steps == 0)
    return next(equal, fewest)


def images_of_steps(steps: int, count: int, total_steps: int) -> int:
    """The number of images in the first `steps` of the `total_steps` batches that hold `count` images."""
    smaller, larger = divmod(count, total_steps)  # the first `larger` batches hold one image more
    return steps * smaller + min(steps, larger)


@dataclass(frozen=True)
class Examples:
    """What a network is trained on.

    images_of: returns the (N, H, W, 3) uint8 images of an epoch (from 0): the same array each time that it is the same
    images, since a GPU keeps a copy of each. labels: (N,) int64. chosen: the indices (n,) of the images that are used;
    None: all. taught: returns a teacher's (N, classes) logits for an epoch's images, or None if there is no teacher.
    balanced: each epoch shows equally many images of each class.
    """

    images_of: Callable[[int], np.ndarray]
    labels: np.ndarray
    chosen: np.ndarray | None = None
    taught: Callable[[int], np.ndarray | None] = lambda epoch: None
    balanced: bool = False

    def indices(self, seed: int, epoch: int, count: int, steps: int) -> list[np.ndarray]:
        """`batch_indices` of the `count` images that are used, as indices of all."""
        turns = batch_indices(seed, epoch, count, steps)
        chosen = self.chosen
        if self.balanced:
            used = np.arange(len(self.labels)) if chosen is None else chosen
            chosen = used[draw_balanced(self.labels[used], seed, epoch)]
        return turns if chosen is None else [chosen[turn] for turn in turns]


class Normaliser(nn.Module):
    """Subtracts the training split's channel means and divides by its standard deviations (the paper's section 3.1).

    mean, std: R, G, B, on the scale 0..255. `nn.Sequential(normaliser, network)` takes images as they are stored.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32, device=device).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor(std, dtype=torch.float32, device=device).view(1, 3, 1, 1))

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 → (N, 3, H, W) float32 in channels_last layout, on the normaliser's device."""
        # The permuted view of (N, H, W, 3) already is channels_last: no memory moves.
        channels_first = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return channels_first.to(torch.float32).sub_(self.mean).mul_(self.scale)


class PerView:
    """An array for each augmented view of the training split, as a stage stored it: epoch e (from 0) reads e mod V.

    A view's is mapped from disk, and checked against its SHA-256, chunk by chunk, when it is first opened.
    stage: the DVC stage that writes `folder`.
    """

    def __init__(self, folder: Path, stage: str = "augment") -> None:
        self.folder, self._stage = folder, stage
        described = read_json(folder / "views.json")
        self.sha256: dict[str, list[str]] = described["sha256"]
        self._images_per_hash: int = described["images_per_hash"]
        self._opened: dict[str, np.ndarray] = {}

    def of_epoch(self, epoch: int, otherwise: Stored) -> np.ndarray | Stored:
        """The epoch's array, whose first axis is the training split's; `otherwise` if none are stored.

        Raises UserError if the view is missing or its bytes have changed.
        """
        names = list(self.sha256)  # in the order of the views
        if not names:
            return otherwise
        name = names[epoch % len(names)]
        if name not in self._opened:
            path = self.folder / name
            try:
                images = np.load(path, mmap_mode="r")
                hashes = sha256_each(images, self._images_per_hash)
            except (OSError, ValueError):
                hashes = []
            if hashes != self.sha256[name]:
                raise UserError(
                    f"{path}: missing or damaged (its SHA-256 is not the one in views.json); write it again: "
                    "rm -rf .dvc/cache/runs && "
                    f"dvc repro --force --single-item {self._stage}"
                )
            self._opened[name] = images
        return self._opened[name]


class Resident:
    """Keeps views on a GPU that has room for them, so that each is copied there once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies: dict[int, tuple[np.ndarray, Tensor]] = {}  # by identity: a view is mapped once

    def of(self, images: np.ndarray) -> np.ndarray | Tensor:
        """The images on the device if it is a GPU with room for twice their size; else as they are."""
        if id(images) not in self._copies:
            if self._device.type != "cuda" or 2 * images.nbytes > torch.cuda.mem_get_info(self._device)[0]:
                return images
            self._copies[id(images)] = images, torch.from_numpy(np.array(images)).to(self._device)
        return self._copies[id(images)][1]


def batches(
    images: np.ndarray | Tensor,
    labels: np.ndarray,
    indices: Sequence[np.ndarray],
    device: torch.device,
    taught: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Yield the images and labels at each array of indices: (n, H, W, 3) uint8 and (n,) int64 tensors on `device`.

    images: (N, H, W, 3) uint8, on the device or not; labels: (N,) int64. taught: a teacher's (N, classes) logits,
    whose rows at the indices are then a batch's third tensor. On a GPU the next batch is copied, from pinned memory and
    on a stream of its own, while the current one computes.
    """
    pinned = device.type == "cuda" and not isinstance(images, Tensor)

    def moved(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=True)

    def fetch(chosen: np.ndarray) -> Batch:
        pixels = images[moved(chosen)] if isinstance(images, Tensor) else moved(images[chosen])
        return pixels, *(moved(targets[chosen]) for targets in (labels, taught) if targets is not None)

    fetched = map(fetch, indices)
    yield from _ahead(fetched, torch.cuda, device) if pinned else fetched


def _ahead(fetched: Iterator[Batch], cuda: Any, device: torch.device) -> Iterator[Batch]:
    """Fetch each batch on a copying stream before the one ahead of it is handed out. cuda: `torch.cuda`."""
    copying = cuda.Stream(device)

    def fetch() -> Batch | None:
        with cuda.stream(copying):
            return next(fetched, None)

    following = fetch()
    while following is not None:
        computing = cuda.current_stream(device)
        computing.wait_stream(copying)  # until this batch has arrived
        batch = following
        for tensor in batch:
            tensor.record_stream(computing)  # its memory is not reused before the step is done with it
        following = fetch()
        yield batch
