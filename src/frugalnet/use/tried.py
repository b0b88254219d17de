"""A stored network exported with a person's own pictures, and what its files are worth on these."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from frugalnet.data.arrays import Dataset, Split
from frugalnet.errors import UserError, printable
from frugalnet.export.config import ExportConfig
from frugalnet.export.formats import FILES, Format
from frugalnet.export.measure import measure_accuracy, measure_latencies
from frugalnet.export.result import ExportResult, FormatResult
from frugalnet.export.runtimes import Runnable
from frugalnet.files import atomic, sha256_of
from frugalnet.metrics.accuracy import predict
from frugalnet.metrics.config import MeasureConfig
from frugalnet.metrics.statistics import wilson_interval
from frugalnet.picture_files import LeftOut, find_pictures
from frugalnet.pictures import open_file
from frugalnet.use import labelled
from frugalnet.use.exported import describe_stored, runnables, write_stored
from frugalnet.use.weights import Stored

_CALIBRATED = 1000  # pictures at most, as in the pipeline
_MAX_LOSS_POINTS = 2.0
_TIMING = MeasureConfig(warmup_rounds=1, rounds=10, latencies_per_round=10, batch_size=2, energy_seconds=1.0)


@dataclass(frozen=True)
class Shown:
    """Pictures to calibrate with and to compare the formats on, (N, side, side, 3) uint8.

    labels: (N,) int64 of the compared, or None if no folder names a class of the network. on: what they are, in words.
    """

    calibration: NDArray[np.uint8]
    compared: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    on: str


@dataclass(frozen=True)
class Figures:
    """What a format costs and gives. other_class: pictures for which it names another class than PyTorch."""

    path: Path
    bytes: int
    milliseconds: float
    other_class: int
    right: int | None = None


def export_with_pictures(stored: Stored, names: Sequence[str], out: Path) -> str:
    """Write a network's files for other runtimes, with the ranges of int8 taken from pictures, into a new folder.

    names: pictures, folders of them, or one folder that holds a folder of pictures for each class. Returns what was
    written, and how the formats compare. Raises UserError if `out` already exists, or for a file that is not a picture.
    """
    if out.exists():  # said at once, and again when the lock is held
        raise UserError(f"{out}: already exists; remove it, or name another folder")
    shown = read_shown(stored, names)
    config = ExportConfig(calibration_images=min(_CALIBRATED, len(shown.calibration)), max_loss_points=_MAX_LOSS_POINTS)
    with atomic(out, is_new=True) as folder:
        folder.mkdir()
        _progress(f"writing {stored.name}, calibrated on {config.calibration_images} pictures")
        written = write_stored(stored, shown.calibration, config, folder)
        files = runnables(stored, folder)
        _progress(f"comparing {len(files)} formats on {shown.on}")
        accuracy = None if shown.labels is None else measure_accuracy(files, _dataset(stored, shown), config)
        describe_stored(stored, written, accuracy, folder)
        figures = _compare(files, shown, accuracy)
    others = {path.name for path in out.iterdir()} - {FILES[kind] for kind in figures if kind in FILES}
    beside = f"{printable(out)} also holds {', '.join(sorted(others))}."
    moved = {kind: replace(of, path=out / of.path.name) if kind in FILES else of for kind, of in figures.items()}
    return "\n".join([table(stored.name, shown, moved), *verdicts(moved), beside])


def _progress(text: str) -> None:
    print(f"frugalnet: {text} …", file=sys.stderr)


def read_shown(stored: Stored, names: Sequence[str]) -> Shown:
    """The pictures of the command line. Raises UserError for a file that is not a picture."""
    if len(names) == 1 and _holds_folders(Path(names[0])):
        return _of_classes(stored, Path(names[0]))
    left_out = LeftOut()
    files = list(find_pictures([*names], left_out))
    if left_out:
        print(f"frugalnet: {printable(left_out)}", file=sys.stderr)
    side = stored.entry.side
    bar = tqdm(files, desc="Reading", unit="picture", disable=not sys.stderr.isatty(), leave=False)
    pixels = np.stack([open_file(file, side).pixels for file in bar])
    return Shown(pixels, pixels, None, f"{len(pixels)} pictures")


def _holds_folders(path: Path) -> bool:
    return path.is_dir() and any(child.is_dir() and not child.name.startswith(".") for child in path.iterdir())


def _of_classes(stored: Stored, folder: Path) -> Shown:
    """Where the network was fine-tuned on this very folder: calibrated on the training pictures, and compared on those
    that were held out."""
    _progress(f"reading the pictures in {folder}")
    given = labelled.read_pictures(folder, stored.entry.side)
    pixels = given.pixels
    labels = _labels(stored, given.classes, given.labels)
    if stored.entry.data_sha256 == sha256_of([given.classes, given.labels.tolist(), pixels.tobytes().hex()]):
        held = labelled.hold_out(given.labels, given.groups, stored.entry.seed)
        on = f"the {held.sum()} pictures in {folder} that were held out in training"
        return Shown(pixels[~held], pixels[held], None if labels is None else labels[held], on)
    on = f"the {len(pixels)} pictures in {folder}, on which int8 was calibrated too"
    if labels is None:
        on += "; the folders are not named as classes of the network, so its accuracy is unknown"
    return Shown(pixels, pixels, labels, on)


def _labels(stored: Stored, folders: list[str], labels: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The labels as positions in the network's classes, by id or by name; None if a folder is no class of it."""
    classes = stored.classes
    places = {name: place for known in (classes.names, classes.ids) for place, name in enumerate(known)}
    if not all(folder in places for folder in folders):
        return None
    return np.array([places[folder] for folder in folders])[labels]


