"""The archive's images as uint8 arrays: layout checked, decoded in parallel, described, saved and loaded."""

import json
import multiprocessing
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt
from tqdm import tqdm

from frugalnet.data.download import DownloadConfig
from frugalnet.errors import UserError
from frugalnet.files import atomic, sha256, write_json
from frugalnet.processes import init_worker
from frugalnet.schema import Config

ROOT = "tiny-imagenet-200"
IMAGE_SHAPE = (64, 64, 3)
IMAGE_BYTES = 64 * 64 * 3
CHUNK = 500  # images a task; 500 × 64 × 64 pixels still count exactly in calcHist's float32
DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError)  # what zipfile raises on bad bytes


class NormaliseConfig(Config):
    """Which of the archive's images become arrays."""

    name: Annotated[str, Field(min_length=1)]
    classes: Annotated[int, Field(ge=2)] | None  # the first so many of wnids.txt
    train_per_class: PositiveInt | None  # the first so many training images of each
    holdout: NonNegativeInt  # training images, equally many a class, that take the validation split's place
    max_unpacked_bytes: PositiveInt


class DataConfig(DownloadConfig, NormaliseConfig):
    """The section `data` of the parameters."""


@dataclass(frozen=True)
class Split:
    """`images` (N, 64, 64, 3) uint8 RGB; `labels` (N,) int64, positions in `Dataset.class_ids`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Both splits and what describes them; mean and deviation are the training split's, RGB, on the scale 0..255."""

    train: Split
    validation: Split
    class_ids: list[str]
    class_names: list[str]
    mean: list[float]
    std: list[float]
    name: str
    is_sample: bool
    validated_on: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class _Layout:
    """The members of each class's images, in the classes' order, each list in the images' numeric order."""

    class_ids: list[str]
    class_names: list[str]
    train: list[list[str]]
    validation: list[list[str]]


def normalise(archive: Path, folder: Path, config: NormaliseConfig, *, is_sample: bool, workers: int) -> None:
    """Decode the archive's images into `folder`, which is whole or not there; `load` reads it.

    Images lie sorted by class and number, labels are positions in wnids.txt; the bytes depend neither on the order of
    the archive's members nor on the number of `workers`, processes that decode.
    Raises UserError, naming the member, for an archive that isn't what it should be.
    """
    layout = _choose(_read_layout(archive, config.max_unpacked_bytes), config)
    try:
        with atomic(folder) as partial:
            partial.mkdir()
            histograms = _decode({"train": layout.train, "validation": layout.validation}, archive, partial, workers)
            mean, std = mean_and_std(histograms["train"])
            description = {
                "name": config.name,
                "is_sample": is_sample,
                "validated_on": "hold-out of the training split" if config.holdout else "validation split",
                "class_ids": layout.class_ids,
                "class_names": layout.class_names,
                "mean": mean,
                "std": std,
                "sha256": {path.name: sha256(path) for path in sorted(partial.glob("*.npy"))},
            }
            write_json(partial / "dataset.json", description)
    except OSError as error:  # disk full comes without a file name
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error


def load(folder: Path) -> Dataset:
    """The data set that `normalise` made, its arrays mapped read-only. Raises UserError if it isn't whole."""
    try:
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        train, validation = (
            Split(*(np.load(folder / f"{split}_{part}.npy", mmap_mode="r") for part in ("images", "labels")))
            for split in ("train", "validation")
        )
        for split in (train, validation):
            if split.images.shape != (len(split.labels), *IMAGE_SHAPE) or split.images.dtype != np.uint8:
                raise ValueError(f"images of shape {split.images.shape} for {len(split.labels)} labels")
        return Dataset(train, validation, **description)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} holds no whole data set ({error}); make it again: dvc repro -f normalise") from error


