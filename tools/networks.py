"""The committed networks: their weights, their model cards, and whether they still give the committed results."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
from jinja2 import StrictUndefined, Template

from frugalnet import config, models
from frugalnet.data import arrays
from frugalnet.data.arrays import Dataset
from frugalnet.datasets import is_tiny_imagenet
from frugalnet.document import wording
from frugalnet.errors import UserError
from frugalnet.export import section as device
from frugalnet.export.formats import FILES
from frugalnet.export.measure import measure_accuracy
from frugalnet.export.records import read_exported
from frugalnet.files import atomic, read_json, read_table, sha256, sha256_of, write_json
from frugalnet.metrics import accuracy, classes
from frugalnet.metrics.evaluation import read_metrics
from frugalnet.metrics.statistics import Interval, wilson_interval
from frugalnet.paper.claims import PAPER_RECIPE
from frugalnet.run import read_run
from frugalnet.use import choice, weights
from frugalnet.use.exported import runnables, write_stored
from frugalnet.use.pytorch import open_network
from frugalnet.use.weights import Export, Stored
from tools.records import RESULTS

WEIGHTS = Path("weights")
CARD = Path(__file__).with_name("card.md.j2")
MAX_BYTES = 2_000_000


def publish_weights(names: Sequence[str]) -> None:
    """Copy the weights of these runs, or of all finished ones whose file is small, to the folders where they belong.

    Raises UserError for sample data, for a run that is not finished, and if no run fits.
    """
    if read_json(Path("data/arrays/dataset.json"))["is_sample"]:
        raise UserError("data/arrays holds sample data; weights trained on them do not belong in weights/")
    finished = sorted(path.parent.name for path in Path("results/evaluate").glob("*/metrics.json"))
    if unknown := set(names) - set(finished):
        raise UserError(f"{', '.join(sorted(unknown))}: no finished run; there are {', '.join(finished)}")
    chosen = [weights.of_run(Path(), name) for name in names] or _small_networks(finished)
    by_folder: dict[Path, list[Stored]] = {}
    for stored in chosen:
        by_folder.setdefault(_folder(stored, chosen), []).append(stored)
    for folder, added in by_folder.items():
        recipes = {_recipe(stored) for stored in added}
        kept = [stored for stored in _committed(folder) if _recipe(stored) not in recipes]
        weights.write_weights(folder, sorted([*kept, *added], key=lambda stored: stored.name))
        for stored in added:
            print(f"{folder / stored.entry.file}: top-1 {stored.entry.top1:.2%}, {stored.path.stat().st_size:,} bytes")


def _small_networks(finished: Sequence[str]) -> list[Stored]:
    small = []
    for name in finished:
        try:
            stored = weights.of_run(Path(), name)
        except UserError as error:  # a run on other data, left from an earlier study
            print(f"left out: {error}", file=sys.stderr)
            continue
        if stored.path.stat().st_size <= MAX_BYTES:
            small.append(stored)
        else:
            print(
                f"left out: {stored.path}, larger than {MAX_BYTES:,} bytes; to include it, name all runs",
                file=sys.stderr,
            )
    if not small:
        raise UserError("no finished run in results/ fits: run `dvc repro`, or name those to include")
    return small


def _folder(stored: Stored, chosen: Sequence[Stored]) -> Path:
    """weights/ for the lowest seed of a network; docs/results/RECIPE/weights for what is verified rather than used."""
    recipe = _recipe(stored)
    is_first = stored.entry.seed == min(other.entry.seed for other in chosen if other.entry.model == stored.entry.model)
    is_taken = stored.name in {other.name for other in _committed(WEIGHTS) if _recipe(other) != recipe}
    return WEIGHTS if is_first and not is_taken and recipe != PAPER_RECIPE else RESULTS / recipe / "weights"


def _recipe(stored: Stored) -> str:
    return str(stored.entry.recipe["recipe"])


def _committed(folder: Path) -> list[Stored]:
    return weights.of_folder(folder) if (folder / "weights.json").is_file() else []


def write_exports(root: Path) -> None:
    """Write the ONNX files of the networks in the weights/ of the project in `root`, and print what they are worth."""
    data = arrays.read_dataset(root / "data/arrays")
    settings = config.read_params(root / "params.yaml").export
    with tempfile.TemporaryDirectory() as temporary:
        staged = []
        for stored in weights.of_folder(root / WEIGHTS):
            _check_data(stored, data)
            folder = Path(temporary) / stored.name
            folder.mkdir()
            write_stored(stored, data.train.images, settings, folder)
            result = measure_accuracy(runnables(stored, folder), data, settings)
            print(result.in_words(stored.name))
            kinds: tuple[Literal["onnx", "int8"], ...] = ("onnx", "int8") if result.int8_accepted else ("onnx",)
            exports = {
                kind: _stage(folder / FILES[kind], stored.name, kind, result.formats[kind].top1) for kind in kinds
            }
            entry = stored.entry.model_copy(update={"onnx": exports["onnx"], "int8": exports.get("int8")})
            path = shutil.copyfile(stored.path, Path(temporary) / entry.file)
            staged.append(stored.model_copy(update={"path": path, "entry": entry}))
        weights.write_weights(root / WEIGHTS, staged)


def _stage(file: Path, name: str, kind: Literal["onnx", "int8"], top1: float) -> Export:
    """Copy a file of a network's folder beside that folder, under the name that it has in a folder of weights."""
    path = file.parent.with_name(f"{name}.onnx" if kind == "onnx" else f"{name}.int8.onnx")
    shutil.copyfile(file, path)
    return Export(file=path.name, sha256=sha256(path), top1=top1 if kind == "int8" else None)


