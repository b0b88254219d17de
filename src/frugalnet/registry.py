"""MLflow's model registry: every exported network is a version of the registered model `frugalnet-<model>`.

Two aliases name the networks to use. They are moved by `python -m frugalnet.promote` alone.

- champion: the highest top-1, the mean over the seeds that were trained alike.
- frugal: the fewest MACs among the networks whose mean top-1 is at most 5 points below the champion's.

Networks are compared only if they were evaluated on the same images. An alias goes to the lowest seed: the best one on
the validation images would flatter the network.
"""

import os
import sys
from collections.abc import Mapping, Sequence
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

from frugalnet.errors import UserError
from frugalnet.mlflow_store import connect, in_words
from frugalnet.project import NEAR
from frugalnet.tracking import TrackedRun

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
PREFIX = "frugalnet-"

# A picture is either an image file or its pixels, 64×64×3 integers in 0..255. MLflow's own check of a nested array of
# integers takes a second a picture, so the model checks them itself.
SIGNATURE = ModelSignature(
    Schema([ColSpec(DataType.binary, "image", required=False), ColSpec(AnyType(), "pixels", required=False)]),
    Schema([ColSpec(AnyType(), "classes"), ColSpec(AnyType(), "changes")]),
    ParamSchema([ParamSpec("top", DataType.long, 5)]),
)


def bad_request(message: str) -> Exception:
    """The one kind of exception whose message MLflow's server passes to the client, with status 400."""
    error: Exception = MlflowException(message, INVALID_PARAMETER_VALUE)
    return error


def register(
    tracked: TrackedRun,
    model: str,
    folder: Path,
    example: bytes,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    description: str,
) -> None:
    """Log a folder of weights as a served model of the run, and as a version of its registered model, once.

    example: an image file. tags and description: of the version; `weights_sha256` and `files_sha256` tell whether it is
    there already.
    """
    name = PREFIX + model

    def log(run_id: str) -> None:
        client = mlflow.MlflowClient()
        same = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in ("weights_sha256", "files_sha256"))
        if client.search_model_versions(f"name = '{name}' and {same}"):
            return
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name=f"{folder.name}-served",
                loader_module="frugalnet.use.served",
                data_path=str(folder),
                signature=SIGNATURE,
                input_example=pd.DataFrame({"image": [example]}),
                pip_requirements=["frugalnet"],
            )
            mlflow.log_metrics(dict(metrics), model_id=info.model_id)
        version = mlflow.register_model(info.model_uri, name, tags=dict(tags)).version
        client.update_model_version(name, version, description)

    tracked.call(f"its version of {name}", log)


@dataclass(frozen=True)
class Version:
    """A version of a registered model. trained: a hash of how, without the seed; created: milliseconds."""

    name: str
    number: int
    model: str
    seed: int
    trained: str
    data: str
    images: str  # a hash of what it was evaluated on
    is_sample: bool
    top1: float
    macs: int
    created: int


@dataclass(frozen=True)
class Choice:
    """The version that an alias should name, and why."""

    version: Version
    why: str


def choose(versions: Sequence[Version]) -> dict[str, Choice]:
    """The version for each alias: see the module. Of several data sets it is the one of the newest version, and sample
    data only if there are no others. Raises UserError if there are no versions."""
    if not versions:
        raise UserError("the registry holds no network: run `dvc repro` first")
    newest = max(versions, key=lambda one: (not one.is_sample, one.created))
    groups: dict[tuple[str, str], dict[int, Version]] = {}
    for one in sorted((one for one in versions if one.images == newest.images), key=lambda one: one.created):
        groups.setdefault((one.model, one.trained), {})[one.seed] = one
    networks = [(sum(v.top1 for v in s.values()) / len(s), s[min(s)], s) for s in groups.values()]
    best = max(networks, key=lambda one: (one[0], -one[1].macs))
    near = [one for one in networks if one[0] >= best[0] - NEAR - 1e-9]
    least = min(near, key=lambda one: (one[1].macs, -one[0]))

    def choice(chosen: tuple[float, Version, dict[int, Version]], why: str) -> Choice:
        seeds = f"{len(chosen[2])} seed{'s' if len(chosen[2]) > 1 else ''}"
        figures = f"mean top-1 {chosen[0]:.2%} over {seeds}, {chosen[1].macs / 1e6:.2f} M MACs"
        return Choice(chosen[1], f"{figures}; {why} on {newest.data}")

    return {
        "champion": choice(best, f"the highest top-1 of {len(networks)}"),
        "frugal": choice(least, f"the fewest MACs of {len(near)} within {100 * NEAR:g} points of {best[0]:.2%}"),
    }


