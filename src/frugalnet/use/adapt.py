"""A stored network fine-tuned on a person's own pictures: a folder with a folder of pictures for each class."""

import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from frugalnet import pictures
from frugalnet.adaptation.config import Part, Rates, TuningConfig
from frugalnet.adaptation.finetuning import fine_tune, for_classes
from frugalnet.data.augment import augment
from frugalnet.data.config import AugmentConfig
from frugalnet.document.wording import markdown
from frugalnet.errors import UserError
from frugalnet.files import atomic, sha256, sha256_of
from frugalnet.metrics import accuracy, counts
from frugalnet.metrics.statistics import wilson_interval
from frugalnet.training.inference import infer, save_weights
from frugalnet.use import weights
from frugalnet.use.weights import Classes, Entry, Stored

FEWEST = 5  # pictures of a class: one of them is held out
HELD_OUT = 0.2  # of each class
NEAR = 0.15  # difference of near copies, as a fraction of their contrast: JPEG at quality 80 gives up to 0.14
SHOWN = 3  # of the pictures left out, or of the pairs of near copies
SHAPE = (pictures.SIDE, pictures.SIDE, 3)
VIEWS = 8  # augmented copies of each training picture, in turn
POLICY = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "Affine", "p": 0.8, "scale": [0.85, 1.15], "translate_percent": [-0.1, 0.1], "rotate": [-10, 10]},
    {"name": "ColorJitter", "p": 0.8, "brightness": [0.8, 1.2], "contrast": [0.8, 1.2], "saturation": [0.8, 1.2]},
]
TUNING = TuningConfig(
    steps=200,
    batch_size=32,
    learning_rate=Rates.model_validate(
        {"classifier": 1e-2, "norms": 1e-2, "blocks": 3e-3, "all": 3e-3, "scratch": 3e-3}
    ),
)


@dataclass(frozen=True)
class LabelledPictures:
    """pixels: (N, 64, 64, 3) uint8; labels: (N,) int64, positions in `classes`.

    groups: (N,) int, equal for near copies. notes: what was left out, and which pictures are near copies.
    """

    classes: list[str]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    notes: list[str]


def read_pictures(folder: Path) -> LabelledPictures:
    """The pictures in the folders of a folder, whose names are the classes.

    Left out, and noted: files that are not pictures, and all but the first of pictures of a class that have equal
    pixels. Raises UserError for fewer than two classes, for a class with fewer than five pictures, and for pictures of
    two classes that have equal pixels.
    """
    classes = _class_folders(folder)
    first: dict[bytes, tuple[str, int]] = {}  # the file and label of each picture, by its pixels
    notes: list[str] = []
    for label, path in enumerate(classes):
        before = len(first)
        for file in pictures.find_pictures([str(path)]):
            try:
                picture = pictures.open_file(file)
            except UserError as error:
                notes.append(f"left out: {error}")
                continue
            known, known_label = first.setdefault(picture.pixels.tobytes(), (picture.name, label))
            if known_label != label:
                raise UserError(f"{picture.name}: the same pixels as {known}, of another class; remove one")
            if known != picture.name:
                notes.append(f"left out: {picture.name}: the same pixels as {known}")
        if (count := len(first) - before) < FEWEST:
            left_out = "".join(f"; {note}" for note in notes[:SHOWN])
            raise UserError(f"{path}: {count} pictures are too few; expected at least {FEWEST}{left_out}")
    files, labels = zip(*first.values(), strict=True)
    pixels = np.stack([np.frombuffer(of_picture, np.uint8).reshape(SHAPE) for of_picture in first])
    pairs = near_copies(pixels)
    if pairs:
        named = "; ".join(f"{files[i]} and {files[j]}" for i, j in pairs[:SHOWN])
        more = f"; and {len(pairs) - SHOWN} more pairs" if len(pairs) > SHOWN else ""
        notes.append(f"near copies, kept together in training or in the hold-out: {named}{more}")
    return LabelledPictures(
        [path.name for path in classes], pixels, np.array(labels), _groups(pairs, len(files)), notes
    )


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one that holds a folder of pictures for each class")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        present = f"only '{classes[0].name}'" if classes else "none"
        raise UserError(f"{folder}: expected at least two folders, each with the pictures of a class; found {present}")
    if odd := [path for path in classes if os.fsencode(path.name).decode(errors="replace") != path.name]:
        raise UserError(f"{odd[0]}: this folder's name, the name of a class, is not UTF-8; rename it")
    return classes