def mean_and_std(histogram: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Of each channel, over all pixels, from its (3, 256) counts of values; summed exactly, in integers."""
    mean, std = [], []
    for counts in histogram.tolist():
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        mean.append(total / n)
        std.append(((n * squares - total * total) / (n * n)) ** 0.5)
    return mean, std


# The layout


def _open(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except FileNotFoundError:
        raise UserError(f"{archive} isn't there; make it: dvc repro download") from None
    except DAMAGED as error:
        raise UserError(f"{archive} is no readable zip archive ({error}); download it again") from error


def _read_member(zip_file: zipfile.ZipFile, name: str) -> bytes:
    try:
        return zip_file.read(name)
    except KeyError:
        raise UserError(f"{name} is missing from the archive") from None
    except DAMAGED as error:
        raise UserError(f"{name} doesn't unpack to what the archive declares ({error})") from error


def _read_lines(zip_file: zipfile.ZipFile, name: str) -> list[str]:
    try:
        return [line for line in _read_member(zip_file, name).decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text: {error}") from error


def _read_layout(archive: Path, max_unpacked_bytes: int) -> _Layout:
    """Check every member before any image is read."""
    with _open(archive) as zip_file:
        members = zip_file.infolist()
        _check_members(members, max_unpacked_bytes)
        class_ids = [line.strip() for line in _read_lines(zip_file, f"{ROOT}/wnids.txt")]
        names = _class_names(class_ids, _read_lines(zip_file, f"{ROOT}/words.txt"))
        annotations = _annotations(class_ids, _read_lines(zip_file, f"{ROOT}/val/val_annotations.txt"))
        files = [member.filename for member in members if not member.is_dir()]
    return _Layout(
        class_ids, names, _train_members(class_ids, files), _validation_members(class_ids, annotations, files)
    )


def _check_members(members: Sequence[zipfile.ZipInfo], max_unpacked_bytes: int) -> None:
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename
        if name.startswith("/") or ".." in name.split("/") or re.search(r"[\\\0]|^[A-Za-z]:", name):
            raise UserError(f"{name!r} would land outside of the archive's folder; the archive is not to be trusted")
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{name} is a link or a device, expected files and folders only")
        if name in seen:
            raise UserError(f"{name} is in the archive twice")
        seen.add(name)
    unpacked_bytes = sum(member.file_size for member in members)
    if unpacked_bytes > max_unpacked_bytes:
        largest = max(members, key=lambda member: member.file_size)
        raise UserError(
            f"the archive unpacks to {unpacked_bytes:,} bytes, the bound data.max_unpacked_bytes is "
            f"{max_unpacked_bytes:,}; its largest member is {largest.filename} with {largest.file_size:,}"
        )


def _class_names(class_ids: Sequence[str], words: Iterable[str]) -> list[str]:
    """The first name of each class in the lines of words.txt."""
    if not class_ids:
        raise UserError(f"{ROOT}/wnids.txt names no class")
    if len(set(class_ids)) < len(class_ids):
        raise UserError(f"{ROOT}/wnids.txt names {_first_repeated(class_ids)} twice")
    names = {class_id: names.split(",")[0].strip() for class_id, _, names in (line.partition("\t") for line in words)}
    for class_id in class_ids:
        if not names.get(class_id):
            raise UserError(f"class {class_id} of wnids.txt has no name in {ROOT}/words.txt")
    return [names[class_id] for class_id in class_ids]


def _annotations(class_ids: Sequence[str], lines: Sequence[str]) -> dict[str, str]:
    """Of each validation image's file name, the class."""
    rows = [line.split("\t") for line in lines]
    for row in rows:
        if len(row) < 2:
            raise UserError(f"{ROOT}/val/val_annotations.txt: expected a file, a tab and a class, found {row[0]!r}")
        if row[1] not in class_ids:
            raise UserError(f"{ROOT}/val/val_annotations.txt gives {row[0]} the class {row[1]}, not in wnids.txt")
    files = [row[0] for row in rows]
    if len(set(files)) < len(files):
        raise UserError(f"{ROOT}/val/val_annotations.txt names {_first_repeated(files)} twice")
    return {row[0]: row[1] for row in rows}


def _train_members(class_ids: Sequence[str], files: Iterable[str]) -> list[list[str]]:
    members: dict[str, list[str]] = {class_id: [] for class_id in class_ids}
    for file in files:
        match PurePosixPath(file).parts:
            case (_, "train", class_id, *rest) if file.startswith(f"{ROOT}/") and rest:
                if class_id not in members:
                    raise UserError(f"{file} is of class {class_id}, not in {ROOT}/wnids.txt")
                if len(rest) == 2 and rest[0] == "images":
                    members[class_id].append(file)
                elif rest != [f"{class_id}_boxes.txt"]:
                    raise UserError(f"{file} is unexpected, images lie in {ROOT}/train/{class_id}/images/")
    if not any(members.values()):
        raise UserError(f"the training split is empty: no image under {ROOT}/train/")
    for class_id, images in members.items():
        if not images:
            raise UserError(f"class {class_id} of wnids.txt has no image under {ROOT}/train/{class_id}/images/")
    return [sorted(images, key=_natural) for images in members.values()]


def _validation_members(class_ids: Sequence[str], annotations: dict[str, str], files: Iterable[str]) -> list[list[str]]:
    prefix = f"{ROOT}/val/images/"
    images = {file.removeprefix(prefix) for file in files if file.startswith(prefix)}
    if not images:
        raise UserError(f"the validation split is empty: no image under {prefix}")
    if unannotated := images - annotations.keys():
        raise UserError(f"{prefix}{min(unannotated, key=_natural)} has no line in {ROOT}/val/val_annotations.txt")
    if missing := annotations.keys() - images:
        raise UserError(f"{prefix}{min(missing, key=_natural)} is missing, {ROOT}/val/val_annotations.txt names it")
    members: dict[str, list[str]] = {class_id: [] for class_id in class_ids}
    for image in sorted(images, key=_natural):
        members[annotations[image]].append(prefix + image)
    for class_id, of_class in members.items():
        if not of_class:
            raise UserError(f"class {class_id} of wnids.txt has no line in {ROOT}/val/val_annotations.txt")
    return list(members.values())


def _first_repeated(values: Sequence[str]) -> str:
    return next(value for index, value in enumerate(values) if value in values[:index])


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders val_2 before val_10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _choose(layout: _Layout, config: NormaliseConfig) -> _Layout:
    """The classes and images that the configuration asks for.

    The hold-out is the last images of each class, the same ones whatever `train_per_class` is.
    """
    classes = config.classes or len(layout.class_ids)
    if classes > len(layout.class_ids):
        raise UserError(f"data.classes is {classes}, the archive has {len(layout.class_ids)}")
    holdout, remainder = divmod(config.holdout, classes)
    if remainder:
        raise UserError(f"data.holdout {config.holdout} is not a multiple of the {classes} classes: it is stratified")
    train, validation = layout.train[:classes], layout.validation[:classes]
    for class_id, images in zip(layout.class_ids, train, strict=False):
        wanted = (config.train_per_class or 1) + holdout
        if wanted > len(images):
            raise UserError(
                f"class {class_id} has {len(images)} training images, "
                f"data.train_per_class and data.holdout ask for {wanted}"
            )
    if holdout:
        validation = [images[-holdout:] for images in train]
        train = [images[:-holdout] for images in train]
    train = [images[: config.train_per_class] for images in train]
    return _Layout(layout.class_ids[:classes], layout.class_names[:classes], train, validation)


# Decoding, in parallel

_zip_file: zipfile.ZipFile  # of a worker process
_outputs: dict[str, tuple[int, int]]  # of a worker process: of each split, the file's descriptor and its images' offset


@dataclass(frozen=True)
class _Task:
    split: str
    start: int
    members: list[str]


def _decode(
    splits: dict[str, list[list[str]]], archive: Path, folder: Path, workers: int
) -> dict[str, NDArray[np.int64]]:
    """Write `<split>_images.npy` and `<split>_labels.npy`; return the (3, 256) counts of each split's values."""
    tasks, offsets = [], {}
    for split, by_class in splits.items():
        members = [member for of_class in by_class for member in of_class]
        labels = np.repeat(np.arange(len(by_class), dtype=np.int64), [len(of_class) for of_class in by_class])
        np.save(folder / f"{split}_labels.npy", labels)
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(members), *IMAGE_SHAPE)}
        with (folder / f"{split}_images.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            offsets[split] = file.tell()
        tasks += [_Task(split, start, members[start : start + CHUNK]) for start in range(0, len(members), CHUNK)]

    histograms = {split: np.zeros((3, 256), np.int64) for split in splits}
    executor = ProcessPoolExecutor(
        min(workers, len(tasks)),
        multiprocessing.get_context("spawn"),  # a fork would copy locks that threads hold
        _start_worker,
        (archive, folder, offsets),
    )
    try:
        with tqdm(desc="normalise", total=sum(len(t.members) for t in tasks), unit=" images", disable=None) as bar:
            for task, histogram in zip(tasks, executor.map(_decode_task, tasks), strict=True):
                histograms[task.split] += histogram
                bar.update(len(task.members))
    except BrokenProcessPool as error:
        raise UserError(
            "a decoding process was killed, short of memory?; try again with fewer compute.workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)
    return histograms


def _start_worker(archive: Path, folder: Path, offsets: dict[str, int]) -> None:
    global _zip_file, _outputs
    init_worker()
    # A bad image is reported once, by its member's name.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    _zip_file = _open(archive)
    # Open from the start: a worker that outlives a killed parent by a moment can't write into the next run's files.
    _outputs = {split: (os.open(folder / f"{split}_images.npy", os.O_WRONLY), offsets[split]) for split in offsets}


def _decode_task(task: _Task) -> NDArray[np.int64]:
    images = np.stack([decode(_read_member(_zip_file, member), member) for member in task.members])
    descriptor, offset = _outputs[task.split]
    # Written, not mapped: on a full disk a write fails with an error, a mapped page with SIGBUS.
    with open(descriptor, "wb", closefd=False) as file:
        file.seek(offset + task.start * IMAGE_BYTES)
        file.write(images.tobytes())
    pixels = images.reshape(-1, 64, 3)
    counts = [cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
    return np.stack(counts).astype(np.int64)


def decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """An image file's (64, 64, 3) uint8 RGB pixels, be it colour, grey, CMYK or palette.

    Raises UserError, with `name`, for what is no image, not whole, or of another size.
    """
    # Entropy-coded JPEG data never holds the end-of-image marker by chance, but a thumbnail before it may: hence "after
    # the last start of scan". Some versions of OpenCV fill a cut JPEG with grey instead of refusing it.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise UserError(f"{name} is a truncated JPEG image")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:  # of a size that OpenCV doesn't even try
        raise UserError(f"{name} can't be decoded: {' '.join(str(error).split())}") from error
    if image is None:
        raise UserError(f"{name} can't be decoded: it is no image, or truncated")
    if image.shape != IMAGE_SHAPE:
        raise UserError(f"{name}: expected an image of 64×64 pixels, found {image.shape[1]}×{image.shape[0]}")
    return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
