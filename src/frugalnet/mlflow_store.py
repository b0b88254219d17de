"""MLflow's database and experiments: connecting to them, and reading a run's files. Imports mlflow when it connects."""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugalnet.errors import UserError
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
        said = str(UserError(" ".join(str(error).split())))  # without passwords, before it is cut
        raise UserError(f"{what}: {said[:300]}") from error


def connect(root: Path, name: str = EXPERIMENT) -> "tuple[MlflowClient, str]":
    """A client and the id of an experiment, at `MLFLOW_TRACKING_URI` or else in a SQLite database under `root`/mlruns.

    Database and experiment are created under a lock: processes that start together would race. It lies beside a SQLite
    database, which several clones of the project may share. Raises UserError if MLflow does not answer.
    """
    import mlflow

    store = root.absolute() / "mlruns"
    store.mkdir(parents=True, exist_ok=True)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri or f"sqlite:///{store / 'mlflow.db'}")
    shared = _local_database(store)
    shared.parent.mkdir(parents=True, exist_ok=True)
    with shared.with_name(f".{shared.name}.lock").open("w") as lock, in_words("MLflow does not answer"):
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = None if uri else (store / "artifacts").as_uri()
            experiment = client.get_experiment(client.create_experiment(name, artifact_location=location))
        if name == EXPERIMENT and experiment.tags.get(VIEW) != (saved := view(experiment.creation_time)):
            client.set_experiment_tag(experiment.experiment_id, VIEW, saved)
        return client, experiment.experiment_id


def connect_to_present(root: Path) -> "tuple[MlflowClient, str]":
    """As `connect`, for reading: creates no database. Raises UserError, naming the folder, where there is none."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    database = _local_database(root.absolute() / "mlruns")
    if (not uri or uri.startswith("sqlite:")) and not database.is_file():
        raise UserError(
            f"{database}: no such file; nothing was logged here. Call this in the project's folder, after `dvc repro`, "
            "or set MLFLOW_TRACKING_URI"
        )
    return connect(root)


def _local_database(store: Path) -> Path:
    """The SQLite file that `MLFLOW_TRACKING_URI` names, or else the one in this folder."""
    named = re.match(r"sqlite:///([^?]+)", os.environ.get("MLFLOW_TRACKING_URI", ""))
    return Path(named[1]) if named else store / "mlflow.db"


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