def near_copies(pixels: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """The pairs of (N, 64, 64, 3) pictures that look the same: the same picture saved in another size or quality.

    Their root-mean-square difference at 32×32 pixels is below 15 % of the contrast (the deviation from the mean
    colour) of either. So line drawings, icons and dark pictures, in which few or faint pixels tell one from another,
    are not taken for copies. A dark picture's copy in low quality is missed: the difference is as large as the content.
    """
    small = np.stack([cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA) for picture in pixels])
    deviations = small - small.mean(axis=(1, 2), keepdims=True)
    contrast = np.maximum(np.sqrt((deviations**2).mean(axis=(1, 2, 3))), 1.0)
    flat = small.reshape(len(small), -1).astype(np.float64)
    squares = (flat**2).sum(axis=1)
    pairs = []
    for start in range(0, len(flat), 256):  # bounds memory
        rows = slice(start, start + 256)
        distances = squares[rows, None] + squares - 2 * flat[rows] @ flat.T
        limits = NEAR * np.minimum(contrast[rows, None], contrast)
        near = np.argwhere(distances / flat.shape[1] < limits**2)
        pairs += [(start + int(i), int(j)) for i, j in near if start + i < j]
    return pairs


def _groups(pairs: list[tuple[int, int]], count: int) -> NDArray[np.int64]:
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs)), (first, second)), shape=(count, count))
    groups: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return groups


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


def adapt(folder: Path, stored: Stored, part: Part, out: Path, seed: int = 0) -> str:
    """Fine-tune a part of a stored network on the pictures in `folder`, and write a folder of weights with a card.

    Returns what was reached on the held-out pictures, in words. Raises UserError if `out` already exists, and as
    `read_pictures` does.
    """
    if out.exists():
        raise UserError(f"{out}: already exists; remove it, or name another folder with --out")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out}: is in the folder of the classes; name another folder with --out")
    shown = read_pictures(folder)
    for note in shown.notes:
        print(f"frugalnet: {UserError(note)}", file=sys.stderr)
    held = hold_out(shown.labels, shown.groups, seed)
    start = time.perf_counter()
    tuned, right = _tune(shown, held, stored, part, seed)
    seconds = time.perf_counter() - start
    n = len(right)
    low, high = map(float, wilson_interval(np.array(right.sum()), np.array(n)))
    commonest = np.bincount(shown.labels[held]).max() / n
    said = (
        f"{right.sum()} of {n} held-out pictures classified correctly: {right.mean():.1%} (95 % interval {low:.1%} to "
        f"{high:.1%}); always predicting the most common class: {commonest:.1%}. Trained {part} on "
        f"{len(held) - n} pictures of {len(shown.classes)} classes in {seconds:.1f} s."
    )
    entry = Entry(
        file=f"{stored.entry.model}-{seed}.safetensors",
        sha256="",
        model=stored.entry.model,
        seed=seed,
        classes="classes.json",
        mean=stored.entry.mean,
        std=stored.entry.std,
        recipe={"recipe": "adapt", "part": part, "from": stored.name, **TUNING.model_dump()},
        data=re.sub(r"[^\w.-]", "_", folder.resolve().name),
        data_sha256=sha256_of([shown.classes, shown.labels.tolist(), shown.pixels.tobytes().hex()]),
        validated_on="hold-out",
        top1=float(right.mean()),
        n=n,
        macs=counts.macs(tuned, (3, pictures.SIDE, pictures.SIDE)),
    )
    classes = Classes(ids=shown.classes, names=shown.classes)
    with tempfile.TemporaryDirectory() as temporary, atomic(out, is_new=True) as partial:
        path = Path(temporary) / entry.file
        save_weights(tuned.state_dict(), path)
        entry = entry.model_copy(update={"sha256": sha256(path)})
        weights.write_weights(partial, [Stored(path=path, entry=entry, classes=classes)])
        (partial / "README.md").write_text(_card(entry, shown, stored, said), encoding="utf-8")
    return said


def _tune(
    shown: LabelledPictures, held: NDArray[np.bool_], stored: Stored, part: Part, seed: int
) -> tuple[nn.Module, NDArray[np.bool_]]:
    """The network fine-tuned on the pictures that are not held out, and whether it classifies each of the others."""
    normalise, network = weights.load_network(stored)
    config = AugmentConfig.model_validate({"views": VIEWS, "seed": seed, "policy": POLICY})
    views = [augment(shown.pixels[~held], config, view, 0) for view in range(VIEWS)]
    tuned = for_classes(network, stored.entry.model, seed, len(shown.classes))
    fine_tune(tuned, part, lambda epoch: views[epoch % VIEWS], shown.labels[~held], normalise, TUNING, seed)
    predicted = accuracy.predict(infer(tuned, shown.pixels[held], normalise))
    return tuned, predicted == shown.labels[held]


def _card(entry: Entry, shown: LabelledPictures, stored: Stored, said: str) -> str:
    sizes = np.bincount(shown.labels)
    names = "\n".join(f"- {markdown(name)} ({size} pictures)" for name, size in zip(shown.classes, sizes, strict=True))
    return f"""# {entry.model}, fine-tuned

{said}

Started from `{stored.name}` ({markdown(stored.entry.data)}, SHA-256 {stored.entry.sha256[:16]}…). The held-out
pictures, a fifth of each class, are from the same folders as the training pictures: pictures from elsewhere can be much
harder. The network always names one of these classes, whatever it is shown:

{names}

    frugalnet predict --weights FOLDER photo.jpg
    frugalnet export OUT --weights FOLDER --pictures PICTURES
    frugalnet serve --weights FOLDER
"""
