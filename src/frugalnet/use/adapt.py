"""A stored network fine-tuned on a person's own pictures: a folder with a folder of pictures for each class."""

import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
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
from frugalnet.use.labelled import LabelledPictures, hold_out, read_pictures
from frugalnet.use.weights import Classes, Entry, Stored

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


def adapt(folder: Path, stored: Stored, part: Part, out: Path, seed: int = 0) -> str:
    """Fine-tune a part of a stored network on the pictures in `folder`, and write a folder of weights with a card.

    Returns what was reached on the held-out pictures, in words. Raises UserError if `out` already exists, and as
    `read_pictures` does.
    """
    if out.exists():
        raise UserError(f"{out}: already exists; remove it, or name another folder with --out")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out}: is in the folder of the classes; name another folder with --out")
    shown = read_pictures(folder, stored.entry.side)
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
