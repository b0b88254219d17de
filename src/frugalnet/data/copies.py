"""Near copies among pictures: the same picture saved in another size or quality."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frugalnet.files import read_record
from frugalnet.processes import cores
from frugalnet.schema import Config

NEAR = 0.15  # difference of near copies, as a fraction of their contrast: JPEG at quality 80 gives up to 0.14
SMALL = 32  # pixels a side at which pictures are compared
ROWS = 256  # compared at a time, which bounds memory
MOST = 16  # pictures that are compared in full with one: those that are nearest at 8×8 pixels


class NearCopy(Config):
    """A validation picture, the training picture that looks the same, and by how much of their contrast they differ."""

    validation: str
    train: str
    difference: float


class NearCopies(Config):
    """The file near_copies.json: one entry for each validation picture that has a near copy, the nearest first."""

    pairs: list[NearCopy]


def find_near_copies(
    validation: NDArray[np.uint8], validation_names: Sequence[str], train: NDArray[np.uint8], train_names: Sequence[str]
) -> NearCopies:
    """The near copies in both splits, (N, side, side, 3) uint8 each, by their pictures' names."""
    pairs = [
        NearCopy(validation=validation_names[i], train=train_names[j], difference=round(difference, 4))
        for i, j, difference in copies_between(validation, train)
    ]
    return NearCopies(pairs=sorted(pairs, key=lambda pair: (pair.difference, pair.validation)))


def near_copies(pixels: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """The pairs of (N, side, side, 3) pictures that look the same.

    Their root-mean-square difference at 32×32 pixels is below 15 % of the contrast (the deviation from the mean
    colour) of either. So line drawings, icons and dark pictures, in which few or faint pixels tell one from another,
    are not taken for copies. A dark picture's copy in low quality is missed: the difference is as large as the content.
    """
    small = _small(pixels)
    contrast = _contrast(small)
    flat = small.reshape(len(small), -1).astype(np.float64)
    squares = (flat**2).sum(axis=1)
    pairs = []
    for start in range(0, len(flat), ROWS):
        rows = slice(start, start + ROWS)
        distances = squares[rows, None] + squares - 2 * flat[rows] @ flat.T
        limits = NEAR * np.minimum(contrast[rows, None], contrast)
        near = np.argwhere(distances / flat.shape[1] < limits**2)
        pairs += [(start + int(i), int(j)) for i, j in near if start + i < j]
    return pairs


def copies_between(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Iterator[tuple[int, int, float]]:
    """Of each of `first` that has a near copy in `second`, (N, side, side, 3): their positions, and the difference.

    Near copies are those of `near_copies`; the nearest is given, and its difference as a fraction of the contrast.
    Pictures are first compared at 8×8 pixels in grey, where two differ no more than in full.
    """
    features, contrast = _described(second)
    others = np.concatenate([features, (features**2).sum(axis=1, keepdims=True)], axis=1)
    for start in range(0, len(first), ROWS):
        rows = first[start : start + ROWS]
        row_features, row_contrast = _described(rows)
        # The squared distance, without the part that is the same for all of a row.
        distances = np.concatenate([-2 * row_features, np.ones((len(rows), 1), np.float32)], axis=1) @ others.T
        limits = (NEAR * row_contrast * SMALL) ** 2 * 3 - (row_features**2).sum(axis=1)
        slack = 1e-3 * (limits + 2 * (row_features**2).sum(axis=1)) + 1
        for row in np.flatnonzero(distances.min(axis=1) < limits + slack):
            near = np.flatnonzero(distances[row] < limits[row] + slack[row])
            near = np.sort(near[np.argsort(distances[row, near], kind="stable")[:MOST]])
            both = _small(np.concatenate([rows[row : row + 1], second[near]])).astype(np.float64)
            differences = np.sqrt(((both[1:] - both[0]) ** 2).mean(axis=(1, 2, 3)))
            differences /= np.minimum(row_contrast[row], contrast[near])
            best = int(differences.argmin())
            if differences[best] < NEAR:
                yield start + int(row), int(near[best]), float(differences[best])


def _described(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What bounds the distance of two pictures from below, (N, 64), and each one's contrast, (N,)."""
    features = np.empty((len(pixels), 64), np.float32)
    contrast = np.empty(len(pixels))
    block = SMALL // 8

    def describe(start: int) -> None:
        small = _small(pixels[start : start + ROWS])
        grey = small.sum(axis=3, dtype=np.uint16)
        features[start : start + ROWS] = _sums(grey, block).reshape(-1, 64) / (block * np.sqrt(3))
        contrast[start : start + ROWS] = _contrast(small)

    with ThreadPoolExecutor(cores()) as threads:  # numpy releases the GIL
        list(threads.map(describe, range(0, len(pixels), ROWS)))
    return features, contrast


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, side, side, 3) → (N, 32, 32, 3), each pixel the mean of an area."""
    factor, rest = divmod(pixels.shape[1], SMALL)
    if not rest and factor < 16:  # as Pillow's, but for rounding, in a fifth of the time
        return ((_sums(pixels, factor) + np.uint16(factor**2 // 2)) // np.uint16(factor**2)).astype(np.uint8)
    box = Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(picture).resize((SMALL, SMALL), box)) for picture in pixels])


def _sums(values: NDArray[Any], factor: int) -> NDArray[np.uint16]:
    """(N, H, W, …) → (N, H / factor, W / factor, …), the sums of squares of so many values a side."""
    rows = values[:, ::factor].astype(np.uint16)
    for i in range(1, factor):
        rows += values[:, i::factor]
    columns = rows[:, :, ::factor].copy()
    for i in range(1, factor):
        columns += rows[:, :, i::factor]
    return columns


def _contrast(small: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The deviation from the mean colour, (N,), at least 1."""
    values = small.reshape(len(small), -1, 3).astype(np.float64)
    variance = np.einsum("npc,npc->n", values, values) / values[0].size - (values.mean(axis=1) ** 2).mean(axis=1)
    return np.asarray(np.sqrt(np.maximum(variance, 1.0)))


def read_near_copies(folder: Path) -> list[NearCopy]:
    """The near copies that `normalise` lists in its folder; none where it does not look for them.

    Raises UserError if the list is damaged.
    """
    path = folder / "near_copies.json"
    listed = read_record(path, NearCopies) if path.is_file() else None
    return listed.pairs if listed else []
