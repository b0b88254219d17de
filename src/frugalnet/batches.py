"""From stored uint8 images to batches of normalised floats on a device: the one place where bytes become floats."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch reads its images: (count,) int64, a function of (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many batches hold `count` images, none larger than `batch_size`."""
    return -(-count // batch_size)


class Normaliser:
    """Subtracts the training split's channel means and divides by its deviations (section 3.1)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.device = device
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self.scale = 1 / torch.tensor(std, dtype=torch.float32, device=device).view(1, 3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 → (N, 3, H, W) float32 in channels_last layout, on the normaliser's device."""
        # The permuted view of (N, H, W, 3) already is channels_last: nothing is moved.
        channels_first = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return channels_first.to(torch.float32).sub_(self.mean).mul_(self.scale)


def resident(images: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """The images on the device where it is a GPU with room for twice their size; else as they are, mapped from disk."""
    if device.type == "cuda" and 2 * images.nbytes < torch.cuda.mem_get_info(device)[0]:
        return torch.from_numpy(np.array(images)).to(device)
    return images


def batches(
    images: np.ndarray | Tensor,
    labels: np.ndarray,
    order: np.ndarray,
    batch_size: int,
    device: torch.device,
    first_step: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ((n, H, W, 3) uint8, (n,) int64) tensors of an epoch, from `first_step` on, as their turn in `order` comes.

    Sizes differ by one at most, so that no image is dropped and no batch is too small for batch normalisation.
    On a GPU the next batch is copied from pinned memory while the present one computes.
    """
    turns = np.array_split(order, steps_per_epoch(len(order), batch_size))[first_step:]

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
    waiting = None
    for turn in turns:
        fetched, waiting = waiting, fetch(turn)
        if fetched is not None:
            yield fetched
    if waiting is not None:
        yield waiting
