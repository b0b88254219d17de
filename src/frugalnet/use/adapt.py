"""A stored network fine-tuned on a person's own pictures: a folder with a folder of pictures for each class."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from frugalnet.adaptation.config import Part
from frugalnet.document.wording import markdown
from frugalnet.errors import UserError, needing_study, printable
from frugalnet.export.formats import Format
from frugalnet.files import atomic, sha256, sha256_of, write_json
from frugalnet.pictures import encode_png
from frugalnet.use import weights
from frugalnet.use.confusion import draw_confusion
from frugalnet.use.copied import subject_of
from frugalnet.use.labelled import LabelledPictures, hold_out, read_pictures
from frugalnet.use.outcome import Outcome, as_markdown, judge
from frugalnet.use.retrained import Retrained
from frugalnet.use.runtime import open_stored
from frugalnet.use.weights import Classes, Entry, Export, Stored

_SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "int8": ".int8.onnx"}


@dataclass(frozen=True)
class Options:
    """part: of the network, that is trained. is_balanced: each class counts as much as another in training."""

    part: Part = "classifier"
    seed: int = 0
    is_balanced: bool = True


class Tuned(Protocol):
    """A network that was trained on pictures. recipe: the settings of the training."""

    macs: int
    recipe: dict[str, Any]

    def run(self, pixels: NDArray[np.uint8], /) -> NDArray[np.float32]: ...
    def tensors(self) -> dict[str, NDArray[Any]]: ...
    def files(self, metadata: Mapping[str, str], folder: Path) -> dict[Format, bytes]: ...


Trainer = Callable[[Stored, NDArray[np.uint8], NDArray[np.int64]], Tuned]


def adapt(folder: Path, stored: Stored, out: Path, options: Options | None = None) -> Outcome:
    """Fine-tune a part of a stored network on the pictures in `folder`, and write a folder of weights with a card.

    Returns what was reached on the held-out pictures. Raises UserError if `out` already exists, if a part needs PyTorch
    and it is not installed, and as `read_pictures` does.
    """
    options = options or Options()
    if out.exists():
        raise UserError(f"{out}: already exists; remove it, or name another folder with --out")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out}: is in the folder of the classes; name another folder with --out")
    tune = _trainer(options)
    shown = read_pictures(folder, stored.entry.side)
    for note in shown.notes:
        print(f"frugalnet: {printable(note)}", file=sys.stderr)
    with atomic(out, is_new=True) as partial:
        partial.mkdir()  # where it cannot be, that is said before the training
        return _train_and_write(folder, shown, stored, tune, partial, options)


def _train_and_write(
    folder: Path, shown: LabelledPictures, stored: Stored, tune: Trainer, out: Path, options: Options
) -> Outcome:
    held = hold_out(shown.labels, shown.groups, options.seed)
    tuned = tune(stored, shown.pixels[~held], shown.labels[~held])
    predicted = tuned.run(shown.pixels[held]).argmax(axis=1)
    # Names need not be UTF-8, which JSON and the card are.
    files = [os.fsencode(shown.files[i]).decode(errors="backslashreplace") for i in np.flatnonzero(held)]
    outcome = judge(shown.classes, np.bincount(shown.labels), files, shown.labels[held], predicted)
    entry = Entry(
        file=f"{stored.entry.model}-{options.seed}.safetensors",
        sha256="",
        model=stored.entry.model,
        seed=options.seed,
        classes="classes.json",
        mean=stored.entry.mean,
        std=stored.entry.std,
        recipe={
            "recipe": "adapt",
            "part": options.part,
            "from": stored.name,
            "balanced": options.is_balanced,
            **tuned.recipe,
        },
        data=re.sub(r"[^\w.-]", "_", folder.resolve().name),
        data_sha256=sha256_of([shown.classes, shown.labels.tolist(), shown.pixels.tobytes().hex()]),
        validated_on="hold-out",
        top1=outcome.top1,
        n=outcome.n,
        macs=tuned.macs,
        side=stored.entry.side,
    )
    adapted = _write_network(tuned, entry, shown, held, out)
    if adapted.entry.int8 is not None:
        outcome = outcome.model_copy(update={"int8_top1": adapted.entry.int8.top1})
    write_json(out / "adapt.json", {"part": options.part, "from": stored.name, **outcome.model_dump()})
    draw_confusion(shown.classes, outcome.confusion, out / "confusion.png")
    _write_examples(shown, held, out / "examples")
    (out / "README.md").write_text(_card(adapted, shown, stored, outcome), encoding="utf-8")
    return outcome


def _trainer(options: Options) -> Trainer:
    """What trains a network on pictures and labels. Raises UserError if that needs PyTorch and it is not installed."""
    if options.part == "classifier":
        return partial(Retrained, is_balanced=options.is_balanced)
    with needing_study(f"--train {options.part}"):
        from frugalnet.use.finetuned import FineTuned
    return partial(FineTuned, part=options.part, seed=options.seed, is_balanced=options.is_balanced)


def _write_network(
    tuned: Tuned, entry: Entry, shown: LabelledPictures, held: NDArray[np.bool_], folder: Path
) -> Stored:
    """Write a folder of weights with the network, as safetensors, as ONNX and, where that can be done, as int8 ONNX,
    whose accuracy is measured on the held-out pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / entry.file
        path.write_bytes(save(tuned.tensors()))
        classes = Classes(ids=shown.classes, names=shown.classes)
        stored = Stored(path=path, entry=entry.model_copy(update={"sha256": sha256(path)}), classes=classes)
        with tempfile.TemporaryDirectory() as empty:
            files = tuned.files(subject_of(stored).metadata, Path(empty))
        exports = {kind: _write_export(path.with_suffix(_SUFFIXES[kind]), data) for kind, data in files.items()}
        stored = _with_exports(stored, exports)
        if "int8" in exports:
            right = open_stored(stored, "int8").logits(shown.pixels[held]).argmax(axis=1) == shown.labels[held]
            exports["int8"] = exports["int8"].model_copy(update={"top1": float(right.mean())})
            stored = _with_exports(stored, exports)
        weights.write_weights(folder, [stored])
    return stored