@in_words("MLflow")
def versions(root: Path) -> list[Version]:
    """All versions that `register` made."""
    found = connect(root)[0].search_model_versions()
    return [_version(one) for one in found if one.name.startswith(PREFIX) and "trained_sha256" in one.tags]


def _registered(client: mlflow.MlflowClient) -> list[str]:
    """The names of this project's registered models, of which others may have many on the same server."""
    return [str(one.name) for one in client.search_registered_models(f"name LIKE '{PREFIX}%'", max_results=1000)]


def _version(found: ModelVersion) -> Version:
    tags: dict[str, Any] = found.tags
    return Version(
        name=found.name,
        number=int(found.version),
        model=tags["model"],
        seed=int(tags["seed"]),
        trained=tags["trained_sha256"],
        data=tags["data"],
        images=f"{tags['data_sha256']} {tags['validated_on']}",
        is_sample=tags["is_sample"] == "True",
        top1=float(tags["top1"]),
        macs=int(tags["macs"]),
        created=found.creation_timestamp,
    )


@in_words("MLflow")
def find(root: Path, alias: str) -> tuple[str, str]:
    """The registered model that has the alias, and its version. Raises UserError if none has."""
    client, _ = connect(root)
    for name in _registered(client):
        if (version := client.get_registered_model(name).aliases.get(alias)) is not None:
            return name, str(version)
    raise UserError(f"no network has the alias {alias}: run `dvc repro`, then `python -m frugalnet.promote`")


def download(root: Path, run_id: str, folder: Path) -> Path:
    """Copy the weights that a run registered, with their description, into `folder`; returns the folder of weights.

    Raises UserError if there is no such run, or if it has registered none.
    """
    client, _ = connect(root)
    with in_words(f"MLflow: run '{run_id}'"):
        of_run = client.search_model_versions(f"run_id = '{client.get_run(run_id).info.run_id}'")
        found = [one for one in of_run if one.name.startswith(PREFIX)]
        if not found:
            raise UserError(f"MLflow: run '{run_id}' has no exported network; run `dvc repro` to export it")
        newest = max(found, key=lambda one: int(one.creation_timestamp))
        copied = Path(
            mlflow.artifacts.download_artifacts(f"models:/{newest.name}/{newest.version}", dst_path=str(folder))
        )
    (described,) = copied.glob("data/*/weights.json")
    return described.parent


def serve_registered(root: Path, alias: str, host: str, port: int) -> None:
    """Become MLflow's own server for the network that has the alias. Raises UserError if none has."""
    name, version = find(root, alias)
    _serve(f"{name} version {version}, {alias}", f"models:/{name}@{alias}", host, port)


def serve_folder(folder: Path, name: str, host: str, port: int) -> None:
    """Become MLflow's own server for a folder of weights; writes its model beside it."""
    path = folder.with_name("served")
    mlflow.pyfunc.save_model(
        path,
        loader_module="frugalnet.use.served",
        data_path=str(folder),
        signature=SIGNATURE,
        pip_requirements=["frugalnet"],
    )
    _serve(name, str(path), host, port)


def _serve(what: str, uri: str, host: str, port: int) -> None:
    print(f"Serving {what}, at http://{host}:{port}/invocations (docs/serving.md)", flush=True)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", uri]
    command += ["--env-manager", "local", "--host", host, "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # where MLflow finds uvicorn
    os.execve(sys.executable, command, os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "PATH": path})


@in_words("MLflow")
def promote(root: Path) -> list[str]:
    """Move the aliases to the versions that `choose` names. Returns a line for each: what it names, and why."""
    client, chosen = connect(root)[0], choose(versions(root))
    lines = []
    for alias, choice in chosen.items():
        before = ""
        for name in _registered(client):
            number = client.get_registered_model(name).aliases.get(alias)
            if number is not None:
                before = f"{name} version {number}"
                if name != choice.version.name:
                    client.delete_registered_model_alias(name, alias)
        now = f"{choice.version.name} version {choice.version.number}"
        client.set_registered_model_alias(choice.version.name, alias, str(choice.version.number))
        change = "as before" if before == now else f"was {before or 'none'}"
        lines.append(f"{alias}: {now} ({change}): {choice.why}")
    return lines
