"""MLflow: each training is one run, found again by what determines it.

Tracking never costs a result: what cannot be logged is said in one line and left out. The files under results/ hold
everything, and a later stage logs from them what the run lacks. mlflow takes a second to import: it is imported when
the first run is opened.
"""

import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from frugalnet.errors import Interrupted, printable
from frugalnet.mlflow_store import COMPARISONS, EXPERIMENT, connect
from frugalnet.project import PROVENANCE, provenance
from frugalnet.run import Run as TrainingRun

if TYPE_CHECKING:
    from mlflow.entities import Run

_NOTE = "mlflow.note.content"  # the run's description in the UI
_BATCH = 1000  # the most metrics that MLflow takes in one call
_ABOUT_SQL = "(raised as a result of Query-invoked autoflush"  # SQLAlchemy's first line, before the database's own
_SLOW_SECONDS = 1  # a failure that took longer is followed by a pause, ten times as long:
_PAUSE = 10  # a server that does not answer takes at most a tenth of a training's time


@dataclass(frozen=True)
class Description:
    """What is known of a run before anything is logged.

    identity: tags that follow from the run's content. Any one of them finds the run, unless another one differs.
    tags: set beside those. provenance: tags with the keys PROVENANCE, which lead back from the run. note: Markdown, the
    start of its description in the UI. data: what it was trained on, the fields of MLflow's Dataset.
    """

    name: str
    identity: dict[str, str]
    tags: dict[str, str]
    provenance: dict[str, str]
    note: str
    params: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, str] | None = None
    experiment: str = EXPERIMENT


def training_run(root: Path, run: TrainingRun, trained: Mapping[str, Any]) -> "TrackedRun":
    """The MLflow run of a training, found by its fingerprint or its weights.

    trained: holds the provenance of the training; an evaluation, perhaps at another commit, takes it from timing.json.
    """
    number = run.train["epochs"]
    epochs = f"{number} epoch{'s' if number > 1 else ''}"
    workers = f" · {run.distributed['kind']}" if run.distributed else ""
    data = f"{run.data} data" if run.is_sample else run.data  # "sample data": their accuracies say nothing
    images = f"{run.n_train:,} training and {run.n_validation:,} validation images"
    shown = ("data", "is_sample", "validated_on", "data_sha256", "views_sha256", "source_sha256")
    description = Description(
        name=f"{run.model} · {epochs} {run.recipe}{workers} · seed {run.seed} · {data}",
        identity={key: value for key in ("weights_sha256", "fingerprint") if (value := getattr(run, key))},
        tags={key: str(getattr(run, key)) for key in shown} | _source("train"),
        provenance={key: str(trained[key]) for key in PROVENANCE if key in trained},
        note=(
            f"The network **{run.model}**, trained for {epochs} with the recipe {run.recipe} on "
            f"{run.data}: {run.num_classes} classes, {images}. Accuracies are on the {run.validated_on}."
        ),
        params=dotted_keys(run.stored()),
        data={
            "name": run.data,
            "digest": run.data_sha256[:12],
            "source_type": "dvc",
            "source": json.dumps({"path": "data/arrays", "sha256": run.data_sha256}),
            "profile": json.dumps({key: getattr(run, key) for key in ("num_classes", "n_train", "n_validation")}),
        },
    )
    return TrackedRun(root, description)


def comparison_run(root: Path, models: Sequence[str], data: str, runs_sha256: str) -> "TrackedRun":
    """The MLflow run of a comparison, found by the hash of the compared runs, in an experiment of its own."""
    name = f"{', '.join(models)} · {data}"
    description = Description(
        name=name,
        identity={"compared_runs_sha256": runs_sha256},
        tags={"data": data} | _source("compare"),
        provenance=provenance(),
        note=f"Comparison of {name}:",
        experiment=COMPARISONS,
    )
    return TrackedRun(root, description)


def user() -> str:
    """Who makes a run: the user on MLflow's server, else the login."""
    with suppress(KeyError, OSError):  # a container's user may have no name
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    return str(os.getuid())


