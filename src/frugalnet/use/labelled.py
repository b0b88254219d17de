"""A person's own pictures: a folder with a folder of pictures for each class, and which of them are held out."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugalnet.data.copies import near_copies
from frugalnet.errors import UserError
from frugalnet.picture_files import LeftOut, find_pictures, is_systems
from frugalnet.pictures import open_file

FEWEST = 5  # pictures of a class: one of them is held out
HELD_OUT = 0.2  # of each class
SHOWN = 3  # of the pictures left out, or of the pairs of near copies


@dataclass(frozen=True)
class LabelledPictures:
    """pixels: (N, side, side, 3) uint8; files: N names; labels: (N,) int64, positions in `classes`.

    groups: (N,) int, equal for near copies. notes: what was left out, and which pictures are near copies.
    """

    classes: list[str]
    files: list[str]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    notes: list[str]


def read_pictures(folder: Path, side: int) -> LabelledPictures:
    """The pictures in the folders of a folder, whose names are the classes.

    Left out, and noted: files that are not pictures, and all but the first of pictures of a class that have equal
    pixels. Raises UserError for fewer than two classes, for a class with fewer than five pictures, and for pictures of
    two classes that have equal pixels.
    """
    classes = _class_folders(folder)
    first: dict[bytes, tuple[str, int]] = {}  # the file and label of each picture, by its pixels
    notes: list[str] = []
    left_out = LeftOut()
    for label, path in enumerate(classes):
        before = len(first)
        for file in find_pictures([str(path)], left_out):
            try:
                picture = open_file(file, side)
            except UserError as error:
                notes.append(f"left out: {error}")
                continue
            known, known_label = first.setdefault(picture.pixels.tobytes(), (picture.name, label))
            if known_label != label:
                raise UserError(f"{picture.name}: the same pixels as {known}, of another class; remove one")
            if known != picture.name:
                notes.append(f"left out: {picture.name}: the same pixels as {known}")
        if (count := len(first) - before) < FEWEST:
            reasons = "; ".join([*notes[:SHOWN], *([str(left_out)] if left_out else [])])
            raise UserError(f"{path}: {count} pictures are too few; expected at least {FEWEST}; {reasons}".rstrip("; "))
    if left_out:
        notes.append(str(left_out))
    files, labels = zip(*first.values(), strict=True)
    pixels = np.stack([np.frombuffer(of_picture, np.uint8).reshape(side, side, 3) for of_picture in first])
    pairs = near_copies(pixels)
    if pairs:
        named = "; ".join(f"{files[i]} and {files[j]}" for i, j in pairs[:SHOWN])
        more = f"; and {len(pairs) - SHOWN} more pairs" if len(pairs) > SHOWN else ""
        notes.append(f"near copies, kept together in training or in the hold-out: {named}{more}")
    names = [path.name for path in classes]
    return LabelledPictures(names, list(files), pixels, np.array(labels), _groups(pairs, len(files)), notes)


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one that holds a folder of pictures for each class")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not is_systems(path.name))
    if len(classes) < 2:
        present = f"only '{classes[0].name}'" if classes else "none"
        raise UserError(f"{folder}: expected at least two folders, each with the pictures of a class; found {present}")
    if odd := [path for path in classes if os.fsencode(path.name).decode(errors="replace") != path.name]:
        raise UserError(f"{odd[0]}: this folder's name, the name of a class, is not UTF-8; rename it")
    return classes


def _groups(pairs: list[tuple[int, int]], count: int) -> NDArray[np.int64]:
    """The connected components of the pairs: (count,), a picture's number the lowest of its component."""
    lowest = list(range(count))

    def find(picture: int) -> int:
        while lowest[picture] != picture:
            lowest[picture] = lowest[lowest[picture]]
            picture = lowest[picture]
        return picture

    for first, second in pairs:
        a, b = sorted((find(first), find(second)))
        lowest[b] = a
    return np.array([find(picture) for picture in range(count)], np.int64)


def hold_out(labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Which pictures, (N,), are held out: a fifth of each class, drawn by the seed; all of a group or none.

    A class has at least one picture on either side. So more than a fifth is held out where each group of a class is
    larger, and a group is divided if it is the whole class.
    """
    sizes = np.bincount(labels)
    wanted = np.maximum(1, np.round(HELD_OUT * sizes))
    held = np.zeros(len(labels), dtype=bool)
    for label in range(len(sizes)):
        order = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        for most in (wanted, sizes - 1):
            for picture in order:
                more = held | (groups == groups[picture])
                fits = (np.bincount(labels[more], minlength=len(sizes)) <= most).all()
                if fits and held[order].sum() < wanted[label]:
                    held = more
            if held[order].any():
                break
        else:
            held[order[: int(wanted[label])]] = True
    return held
