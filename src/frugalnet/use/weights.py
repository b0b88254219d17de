"""Stored networks: safetensors, and beside them all that is needed to name what is in a picture.

A folder of weights holds `<model>-<seed>.safetensors`, perhaps `<model>-<seed>.onnx` and `.int8.onnx`,
weights.json, and the classes of each data set:

    weights.json         {"networks": [...]}, each as `Entry` describes it
    tiny-imagenet.json   {"ids": [...], "names": [...]}, in the order of the logits
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field, model_validator

from frugalnet.data import arrays
from frugalnet.data.sizes import unequal_sizes
from frugalnet.errors import UserError
from frugalnet.export.formats import Format
from frugalnet.files import atomic, read_regular, sha256, sha256_of, write_json
from frugalnet.metrics.evaluation import read_metrics
from frugalnet.recommendation import Candidate, ranked
from frugalnet.run import read_run
from frugalnet.schema import Config

if TYPE_CHECKING:
    from torch import nn

    from frugalnet.training.batches import Normaliser

C = TypeVar("C", bound=Config)
_PLAIN = Field(pattern=r"^\w[\w.-]*$", max_length=200)  # of a name in the same folder: no path
_MOST_BYTES = 2**24  # of a description
SMALLEST_SIDE, LARGEST_SIDE = 8, 4096  # of pictures, in pixels
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Channels = Field(min_length=3, max_length=3)  # R, G, B
_Mean = Annotated[list[Annotated[float, Field(ge=0, le=255)]], _Channels]
_Deviation = Annotated[list[Annotated[float, Field(ge=0.01, le=255)]], _Channels]


class Classes(Config):
    """The classes of a data set, in the order of the logits."""

    ids: list[str]
    names: list[str]

    @model_validator(mode="after")
    def _one_name_each(self) -> "Classes":
        if len(self.ids) != len(self.names):
            raise ValueError(f"{len(self.ids)} ids, but {len(self.names)} names")
        return self


class Export(Config):
    """A file of a network for another runtime, in the same folder."""

    file: Annotated[str, _PLAIN]
    sha256: str
    top1: _Share | None = None  # where it was measured on its own


class Entry(Config):
    """A network in weights.json. mean, std: R, G, B in 0..255; top1: on the `n` images of `validated_on` of `data`.

    macro_accuracy: None where classes are of like size. side: of the pictures, in pixels. onnx, int8: the network's
    files for ONNX Runtime; None: there are none. What has its default is not written.
    """

    file: Annotated[str, _PLAIN]
    sha256: str
    model: Annotated[str, _PLAIN]
    seed: _Count
    classes: Annotated[str, _PLAIN]  # a file in the same folder
    mean: _Mean
    std: _Deviation
    recipe: dict[str, Any]  # the parameters under `train`
    data: str
    data_sha256: str
    validated_on: str
    top1: _Share
    n: Annotated[_Count, Field(ge=1)]
    macs: _Count
    macro_accuracy: _Share | None = None
    side: int = Field(default=64, ge=SMALLEST_SIDE, le=LARGEST_SIDE)
    onnx: Export | None = None
    int8: Export | None = None

    @property
    def name(self) -> str:
        return f"{self.model}-{self.seed}"

    @property
    def accuracy(self) -> float:
        """What ranks networks: macro accuracy where classes differ in size, else top-1."""
        return self.top1 if self.macro_accuracy is None else self.macro_accuracy


class _Listed(Config):
    networks: list[Entry]


class Stored(Config):
    """A network on disk: where its weights are, what they are, and its classes."""

    path: Path
    entry: Entry
    classes: Classes

    @property
    def name(self) -> str:
        return self.entry.name


def project_folder() -> Path:
    """The weights that come with the project: in the clone, or where the package's installation puts them."""
    clone = Path(__file__).parents[3] / "weights"
    return clone if clone.is_dir() else Path(sys.prefix) / "share/frugalnet/weights"


def choose_network(name: str | None = None, where: Path | str | None = None) -> Stored:
    """The network of that name, with or without its seed, in a folder or file of weights; by default the project's own.

    Without a seed it is the lowest one, and without a name the most accurate network. Raises UserError, with the names
    that there are, if there is no such network, or if the file holds another one.
    """
    networks = list_networks(where)
    matching = [stored for stored in networks if name in (None, stored.name, stored.entry.model)]
    if not matching:
        listed = ", ".join(stored.name for stored in networks)
        raise UserError(f"{where or project_folder()}: holds {listed}, not '{name}'")
    if name is None:
        return matching[0]
    return min(matching, key=lambda stored: stored.entry.seed)


def list_networks(where: Path | str | None = None) -> list[Stored]:
    """The networks in a folder of weights, by default the project's, or the one of a file, best first as in the report.

    Raises UserError if there are none.
    """
    if where is None or Path(where).is_dir():
        networks = of_folder(project_folder() if where is None else Path(where))
    else:
        networks = [of_file(Path(where))]
    by_name = {stored.name: stored for stored in networks}
    candidates = [Candidate(name, stored.entry.accuracy, stored.entry.macs) for name, stored in by_name.items()]
    return [by_name[candidate.name] for candidate in ranked(candidates)]


