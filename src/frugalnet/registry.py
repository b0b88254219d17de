"""MLflow's model registry: every exported network is a version of a registered model.

That is `frugalnet-<model>` on Tiny ImageNet and on the sample, and `frugalnet-<data>-<model>` on any other data.
`aliases.py` says which versions the aliases name; `python -m frugalnet.promote` alone moves them.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType

from frugalnet.aliases import Version, choose_versions, family
from frugalnet.errors import UserError
from frugalnet.mlflow_store import connect_to_present, in_words
from frugalnet.tracking import TrackedRun

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
PREFIX = "frugalnet-"


# A picture is either an image file or its pixels, side × side × 3 integers in 0..255. MLflow's own check of a nested
# array of integers takes a second a picture, so the model checks them itself.
SIGNATURE = ModelSignature(
    Schema([ColSpec(DataType.binary, "image", required=False), ColSpec(AnyType(), "pixels", required=False)]),
    Schema([ColSpec(AnyType(), "classes"), ColSpec(AnyType(), "changes")]),
    ParamSchema([ParamSpec("top", DataType.long, 5)]),
)


def bad_request(message: str) -> Exception:
    """The one kind of exception whose message MLflow's server passes to the client, with status 400."""
    error: Exception = MlflowException(message, INVALID_PARAMETER_VALUE)
    return error


@dataclass(frozen=True)
class Exported:
    """An exported network, ready to be registered.

    folder: of weights, with the exported files beside them. example: an image file. tags, description: of its version;
    the tags `weights_sha256` and `files_sha256` tell whether that is there already.
    """

    model: str
    folder: Path
    example: bytes
    top1: float
    tags: dict[str, str]
    description: str


def register(tracked: TrackedRun, exported: Exported) -> None:
    """Log the network as the run's model, which can be served, and as a version of its registered model, once."""
    of_data = family(exported.tags["data"], exported.tags["is_sample"] == "True")
    name = PREFIX + (f"{of_data}-" if of_data else "") + exported.model

    def log(run_id: str) -> None:
        client = mlflow.MlflowClient()
        same = " and ".join(f"tags.`{key}` = '{exported.tags[key]}'" for key in ("weights_sha256", "files_sha256"))
        if client.search_model_versions(f"name = '{name}' and {same}"):
            return
        with mlflow.start_run(run_id=run_id):
            example = pd.DataFrame({"image": [exported.example]})
            info = mlflow.pyfunc.log_model(name=exported.folder.name, input_example=example, **_model(exported.folder))
            mlflow.log_metrics({"final/top1": exported.top1}, model_id=info.model_id)
        version = mlflow.register_model(info.model_uri, name, tags=exported.tags).version
        client.update_model_version(name, version, exported.description)

    tracked.call(f"its version of {name}", log)


def _model(folder: Path) -> dict[str, Any]:
    """What MLflow has to know to serve a folder of weights."""
    return {
        "loader_module": "frugalnet.use.served",
        "data_path": str(folder),
        "signature": SIGNATURE,
        "pip_requirements": ["frugalnet"],
    }


@in_words("MLflow")
def versions(root: Path) -> list[Version]:
    """All versions that `register` made."""
    stored = connect_to_present(root)[0].search_model_versions()
    return [_version(each) for each in stored if each.name.startswith(PREFIX) and "trained_sha256" in each.tags]


def _registered(client: mlflow.MlflowClient) -> list[str]:
    """The names of this project's registered models, of which others may have many on the same server."""
    return [str(model.name) for model in client.search_registered_models(f"name LIKE '{PREFIX}%'", max_results=1000)]


def _version(stored: ModelVersion) -> Version:
    about = {"name": stored.name, "number": stored.version, "created": stored.creation_timestamp}
    return Version.model_validate({**stored.tags, **about})


@in_words("MLflow")
def find_version(root: Path, alias: str, data: str | None = None) -> tuple[str, str]:
    """The registered model that has the alias on data of that name, and its version.

    data: may be None if the alias is given on one data set only. Raises UserError if no network has it, or several.
    """
    client, _ = connect_to_present(root)
    aliased: dict[str, tuple[str, str]] = {}  # by the name of the data
    for name in _registered(client):
        if (version := client.get_registered_model(name).aliases.get(alias)) is not None:
            aliased[client.get_model_version(name, version).tags.get("data", "")] = name, str(version)
    if data is not None:
        aliased = {key: value for key, value in aliased.items() if key == data}
    if not aliased:
        where = f"on {data} in {mlflow.get_tracking_uri()}" if data else f"in {mlflow.get_tracking_uri()}"
        raise UserError(
            f"no network has the alias {alias} {where}: run `dvc repro`, then `python -m frugalnet.promote`"
        )
    if len(aliased) > 1:
        raise UserError(f"networks on {', '.join(sorted(aliased))} have the alias {alias}: name one with --data")
    return next(iter(aliased.values()))


def download(root: Path, run_id: str, folder: Path) -> Path:
    """Copy the weights that a run registered, with their description, into `folder`; returns the folder of weights.

    Raises UserError if there is no such run, or if it has registered none.
    """
    client, _ = connect_to_present(root)
    with in_words(f"MLflow: run '{run_id}'"):
        of_run = client.search_model_versions(f"run_id = '{client.get_run(run_id).info.run_id}'")
        registered = [version for version in of_run if version.name.startswith(PREFIX)]
        if not registered:
            raise UserError(f"MLflow: run '{run_id}' has no exported network; run `dvc repro` to export it")
        newest = max(registered, key=lambda version: int(version.creation_timestamp))
        return _download(newest.name, newest.version, folder)


@in_words("MLflow")
def download_alias(root: Path, alias: str, folder: Path, data: str | None = None) -> Path:
    """Copy the network that has the alias into `folder`; returns the folder of weights. Raises as `find_version`."""
    return _download(*find_version(root, alias, data), folder)


def _download(name: str, version: str, folder: Path) -> Path:
    model = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(folder)))
    (described,) = model.glob("data/*/weights.json")
    return described.parent


def save(weights: Path, folder: Path) -> Path:
    """Write a folder of weights as a model for `mlflow models serve` into the new folder `folder`, and return that."""
    mlflow.pyfunc.save_model(folder, **_model(weights))
    return folder


@in_words("MLflow")
def promote(root: Path) -> list[str]:
    """Move the aliases as `choose_versions` says, for each family. Returns a line for each: what it names, and why."""
    client, _ = connect_to_present(root)
    stored = versions(root)
    families = sorted({version.family for version in stored})
    others = {version.name for version in stored if version.family}
    lines = []
    for of_data in families or [""]:
        of_family = [version for version in stored if version.family == of_data]
        names = {version.name for version in of_family} if of_data else {*_registered(client)} - others
        for alias, chosen in choose_versions(of_family).items():
            shown = f"{alias} of {of_data}" if of_data else alias
            lines.append(f"{shown}: {_move(client, alias, chosen.version, sorted(names))}: {chosen.why}")
    return lines


def _move(client: mlflow.MlflowClient, alias: str, version: Version, names: Sequence[str]) -> str:
    """Give the alias to the version, and take it from all other models of these names. Returns what it names now."""
    before = ""
    for name in names:
        number = client.get_registered_model(name).aliases.get(alias)
        if number is not None:
            before = f"{name} version {number}"
            if name != version.name:
                client.delete_registered_model_alias(name, alias)
    now = f"{version.name} version {version.number}"
    client.set_registered_model_alias(version.name, alias, str(version.number))
    change = "as before" if before == now else f"was {before or 'none'}"
    return f"{now} ({change})"
