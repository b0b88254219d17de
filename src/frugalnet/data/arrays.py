"""The data set as uint8 arrays with labels and a description: made, saved, loaded."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from frugalnet.data.decode import IMAGE_SHAPE, decode_members
from frugalnet.data.layout import choose, read_layout
from frugalnet.errors import UserError
from frugalnet.files import atomic, sha256, write_json
from frugalnet.schema import Config

SPLITS = ("train", "validation")
FILES = tuple(f"{split}_{part}.npy" for split in SPLITS for part in ("images", "labels"))


class NormaliseConfig(Config):
    """Which of the archive's images become arrays."""

    name: Annotated[str, Field(min_length=1)]
    classes: Annotated[int, Field(ge=2)] | None  # the first so many of wnids.txt
    train_per_class: PositiveInt | None  # the first so many training images of each
    holdout: NonNegativeInt  # training images, equally many of each class, that replace the validation split
    max_unpacked_bytes: PositiveInt


@dataclass(frozen=True)
class Split:
    """`images` (N, 64, 64, 3) uint8 RGB; `labels` (N,) int64, positions in `Dataset.class_ids`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Both splits and their description. `mean` and `std` are the training split's, per RGB channel, in 0..255."""

    train: Split
    validation: Split
    class_ids: list[str]
    class_names: list[str]
    mean: list[float]
    std: list[float]
    name: str
    is_sample: bool
    validated_on: str
    sha256: dict[str, str]  # of each of FILES


def normalise(archive: Path, folder: Path, config: NormaliseConfig, *, is_sample: bool, processes: int) -> None:
    """Decode the archive's images into `folder`, which `read_dataset` reads. It is written whole or not at all.

    Images are sorted by class and number; labels are positions in wnids.txt. The bytes depend neither on the order of
    the archive's members nor on the number of decoding `processes` (0: one per core).
    Raises UserError, naming the member, if the archive is not as expected, and OSError, naming the path, if the disk is
    full or read-only.
    """
    layout = read_layout(archive, config.max_unpacked_bytes)
    layout = choose(layout, config.classes, config.train_per_class, config.holdout)
    with atomic(folder) as partial:
        partial.mkdir()
        members = {}
        for split, by_class in zip(SPLITS, (layout.train, layout.validation), strict=True):
            labels = np.repeat(np.arange(len(by_class), dtype=np.int64), [len(images) for images in by_class])
            np.save(partial / f"{split}_labels.npy", labels)
            members[partial / f"{split}_images.npy"] = [image for images in by_class for image in images]
        histograms = decode_members(archive, members, processes)
        mean, std = mean_and_std(histograms[partial / "train_images.npy"])
        description = {
            "name": config.name,
            "is_sample": is_sample,
            "validated_on": "hold-out of the training split" if config.holdout else "validation split",
            "class_ids": layout.class_ids,
            "class_names": layout.class_names,
            "mean": mean,
            "std": std,
            "sha256": {name: sha256(partial / name) for name in FILES},
        }
        write_json(partial / "dataset.json", description)
        read_dataset(partial)  # nothing that is not whole takes the folder's name


def read_dataset(folder: Path) -> Dataset:
    """The data set that `normalise` made, its arrays mapped read-only. Raises UserError if it isn't whole."""
    try:
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        train, validation = (
            Split(*(np.load(folder / f"{split}_{part}.npy", mmap_mode="r") for part in ("images", "labels")))
            for split in SPLITS
        )
        for split in (train, validation):
            if split.images.shape != (len(split.labels), *IMAGE_SHAPE) or split.images.dtype != np.uint8:
                raise ValueError(f"images of shape {split.images.shape} for {len(split.labels)} labels")
        dataset = Dataset(train, validation, **description)
        if dataset.sha256.keys() != set(FILES):
            raise ValueError(f"dataset.json holds hashes of {sorted(dataset.sha256)}")
        return dataset
    except (OSError, ValueError, TypeError, AttributeError, EOFError) as error:
        # DVC's run cache may hold the same folder, and gives it back unless it is removed.
        raise UserError(
            f"{folder} holds no complete data set ({error}); make it again: "
            "rm -rf .dvc/cache/runs && dvc repro --force --single-item normalise"
        ) from error


def mean_and_std(histogram: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, from (3, 256) counts of values; summed exactly, in integers."""
    mean, std = [], []
    for counts in histogram.tolist():
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        mean.append(total / n)
        std.append(((n * squares - total * total) / (n * n)) ** 0.5)
    return mean, std