def _source(stage: str) -> dict[str, str]:
    return {"mlflow.source.type": "LOCAL", "mlflow.source.name": f"pipeline/{stage}.py"}


class TrackedRun:
    """One MLflow run, created on first use if there is none.

    As a context manager it ends the run: FINISHED, KILLED after an interruption, FAILED after any other exception.
    """

    # Of MLflow in this process, whichever the run: reasons for failures that were said, and when to try again.
    _said: ClassVar[set[str]] = set()
    _retry_at: ClassVar[float] = 0.0

    def __init__(self, root: Path, description: Description) -> None:
        self.root = root
        self.description = description
        self.identity = dict(description.identity)
        self._run_id: str | None = None
        self._of_another = False  # the run found has weights, and this one has none yet: it belongs to an earlier one
        self._rows: Sequence[Mapping[str, float]] = ()

    def __enter__(self) -> "TrackedRun":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        status = "FINISHED"
        if kind is not None:
            status = "KILLED" if issubclass(kind, Interrupted | KeyboardInterrupt) else "FAILED"
        self.call("its end", lambda run_id: self._of_another or self._client.set_terminated(run_id, status))

    def log_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Log the figures of those epochs that the run does not hold yet, at step `epoch`.

        The MACs of training are a parameter, their sum over all epochs.
        """
        self._rows = rows

        def log(run_id: str) -> None:
            logged = {metric.step for metric in self._client.get_metric_history(run_id, "curves/train_loss")}
            figures: list[tuple[str, float, int]] = []
            for row in rows:
                if row["epoch"] not in logged:
                    curves = {key: value for key, value in row.items() if key not in ("epoch", "train_macs")}
                    figures += [(_curve(key), value, int(row["epoch"])) for key, value in curves.items()]
            self._log_metrics(run_id, figures)
            if rows and len(rows) == self.description.params.get("train.epochs") and "train_macs" in rows[0]:
                self._client.log_param(run_id, "train_macs", sum(int(row["train_macs"]) for row in rows))

        self.call("its curves", log)

    def log_results(self, metrics: Mapping[str, float], artifacts: Sequence[Path] = ()) -> None:
        """Log final figures, and files and folders as artifacts. A second call replaces the first."""

        def log(run_id: str) -> None:
            self._log_metrics(run_id, [(key, value, 0) for key, value in metrics.items()])
            for path in artifacts:
                if path.is_dir():
                    self._client.log_artifacts(run_id, str(path), path.name)
                else:
                    self._client.log_artifact(run_id, str(path))

        self.call("its results", log)

    def describe(self, text: str) -> None:
        """Append Markdown to the run's description, after its `note`. A second call replaces the first.

        A description that somebody wrote in the UI stays.
        """
        note = self.description.note

        def log(run_id: str) -> None:
            if self._client.get_run(run_id).data.tags.get(_NOTE, "").startswith(note):
                self._client.set_tag(run_id, _NOTE, f"{note}\n\n{text}")

        self.call("its description", log)

    def link(self, path: str) -> str:
        """The address, within the UI, of an artifact; empty where MLflow has not answered yet."""
        if self._run_id is None:
            return ""
        return f"#/experiments/{self._experiment_id}/runs/{self._run_id}/artifacts/{path}?workflowType=machine_learning"

    def identify(self, key: str, value: str) -> None:
        """Add a tag by which the run is found.

        A run that has another value there belongs to a training with the same fingerprint and other bits (on a GPU,
        say). It stays as it is, and this training gets a run of its own.
        """
        self.identity[key] = value
        self._run_id = None  # the next call finds the run anew, and sets the tag
        self.log_history(self._rows)

    def call(self, what: str, call: Callable[[str], object]) -> None:
        """Call with the run's id. A failure is said, each reason once in a process, and costs nothing else.

        After a failure that took long, such as waiting for a server, calls are left out for a while.
        """
        if time.monotonic() < TrackedRun._retry_at or os.environ.get("FRUGALNET_TRACKING") == "off":
            return
        started = time.monotonic()
        try:
            run_id = self._open()
            started = time.monotonic()
            call(run_id)
        except Exception as error:  # whatever MLflow, its database or the network raise
            took = time.monotonic() - started
            if took > _SLOW_SECONDS:
                TrackedRun._retry_at = time.monotonic() + _PAUSE * took
            lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(_ABOUT_SQL)]
            reason = printable(lines[0] if lines else type(error).__name__)[:200]
            if reason not in TrackedRun._said:
                stage = os.environ.get("DVC_STAGE", "evaluate").replace("train@", "evaluate@")
                print(
                    f"tracking: {self.description.name}: {what} could not be logged ({reason}). Results are on disk; a "
                    f"later stage logs them. If none follows, run: dvc repro --force --single-item {stage}",
                    file=sys.stderr,
                )
            TrackedRun._said.add(reason)

    def _open(self) -> str:
        if self._run_id is not None:
            return self._run_id
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        described = self.description
        self._client, self._experiment_id = connect(self.root, described.experiment)
        made_by = {"mlflow.user": user()}  # which MLflow's client leaves out, unlike its fluent API
        run = self._find() or self._client.create_run(self._experiment_id, run_name=described.name, tags=made_by)
        run_id: str = run.info.run_id
        tags = self.identity | described.tags | self._experiments(run.data.tags)
        # A training without weights yet cannot claim a run that has some.
        self._of_another = "weights_sha256" in run.data.tags and "weights_sha256" not in self.identity
        if not self._of_another:
            tags = described.provenance | tags
            for key in (run.data.tags.keys() & PROVENANCE) - described.provenance.keys():
                self._client.delete_tag(run_id, key)
            if run.info.status != "RUNNING":
                self._client.update_run(run_id, status="RUNNING")
        if _NOTE not in run.data.tags:
            tags[_NOTE] = described.note
        params = [Param(key, str(value)) for key, value in described.params.items() if key not in run.data.params]
        self._client.log_batch(run_id, params=params, tags=[RunTag(key, value) for key, value in tags.items()])
        if described.data and not run.inputs.dataset_inputs:
            context = [InputTag("mlflow.data.context", "training")]
            self._client.log_inputs(run_id, [DatasetInput(Dataset(**described.data), context)])
        self._run_id = run_id
        return run_id

    def _find(self) -> "Run | None":
        for key, value in self.identity.items():
            for run in self._client.search_runs([self._experiment_id], f"tags.`{key}` = '{value}'"):
                if all(run.data.tags.get(other, wanted) == wanted for other, wanted in self.identity.items()):
                    return run
        return None

    def _experiments(self, present: Mapping[str, str]) -> dict[str, str]:
        """The tag of all DVC experiments that share the run: one trained it, others took it from the cache."""
        trained = self.description.provenance.get("dvc_experiment")
        named = (present.get("dvc_experiment"), trained, os.environ.get("DVC_EXP_NAME"))
        names: set[str] = set()
        for listed in filter(None, named):
            names.update(listed.split(", "))
        return {"dvc_experiment": ", ".join(sorted(names))} if names else {}

    def _log_metrics(self, run_id: str, figures: Sequence[tuple[str, float, int]]) -> None:
        """figures: of each its name, value and step. Top-5 is left out where it cannot be wrong."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        hidden = "top5" if int(self.description.params.get("num_classes", 6)) <= 5 else None
        told = [figure for figure in figures if hidden is None or not figure[0].endswith(hidden)]
        metrics = [Metric(key, float(value), now, step) for key, value, step in told]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])


def _curve(key: str) -> str:
    """A figure's name in the UI, which sorts sections by name: curves stand first, the schedule after the results."""
    return key if "/" in key else f"{'schedule' if key == 'learning_rate' else 'curves'}/{key}"


def section(name: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The values as metrics of one section of the MLflow UI."""
    return {f"{name}/{key}": float(value) for key, value in values.items()}


def dotted_keys(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}: MLflow's parameters are flat."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= dotted_keys(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
