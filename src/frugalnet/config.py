"""params.yaml → frozen objects. The only reader of params.yaml; every stage but `compare` calls it first."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from frugalnet import models
from frugalnet.adaptation.measure import AdaptConfig
from frugalnet.compute import ComputeConfig
from frugalnet.data.arrays import NormaliseConfig
from frugalnet.data.augment import AugmentConfig
from frugalnet.data.download import DownloadConfig
from frugalnet.distributed.launch import DistributedConfig, GlobalNet, LaunchConfig
from frugalnet.errors import UserError
from frugalnet.export.config import ExportConfig
from frugalnet.metrics.timing import MeasureConfig
from frugalnet.robustness.config import RobustnessConfig
from frugalnet.schema import Config
from frugalnet.training.distillation import TeacherConfig
from frugalnet.training.trainer import TrainConfig

T = TypeVar("T")
_MAX_DEPTH = 20  # of params.yaml
_MAX_TOLD = 10  # errors in one message


def _once(values: list[T]) -> list[T]:
    (value, count), *_ = Counter(values).most_common(1)
    if count > 1:
        raise ValueError(f"{value} appears {count} times")
    return values


class DataConfig(DownloadConfig, NormaliseConfig):
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
    teacher: TeacherConfig
    distributed: DistributedConfig
    launch: LaunchConfig
    compute: ComputeConfig
    evaluate: MeasureConfig
    export: ExportConfig
    robustness: RobustnessConfig
    adapt: AdaptConfig
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1), AfterValidator(_once)]

    @field_validator("teacher")
    @classmethod
    def _is_listened_to(cls, teacher: TeacherConfig, info: ValidationInfo) -> TeacherConfig:
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
        if (
            distributed.kind != "none"
            and train
            and (train.ema_decay or train.distillation or train.optimiser == "muon")
        ):
            raise ValueError(
                "several workers support neither train.ema_decay, train.distillation nor muon: use one process"
            )
        return distributed


def _json(path: Path) -> str:
    """The YAML file as JSON: so pydantic is strict about types. As YAML 1.2, like DVC: 5e-5 is a number."""
    text = path.read_bytes()
    try:
        _check_yaml(path, text.decode())
        return json.dumps(YAML(typ="safe").load(text.decode()))
    except UserError:
        raise
    except Exception as error:  # beside its own errors, whatever the types named in the file raise: `!!int many`
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not readable as YAML ({reason})") from error


def _check_yaml(path: Path, text: str) -> None:
    """Raise UserError for YAML that expands or nests without bound, before it is loaded."""
    depth = 0
    for event in YAML(typ="safe").parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent):  # can repeat a value a billion times, or refer to what it stands in
            raise UserError(f"{path}: contains a YAML alias (*name); write the value itself")
        if depth > _MAX_DEPTH:
            raise UserError(f"{path}: values are nested more than {_MAX_DEPTH} deep; frugalnet's own are five deep")


def load(path: Path = Path("params.yaml"), *, try_policy: bool = False) -> Params:
    """Read all parameters, and try every network that they name: a stage refuses them before any work.

    try_policy: try the augmentation policy, too, which takes a second: for the first stage, and for the one that uses
    it. Raises UserError, naming each wrong key, or the architecture's file.
    """
    try:
        params = Params.model_validate_json(_json(path), context={"untried_policy": not try_policy})
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, e['loc']))}: {e['msg']:.200} (found: {UserError(repr(e['input']))!s:.80})"
            for e in error.errors()
        ]
        more = f"; and {len(wrong) - _MAX_TOLD} more" if len(wrong) > _MAX_TOLD else ""
        raise UserError(f"{path}: " + "; ".join(wrong[:_MAX_TOLD]) + more) from error
    teacher = [("teacher.model", params.teacher.model)] if params.teacher.model else []
    for key, name in [*(("model.names", name) for name in params.model.names), *teacher]:
        try:
            models.check(name, params.train.resolutions)
        except UserError as error:
            raise UserError(f"{path}: {key}: {error}") from error
    return params
