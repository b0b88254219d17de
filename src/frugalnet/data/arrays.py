"""The data set as uint8 arrays with labels and a description, read from where `normalise` wrote them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugalnet.errors import UserError

SPLITS = ("train", "validation")
FILES = tuple(f"{split}_{part}.npy" for split in SPLITS for part in ("images", "labels"))


@dataclass(frozen=True)
class Split:
    """`images` (N, side, side, 3) uint8 RGB; `labels` (N,) int64, positions in `Dataset.class_ids`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Both splits and their description. `mean` and `std` are the training split's, per RGB channel, in 0..255.

    `std` is 1 for a channel of one value.
    """

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

    @property
    def side(self) -> int:
        """The size of every image: so many pixels a side."""
        return int(self.train.images.shape[1])


def read_dataset(folder: Path) -> Dataset:
    """The data set that `normalise` made, its arrays mapped read-only. Raises UserError if it isn't whole."""
    try:
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        train, validation = (
            Split(*(np.load(folder / f"{split}_{part}.npy", mmap_mode="r") for part in ("images", "labels")))
            for split in SPLITS
        )
        for split in (train, validation):
            shape = (len(split.labels), *[train.images.shape[1]] * 2, 3)
            if split.images.shape != shape or split.images.dtype != np.uint8:
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
