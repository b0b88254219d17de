"""MLflow's database and experiments: connecting to them, and reading a run's files. Imports mlflow when it connects."""

import fcntl
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugalnet.errors import UserError, printable
from frugalnet.files import read_json
from frugalnet.runs_page import VIEW, view

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Training waits while a tracking server does not answer: give up quickly.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

EXPERIMENT = "frugalnet"  # the training runs
COMPARISONS = "frugalnet · comparisons"


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Turn whatever MLflow, its database or the network raise in the block into a UserError."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        said = printable(" ".join(str(error).split()))  # without passwords, before it is cut
        raise UserError(f"{what}: {said[:300]}") from error


def address(root: Path) -> str:
    """MLflow's address: `MLFLOW_TRACKING_URI`, or else a SQLite database under `root`/mlruns.

    A relative SQLite file is one of the project, not of the working directory: `dvc exp run --temp` removes that.
    Raises UserError if the project's path cannot stand in such an address.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    named = database(uri)
    if named is None or named.is_absolute():
        return uri
    file = str(root.absolute() / named)
    if set(file) & {"?", "%"}:
        raise UserError(
            f"{file}: MLflow misreads '?' and '%' in a database's path; rename it, or set MLFLOW_TRACKING_URI"
        )
    return uri.replace(str(named), file, 1)


def database(uri: str) -> Path | None:
    """The file of a SQLite address, or None: a server's."""
    match = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", uri)
    return Path(match[1]) if match else None


def connect(root: Path, name: str = EXPERIMENT) -> "tuple[MlflowClient, str]":
    """A client and the id of an experiment, at `address(root)`.

    Database and experiment are created under a lock: processes that start together would race. It lies beside a SQLite
    database, which several clones of the project may share, as do the files of the runs. Raises UserError if MLflow
    does not answer.
    """
    import mlflow

    # It logs, with a traceback, what it then raises, and what is said here in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri = address(root)
    mlflow.set_tracking_uri(uri)
    local = database(uri)
    beside = local or root.absolute() / "mlruns" / "mlflow.db"
    beside.parent.mkdir(parents=True, exist_ok=True)
    with beside.with_name(f".{beside.name}.lock").open("w") as lock, in_words("MLflow does not answer"):
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = (local.parent / "artifacts").as_uri() if local else None  # None: the server decides
            experiment = client.get_experiment(client.create_experiment(name, artifact_location=location))
        if name == EXPERIMENT and experiment.tags.get(VIEW) != (saved := view(experiment.creation_time)):
            client.set_experiment_tag(experiment.experiment_id, VIEW, saved)
        return client, experiment.experiment_id


def connect_to_present(root: Path) -> "tuple[MlflowClient, str]":
    """As `connect`, for reading: creates no database. Raises UserError, naming the file, where there is none."""
    local = database(address(root))
    if local and not local.is_file():
        raise UserError(
            f"{local}: no such file; nothing was logged here. Call this in the project's folder, after `dvc repro`, or "
            "set MLFLOW_TRACKING_URI"
        )
    return connect(root)


def artifact(root: Path, run_id: str, name: str) -> Any:
    """The JSON file of that name among a run's artifacts. Raises UserError if there is no such run or file."""
    client, _ = connect_to_present(root)
    with in_words(f"MLflow: run '{run_id}'"):
        listed = client.list_artifacts(run_id)
        for folder in [file for file in listed if file.is_dir]:
            listed += client.list_artifacts(run_id, folder.path)
        paths = [file.path for file in listed if Path(file.path).name == name]
        if paths:
            with tempfile.TemporaryDirectory() as folder:
                return read_json(Path(client.download_artifacts(run_id, paths[0], folder)))
    raise UserError(f"MLflow: run '{run_id}' has no {name}: it is not an evaluated training run")
