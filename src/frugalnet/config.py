"""params.yaml → frozen objects. The only reader of params.yaml; every stage calls it first."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator
from ruamel.yaml import YAML

from frugalnet import models
from frugalnet.adaptation.config import AdaptConfig
from frugalnet.cluster.config import ClusterConfig
from frugalnet.compute_config import ComputeConfig
from frugalnet.data.config import AugmentConfig, DownloadConfig, FolderConfig, NormaliseConfig
from frugalnet.distributed.config import DistributedConfig, GlobalNet, LaunchConfig
from frugalnet.errors import UserError, printable
from frugalnet.export.config import ExportConfig
from frugalnet.metrics.config import MeasureConfig
from frugalnet.recommendation import Budget
from frugalnet.robustness.config import RobustnessConfig
from frugalnet.schema import Config
from frugalnet.training.config import TeachersConfig, TrainConfig

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")
_MAX_TOLD = 10  # errors in one message


def _once(values: list[T]) -> list[T]:
    (value, count), *_ = Counter(values).most_common(1)
    if count > 1:
        raise ValueError(f"{value} appears {count} times")
    return values


class DataConfig(DownloadConfig, FolderConfig, NormaliseConfig):
    """Where the archive comes from, and which of its images become arrays."""


class ModelConfig(Config):
    """The architectures to train and compare."""

    names: Annotated[list[str], Field(min_length=1), AfterValidator(_once)]


class Params(Config):
    """All of params.yaml."""

    data: DataConfig
    augment: AugmentConfig
    model: ModelConfig
    train: TrainConfig
    teacher: TeachersConfig
    distributed: DistributedConfig
    launch: LaunchConfig
    compute: ComputeConfig
    cluster: ClusterConfig
    measure: MeasureConfig
    export: ExportConfig
    robustness: RobustnessConfig
    adapt: AdaptConfig
    budget: Budget
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1), AfterValidator(_once)]

    @field_validator("train")
    @classmethod
    def _fits_the_images(cls, train: TrainConfig, info: ValidationInfo) -> TrainConfig:
        data = info.data.get("data")
        if data and max(train.resolutions) > data.side:
            raise ValueError(
                f"resolutions {train.resolutions} enlarge the images, data.side is {data.side}: "
                f"set train.resolutions=[{data.side}]"
            )
        return train

    @field_validator("teacher")
    @classmethod
    def _is_listened_to(cls, teacher: TeachersConfig, info: ValidationInfo) -> TeachersConfig:
        train = info.data.get("train")
        if train and bool(train.distillation) != bool(teacher.model):
            raise ValueError(
                f"the teacher is {teacher.model}, but train.distillation is {train.distillation}: set both"
            )
        return teacher

    @field_validator("distributed")
    @classmethod
    def _exchanges(cls, distributed: DistributedConfig, info: ValidationInfo) -> DistributedConfig:
        train = info.data.get("train")
        if isinstance(distributed, GlobalNet) and train and distributed.period > train.epochs:
            raise ValueError(
                f"a period of {distributed.period} epochs is longer than the run, train.epochs={train.epochs}"
            )
        if distributed.kind != "none" and train and (unsupported := _of_one_process(train)):
            raise ValueError(f"several workers do not support {', '.join(unsupported)}: use one process")
        return distributed


def _of_one_process(train: TrainConfig) -> list[str]:
    """The settings of a recipe that several workers do not support."""
    settings = {
        "train.ema_decay": train.ema_decay > 0,
        "train.distillation": train.distillation > 0,
        "muon": train.optimiser == "muon",
        "train.balance": train.balance != "none",
        "train.start": train.start != "random",
    }
    return [name for name, is_set in settings.items() if is_set]


def _json(path: Path) -> str:
    """The YAML file as JSON: so pydantic is strict about types. As YAML 1.2, like DVC: 5e-5 is a number."""
    text = path.read_bytes()
    try:
        return json.dumps(YAML(typ="safe").load(text.decode()))
    except Exception as error:  # beside its own errors, whatever the types named in the file raise: `!!int many`
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not readable as YAML ({reason})") from error


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read all parameters: a stage refuses wrong ones, and names of networks that there are not, before any work.

    What takes longer is what `check.check` tries. Raises UserError, naming each wrong key.
    """
    try:
        params = Params.model_validate_json(_json(path))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']:.200}{_found(e)}" for e in error.errors()]
        more = f"; and {len(wrong) - _MAX_TOLD} more" if len(wrong) > _MAX_TOLD else ""
        raise UserError(f"{path}: " + "; ".join(wrong[:_MAX_TOLD]) + more) from error
    if missing := list(_left_to_defaults(params)):
        raise UserError(f"{path}: {', '.join(missing[:_MAX_TOLD])}: missing; `make params` restores the defaults")
    for key, name in named_networks(params):
        with naming(f"{path}: {key}"):
            models.find(name)
    return params


def _found(error: "ErrorDetails") -> str:
    """What the file holds, but no address: it may hold a password that looks like other text."""
    holds_address = error["loc"][-1:] == ("url",) or error["type"] == "missing"  # there, the found is all the section
    return "" if holds_address else f" (found: {printable(repr(error['input'])):.80})"


def _left_to_defaults(values: Config, prefix: str = "") -> Iterator[str]:
    """The keys that the file lacks and a class has a default for: DVC would not see them change."""
    for name in type(values).model_fields:
        value = getattr(values, name)
        if name not in values.model_fields_set:
            yield f"{prefix}{name}"
        elif isinstance(value, Config):
            yield from _left_to_defaults(value, f"{prefix}{name}.")


def named_networks(params: Params) -> list[tuple[str, str]]:
    """The networks that are trained, and the teachers: the parameter and the name of each."""
    named = [("model.names", name) for name in params.model.names]
    return [*named, *(("teacher.model", str(teacher.model)) for teacher in params.teacher.members)]


@contextmanager
def naming(key: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
