"""From stored uint8 images to batches of normalised floats on a device: the one place where bytes become floats."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from frugalnet.errors import UserError
from frugalnet.files import read_json, sha256_each


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch reads its images: (count,) int64, a function of (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def epoch_turns(seed: int, epoch: int, count: int, steps: int) -> list[np.ndarray]:
    """An epoch's order, cut into its steps' batches.

    Sizes differ by one at most, so that no image is dropped and no batch is too small for batch normalisation.
    """
    return np.array_split(epoch_order(seed, epoch, count), steps)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many batches hold `count` images, none larger than `batch_size`."""
    return -(-count // batch_size)


class Normaliser(nn.Module):
    """Subtracts the training split's channel means and divides by its deviations (section 3.1).

    `nn.Sequential(normaliser, network)` is a model of pictures as they are stored.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32, device=device).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor(std, dtype=torch.float32, device=device).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 → (N, 3, H, W) float32 in channels_last layout, on the normaliser's device."""
        # The permuted view of (N, H, W, 3) already is channels_last: nothing is moved.
        channels_first = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return channels_first.to(torch.float32).sub_(self.mean).mul_(self.scale)


class Views:
    """The stored augmented views of the training split; epoch e (from 0) reads view e mod V.

    Each is checked against its SHA-256, chunk by chunk, when it is first opened, and mapped from disk, not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        described = read_json(folder / "views.json")
        self.sha256: dict[str, list[str]] = described["sha256"]
        self._images_per_hash: int = described["images_per_hash"]
        self._opened: dict[str, np.ndarray] = {}

    def of_epoch(self, epoch: int, unaugmented: np.ndarray) -> np.ndarray:
        """The epoch's (N, H, W, 3) uint8 images: a view, or `unaugmented` where none are stored.

        Raises UserError if the view's bytes are not those that were written.
        """
        names = list(self.sha256)  # in the order of their numbers
        if not names:
            return unaugmented
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
                    f"{path}: missing or damaged (its SHA-256 is not the one in views.json); delete {self.folder} and "
                    "run `dvc repro augment` to write it again"
                )
            self._opened[name] = images
        return self._opened[name]


def resident(images: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """The images on the device where it is a GPU with room for twice their size; else as they are, mapped from disk."""
    if device.type == "cuda" and 2 * images.nbytes < torch.cuda.mem_get_info(device)[0]:
        return torch.from_numpy(np.array(images)).to(device)
    return images


def batches(
    images: np.ndarray | Tensor,
    labels: np.ndarray,
    turns: Sequence[np.ndarray],
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ((n, H, W, 3) uint8, (n,) int64) tensors: for each of the turns, the images whose indices it holds.

    On a GPU the next batch is copied from pinned memory while the present one computes.
    """

    def fetch(turn: np.ndarray) -> tuple[Tensor, Tensor]:
        targets = torch.from_numpy(labels[turn])
        if isinstance(images, Tensor):
            return images[torch.from_numpy(turn).to(device)], targets.to(device)
        pixels = torch.from_numpy(images[turn])
        if device.type == "cuda":
            pixels, targets = pixels.pin_memory(), targets.pin_memory()
        return pixels.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    if device.type != "cuda":
        yield from map(fetch, turns)
        return
    waiting: tuple[Tensor, Tensor] | None = None
    for turn in turns:
        fetched, waiting = waiting, fetch(turn)
        if fetched is not None:
            yield fetched
    if waiting is not None:
        yield waiting