def _check_data(stored: Stored, data: Dataset) -> None:
    if (present := sha256_of(data.sha256)) != stored.entry.data_sha256:
        raise UserError(
            f"data/arrays holds other images than {stored.name} was evaluated on (SHA-256 {present[:12]}, expected "
            f"{stored.entry.data_sha256[:12]}); run `dvc repro normalise` with the parameters data=full"
        )


def write_latencies() -> None:
    """Time the ONNX files in weights/ on this machine, in alternating rounds."""
    options, _ = choice.read_options(WEIGHTS)
    write_json(WEIGHTS / choice.MEASURED, choice.time_options(options).model_dump())


def record_of(stored: Stored, results: Path) -> Path:
    """The folder of results/RECIPE/NAME that holds the run of these weights. Raises UserError if there is none."""
    for path in sorted(results.glob(f"*/{stored.name}/run.json")):
        if read_run(path).weights_sha256 == stored.entry.sha256:
            return path.parent
    raise UserError(f"{stored.path}: no record in {results}/*/{stored.name} is of these weights; commit both together")


def write_cards(folder: Path, results: Path) -> None:
    """Write the model card of each network in weights/."""
    with atomic(folder) as partial:
        partial.mkdir()
        for stored in weights.of_folder(weights.project_folder()):
            text = card(stored, record_of(stored, results))
            (partial / f"{stored.entry.model}.md").write_text(text, encoding="utf-8")


def card(stored: Stored, record: Path) -> str:
    """The model card of stored weights, in Markdown with Hugging Face's front matter.

    record: the folder of these weights' own run in docs/results/RECIPE. Its figures are theirs, not a mean over seeds.
    """
    metrics = read_metrics(record / "metrics.json")
    correct = np.array(round(metrics.top1 * metrics.n))
    low, high = wilson_interval(correct, np.array(metrics.n))
    text = CARD.read_text(encoding="utf-8")
    template: Template = Template(text, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return template.render(
        stored=stored,
        about=import_module(f"frugalnet.models.{models.parse(stored.entry.model).architecture}").__doc__,
        record=record,
        run=read_json(record / "run.json"),
        joules=read_json(record / "timing.json")["epoch_joules"],
        metrics=metrics,
        top1=Interval(metrics.top1, float(low), float(high)),
        exported=read_exported(record.parent, stored.entry.model, stored.entry.seed),
        device=device,
        wording=wording,
        is_tiny_imagenet=is_tiny_imagenet,
        listed=lambda settings: wording.markdown(", ".join(f"{key} {value}" for key, value in settings.items())),
    )


def verify_weights(root: Path) -> None:
    """Evaluate the committed weights of the project in `root`, and print a line for each network; see `verify`."""
    data = arrays.read_dataset(root / "data/arrays")
    for folder in (root / "weights", *sorted((root / "docs/results").glob("*/weights"))):
        for stored in weights.of_folder(folder):
            print(verify(stored, record_of(stored, root / "docs/results"), data))


def verify(stored: Stored, record: Path, data: Dataset) -> str:
    """Compare the figures of stored weights with their record; returns a line that says so.

    Raises UserError if the data, top-1, top-5 or any class's number of correct images differs.
    """
    _check_data(stored, data)
    logits = open_network(stored)(data.validation.images).astype(np.float16)  # as `evaluate` stores them
    labels = np.array(data.validation.labels)
    expected = read_metrics(record / "metrics.json")
    top1, top5 = (accuracy.top_k(logits, labels, k) for k in (1, 5))
    compared = (("top1", top1, expected.top1), ("top5", top5, expected.top5))
    differences = [f"{name} {now}, expected {then}" for name, now, then in compared if now != then]
    correct = classes.confusion(accuracy.predict(logits), labels, len(data.class_ids)).diagonal()
    recorded = np.array([int(row["correct"]) for row in read_table(record / "per_class.csv")])
    if changed := np.count_nonzero(correct != recorded):
        differences.append(f"{changed} of {len(recorded)} classes have another number of correct images")
    if differences:
        reasons = "; ".join(differences)
        raise UserError(f"{stored.name}: {reasons}; another processor or version of torch can be the cause")
    return f"{stored.name}: top-1 {top1:.2%}, top-5 {top5:.2%}, all classes as in {record}"
