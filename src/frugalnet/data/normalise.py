"""The archive → the data set's arrays, labels and statistics."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugalnet.data.arrays import FILES, SPLITS, Dataset, read_dataset
from frugalnet.data.config import NormaliseConfig
from frugalnet.data.copies import find_near_copies
from frugalnet.data.decode import decode_members
from frugalnet.data.layout import choose_images, read_layout
from frugalnet.errors import printable
from frugalnet.files import atomic, sha256, write_json


def normalise(archive: Path, folder: Path, config: NormaliseConfig, *, is_sample: bool, processes: int) -> None:
    """Decode the archive's images into `folder`, which `read_dataset` reads. It is written whole or not at all.

    Images of another size than `config.side` pixels are scaled and centre-cropped. They are sorted by class and number;
    labels are positions in wnids.txt. The bytes depend neither on the order of the archive's members nor on the number
    of decoding `processes` (0: one per core).
    Raises UserError, naming the member, if the archive is not as expected, and OSError, naming the path, if the disk is
    full or read-only.
    """
    layout = read_layout(archive, config.max_unpacked_bytes)
    layout = choose_images(layout, config.classes, config.train_per_class, config.holdout)
    with atomic(folder) as partial:
        partial.mkdir()
        members = {}
        for split, by_class in zip(SPLITS, (layout.train, layout.validation), strict=True):
            labels = np.repeat(np.arange(len(by_class), dtype=np.int64), [len(images) for images in by_class])
            np.save(partial / f"{split}_labels.npy", labels)
            members[partial / f"{split}_images.npy"] = [image for images in by_class for image in images]
        histograms = decode_members(archive, members, config.side, processes)
        mean, std = mean_and_std(histograms[partial / "train_images.npy"])
        description = {
            "name": config.name,
            "is_sample": is_sample,
            "validated_on": layout.validated_on,
            "class_ids": layout.class_ids,
            "class_names": layout.class_names,
            "mean": mean,
            "std": std,
            "sha256": {name: sha256(partial / name) for name in FILES},
        }
        write_json(partial / "dataset.json", description)
        data = read_dataset(partial)  # nothing that is not whole takes the folder's name
        if layout.is_packed:  # the official splits stay as they are
            train, validation = members.values()
            _write_near_copies(data, train, validation, partial / "near_copies.json")


def _write_near_copies(data: Dataset, train: Sequence[str], validation: Sequence[str], path: Path) -> None:
    """Write, and say, which validation pictures look like a training picture: a network may know them by heart."""
    copies = find_near_copies(data.validation.images, validation, data.train.images, train)
    write_json(path, copies.model_dump())
    if copies.pairs:
        nearest = copies.pairs[0]
        print(
            f"{len(copies.pairs):,} validation pictures look like a training picture, as "
            f"{printable(nearest.validation)} like {printable(nearest.train)}; {path.name} lists them"
        )


def mean_and_std(histogram: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, from (3, 256) counts of values; summed exactly, in integers.

    A channel of one value gets the deviation 1, so that training, which divides by it, only centres the channel.
    """
    mean: list[float] = []
    std: list[float] = []
    for counts in histogram.tolist():
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        mean.append(total / n)
        std.append(((n * squares - total * total) / (n * n)) ** 0.5 or 1.0)
    return mean, std
