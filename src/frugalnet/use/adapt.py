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

from frugalnet.adaptation.finetuning import Part, Rates, TuningConfig, fine_tune, for_classes
from frugalnet.data.augment import augment
from frugalnet.data.config import AugmentConfig
from frugalnet.document.wording import markdown
from frugalnet.errors import UserError
from frugalnet.files import atomic, sha256, sha256_of
from frugalnet.metrics import accuracy, counts
from frugalnet.metrics.statistics import wilson_interval
from frugalnet.training.inference import infer, save_weights
from frugalnet.use import pictures, weights
from frugalnet.use.weights import Classes, Entry, Stored

FEWEST = 5  # pictures of a class: one of them is held out
HELD_OUT = 0.2  # of each class
ALIKE = 10  # mean difference of values in 0..255 up to which pictures of equal hash look the same
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
class Pictures:
    """pixels: (N, 64, 64, 3) uint8; labels: (N,) int64, positions in `names`; notes: which files were left out, why."""

    names: list[str]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    notes: list[str]


def read(folder: Path) -> Pictures:
    """The pictures in the folders of a folder, whose names are the classes.

    Left out, and noted: files that are not pictures, and all but the first of pictures that look the same, as copies in
    another size do; such pictures could stand on both sides of the hold-out. Raises UserError for fewer than two
    classes, for a class with fewer than five pictures, and for pictures that look the same in two classes.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one that holds a folder of pictures for each class")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        found = f"only '{classes[0].name}'" if classes else "none"
        raise UserError(f"{folder}: expected at least two folders, each with the pictures of a class; found {found}")
    if odd := [path for path in classes if os.fsencode(path.name).decode(errors="replace") != path.name]:
        raise UserError(f"{odd[0]}: this folder's name, the name of a class, is not UTF-8; rename it")
    pixels: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    notes: list[str] = []
    looks: dict[bytes, list[tuple[NDArray[np.int16], int, str]]] = {}
    for label, path in enumerate(classes):
        for name in pictures.find_pictures([str(path)]):
            try:
                picture = pictures.open_file(name)
            except UserError as error:
                notes.append(f"left out: {error}")
                continue
            small, key = _look(picture.pixels)
            alike = [known for known in looks.setdefault(key, []) if np.abs(known[0] - small).mean() < ALIKE]
            if alike and alike[0][1] != label:
                raise UserError(f"{picture.name}: looks the same as {alike[0][2]}, of another class; remove one")
            if alike:
                notes.append(f"left out: {picture.name}: looks the same as {alike[0][2]}")
                continue
            looks[key].append((small, label, picture.name))
            pixels.append(picture.pixels)
            labels.append(label)
    for label, path in enumerate(classes):
        if (count := labels.count(label)) < FEWEST:
            left_out = "".join(f"; {note}" for note in notes[:3])
            raise UserError(f"{path}: {count} pictures are too few; expected at least {FEWEST}{left_out}")
    return Pictures([path.name for path in classes], np.stack(pixels), np.array(labels, np.int64), notes)


def _look(picture: NDArray[np.uint8]) -> tuple[NDArray[np.int16], bytes]:
    """A copy of 9×8 pixels, and for each of its channels, whether each pixel is brighter than the one to its right.

    The latter is "dHash" (Krawetz, 2013, "Kind of Like That"): equal for copies in another size or quality.
    """
    small = cv2.resize(picture, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return small, np.packbits(small[:, 1:] < small[:, :-1]).tobytes()


def hold_out(labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Which pictures, (N,), are held out: a fifth of each class, drawn by the seed."""
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        of_class = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        held[of_class[: max(1, round(HELD_OUT * len(of_class)))]] = True
    return held


def adapt(folder: Path, stored: Stored, part: Part, out: Path, seed: int = 0) -> str:
    """Fine-tune a part of a stored network on the pictures in `folder`, and write a folder of weights with a card.

    Returns what was reached on the held-out pictures, in words. Raises UserError if `out` already exists, and as
    `read` does.
    """
    if out.exists():
        raise UserError(f"{out}: already exists; remove it, or name another folder with --out")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out}: is in the folder of the classes; name another folder with --out")
    found = read(folder)
    for note in found.notes:
        print(f"frugalnet: {UserError(note)}", file=sys.stderr)
    normalise, network = weights.load_network(stored)
    held, start = hold_out(found.labels, seed), time.perf_counter()
    config = AugmentConfig.model_validate({"views": VIEWS, "seed": seed, "policy": POLICY})
    views = [augment(found.pixels[~held], config, view, 0) for view in range(VIEWS)]
    tuned = for_classes(network, stored.entry.model, seed, len(found.names))
    fine_tune(tuned, part, lambda epoch: views[epoch % VIEWS], found.labels[~held], normalise, TUNING, seed)
    seconds, predicted = time.perf_counter() - start, accuracy.predict(infer(tuned, found.pixels[held], normalise))
    right, n = int((predicted == found.labels[held]).sum()), int(held.sum())
    low, high = map(float, wilson_interval(np.array(right), np.array(n)))
    commonest = np.bincount(found.labels[held]).max() / n
    said = (
        f"{right} of {n} held-out pictures classified correctly: {right / n:.1%} (95 % interval {low:.1%} to "
        f"{high:.1%}); always predicting the most common class: {commonest:.1%}. Trained {part} on "
        f"{len(held) - n} pictures of {len(found.names)} classes in {seconds:.1f} s."
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
        data_sha256=sha256_of([found.names, found.labels.tolist(), found.pixels.tobytes().hex()]),
        validated_on="hold-out",
        top1=right / n,
        n=n,
        macs=counts.macs(tuned, (3, pictures.SIDE, pictures.SIDE)),
    )
    with tempfile.TemporaryDirectory() as temporary, atomic(out, is_new=True) as partial:
        path = Path(temporary) / entry.file
        save_weights(tuned.state_dict(), path)
        entry = entry.model_copy(update={"sha256": sha256(path)})
        classes = Classes(ids=found.names, names=found.names)
        weights.write_weights(partial, [Stored(path=path, entry=entry, classes=classes)])
        (partial / "README.md").write_text(_card(entry, found, stored, said), encoding="utf-8")
    return said


def _card(entry: Entry, found: Pictures, stored: Stored, said: str) -> str:
    names = "\n".join(
        f"- {markdown(name)} ({int((found.labels == label).sum())} pictures)" for label, name in enumerate(found.names)
    )
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