def _write_export(path: Path, data: bytes) -> Export:
    path.write_bytes(data)
    return Export(file=path.name, sha256=sha256(path))


def _with_exports(stored: Stored, exports: Mapping[Format, Export]) -> Stored:
    files: dict[str, Any] = dict(exports.items())
    return stored.model_copy(update={"entry": stored.entry.model_copy(update=files)})


def _write_examples(shown: LabelledPictures, held: NDArray[np.bool_], folder: Path) -> None:
    """The first held-out picture of each class, as the network sees it: what the page shows beside the upload."""
    for label, name in enumerate(shown.classes):
        first = np.flatnonzero(held & (shown.labels == label))[0]
        (folder / name).mkdir(parents=True)
        (folder / name / "held-out.png").write_bytes(encode_png(shown.pixels[first]))


def _card(adapted: Stored, shown: LabelledPictures, stored: Stored, outcome: Outcome) -> str:
    trained = adapted.entry.recipe["part"]
    balanced = "Each class counted as much as another" if adapted.entry.recipe["balanced"] else "Each picture counted"
    return f"""# {adapted.entry.model}, fine-tuned

{outcome.in_words} Trained {trained} on {len(shown.labels) - outcome.n} pictures of {len(shown.classes)} classes.
{balanced} in training.

Started from `{stored.name}` ({markdown(stored.entry.data)}, SHA-256 {stored.entry.sha256[:16]}…). The held-out
pictures, a fifth of each class, are from the same folders as the training pictures: pictures from elsewhere can be much
harder. The network always names one of these classes, whatever it is shown; the worst are first:

{as_markdown(outcome)}

![A row for each class, a column for each predicted one](confusion.png)

    frugalnet predict --weights FOLDER photo.jpg
    frugalnet serve --weights FOLDER
    frugalnet export OUT --weights FOLDER --copy
    frugalnet export OUT --weights FOLDER --pictures PICTURES
"""