def _dataset(stored: Stored, shown: Shown) -> Dataset:
    assert shown.labels is not None
    return Dataset(
        train=Split(shown.calibration, np.zeros(len(shown.calibration), np.int64)),
        validation=Split(shown.compared, shown.labels),
        class_ids=stored.classes.ids,
        class_names=stored.classes.names,
        mean=stored.entry.mean,
        std=stored.entry.std,
        name=stored.entry.data,
        is_sample=False,
        validated_on=shown.on,
        sha256={},
    )


def _compare(files: Mapping[Format, Runnable], shown: Shown, accuracy: ExportResult | None) -> dict[Format, Figures]:
    runs = {kind: file.open() for kind, file in files.items()}
    times = measure_latencies(runs, shown.compared[:1], _TIMING)
    classes = {kind: predict(run(shown.compared)) for kind, run in runs.items()} if accuracy is None else {}
    figures = {}
    for kind, file in files.items():
        measured: FormatResult | None = accuracy.formats[kind] if accuracy else None
        figures[kind] = Figures(
            path=file.path,
            bytes=file.path.stat().st_size,
            milliseconds=float(np.median(times[kind])),
            other_class=measured.other_class if measured else int((classes[kind] != classes["pytorch"]).sum()),
            right=round(measured.top1 * len(shown.compared)) if measured else None,
        )
    return figures


def table(name: str, shown: Shown, figures: Mapping[Format, Figures]) -> str:
    """The formats, a line each, for a terminal."""
    n = len(shown.compared)
    lines = [f"{name}, compared on {shown.on}:"]
    width = max(len(printable(of_format.path)) for of_format in figures.values()) + 1
    for of_format in figures.values():
        path = f"{printable(of_format.path)}:"
        line = f"  {path:<{width}} {of_format.bytes:>11,} bytes  {of_format.milliseconds:7.2f} ms"
        if of_format.right is not None:
            low, high = map(float, wilson_interval(np.array(of_format.right), np.array(n)))
            line += f"  top-1 {of_format.right / n:6.1%} (95 % interval {low:.1%} to {high:.1%})"
        lines.append(f"{line}  not PyTorch's class on {of_format.other_class}")
    return "\n".join(lines)


def verdicts(figures: Mapping[Format, Figures]) -> list[str]:
    """Whether int8 is worth it beside float32, where it is not clear: it is larger, or slower."""
    onnx, int8 = figures["onnx"], figures["int8"]
    size = int8.bytes / onnx.bytes
    time = int8.milliseconds / onnx.milliseconds
    if size >= 1:
        return [f"int8 is not worth it: its file is no smaller than float32's ({size:.0%})."]
    if time > 1:
        return [f"int8 takes {time:.1f} times as long as float32 here: worth it for its bytes alone, {size:.0%}."]
    return []