def of_folder(folder: Path) -> list[Stored]:
    """The networks in a folder of weights. Raises UserError if there are none, or if their description is damaged."""
    if not (folder / "weights.json").is_file():
        raise UserError(f"{folder}: no weights here (no weights.json); train first, or name a file with --weights")
    entries = read_description(_Listed, folder / "weights.json").networks
    if not entries:
        raise UserError(f"{folder / 'weights.json'}: lists no network; run `python -m tools.publish weights`")
    classes = {name: read_description(Classes, folder / name) for name in {entry.classes for entry in entries}}
    return [Stored(path=folder / entry.file, entry=entry, classes=classes[entry.classes]) for entry in entries]


def read_description(kind: type[C], path: Path) -> C:
    """What a JSON file in a folder of weights says. Raises UserError if it is missing or damaged."""
    try:
        data = read_regular(path, _MOST_BYTES)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"larger than {_MOST_BYTES // 2**20} MiB")
        return kind.model_validate_json(data)
    except (OSError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: missing or damaged ({reason}); restore it, for example with git checkout") from error


def of_file(path: Path) -> Stored:
    """The network in a file of a folder of weights, or of models/ in a project. Raises UserError if there is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder of weights")
    if (path.parent / "weights.json").is_file():
        for stored in of_folder(path.parent):
            if stored.path.name == path.name:
                return stored
        raise UserError(f"{path}: not in the list in {path.parent / 'weights.json'}")
    project = path.absolute().parent.parent
    if path.absolute().parent.name == "models" and (project / "results/train" / path.stem / "run.json").is_file():
        return of_run(project, path.stem)
    raise UserError(
        f"{path}: no network is described with these weights; expected weights.json beside the file, or the file in "
        "models/ of the project that trained it"
    )


def of_run(project: Path, name: str) -> Stored:
    """A network that the project has trained and evaluated. Raises UserError if it has not, or on other data."""
    run = read_run(project / "results/train" / name / "run.json")
    metrics = read_metrics(project / "results/evaluate" / name / "metrics.json")
    data = arrays.read_dataset(project / "data/arrays")
    if run.data_sha256 != sha256_of(data.sha256):
        raise UserError(f"{name} was trained on other data than those in data/arrays; run `dvc repro`")
    entry = Entry(
        file=f"{name}.safetensors",
        sha256=run.weights_sha256,
        model=run.model,
        seed=run.seed,
        classes=f"{data.name}.json",
        mean=data.mean,
        std=data.std,
        recipe=run.train,
        data=data.name,
        data_sha256=run.data_sha256,
        validated_on=run.validated_on,
        top1=metrics.top1,
        n=metrics.n,
        macs=metrics.macs,
        macro_accuracy=metrics.macro_accuracy if unequal_sizes(data) else None,
        side=run.side,
    )
    classes = Classes(ids=data.class_ids, names=data.class_names)
    return Stored(path=project / "models" / entry.file, entry=entry, classes=classes)


def check_file(stored: Stored) -> None:
    """Raises UserError unless the file is the one that its description means."""
    _check(stored.path, stored.entry.sha256, stored.name)


def check_export(stored: Stored, kind: Format) -> Path:
    """The network's ONNX or int8 file. Raises UserError unless it is the one that its description means."""
    export: Export = getattr(stored.entry, kind)
    path = stored.path.with_name(export.file)
    _check(path, export.sha256, stored.name)
    return path


def check_exports(stored: Stored) -> dict[Format, Path]:
    """The network's files for other runtimes. Raises UserError unless they are those that its description means."""
    kinds: tuple[Format, ...] = ("onnx", "int8")
    return {kind: check_export(stored, kind) for kind in kinds if getattr(stored.entry, kind)}


def _check(path: Path, expected: str, name: str) -> None:
    if not path.is_file():
        raise UserError(f"{path}: missing; restore it, for example with git checkout or dvc checkout")
    if (present := sha256(path)) != expected:
        raise UserError(
            f"{path}: not the file that weights.json or run.json describes as {name} (expected SHA-256 "
            f"{expected[:16]}…, found {present[:16]}…); restore the file, or evaluate it again"
        )


def load_network(stored: Stored) -> "tuple[Normaliser, nn.Module]":
    """The normalisation and the network, on the CPU in evaluation mode. Raises UserError if the weights do not fit."""
    import torch  # here: a list of networks needs none of it

    from frugalnet import models
    from frugalnet.training.batches import Normaliser
    from frugalnet.training.inference import load_weights

    check_file(stored)
    network = load_weights(models.build(stored.entry.model, len(stored.classes.ids)), stored.path)
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise UserError(f"{stored.path}: holds weights that are not finite numbers; train the network again")
    normalise = Normaliser(stored.entry.mean, stored.entry.std, torch.device("cpu"))
    return normalise, network.to(memory_format=torch.channels_last).eval()


def write_weights(folder: Path, networks: Sequence[Stored]) -> None:
    """Write a folder of weights, whole or not at all, with the same bytes for the same networks."""
    with atomic(folder) as partial:
        partial.mkdir()
        for stored in networks:
            check_file(stored)
            shutil.copyfile(stored.path, partial / stored.entry.file)
            for path in check_exports(stored).values():
                shutil.copyfile(path, partial / path.name)
            classes = partial / stored.entry.classes
            if classes.exists() and read_description(Classes, classes) != stored.classes:
                raise UserError(f"{folder}: two data sets named {stored.entry.data} with other classes")
            write_json(classes, stored.classes.model_dump())
        entries = [stored.entry.model_dump(mode="json", exclude_defaults=True) for stored in networks]
        write_json(partial / "weights.json", {"networks": entries})
