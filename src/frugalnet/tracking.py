"""MLflow: each training is one run, found again by what determines it.

Tracking never costs a result: a failure is reported in one line, and the next call, in this process or in a later
stage, logs what is missing.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.time import get_current_time_millis

from frugalnet.errors import Interrupted, UserError
from frugalnet.mlflow_store import COMPARISONS, EXPERIMENT, connect
from frugalnet.project import PROVENANCE
from frugalnet.project import project_root as project_root  # for the stages
from frugalnet.project import provenance as provenance

if TYPE_CHECKING:
    from torch import nn

_NOTE = "mlflow.note.content"  # the run's description in the UI
_BATCH = 1000  # the most metrics that MLflow takes in one call
_PAUSE_SECONDS = 300  # after a failure: MLflow itself retries a locked database for half a minute


def training_run(root: Path, run: Mapping[str, Any], trained: Mapping[str, Any]) -> "TrackedRun":
    """The MLflow run of a training, found by its fingerprint or its weights.

    run: as `runs.describe` returns it, with `weights_sha256` once there are weights. trained: holds the provenance of
    the training; an evaluation, perhaps at another commit, takes it from timing.json.
    """
    recipe, images = run["train"], f"{run['n_train']:,} training and {run['n_validation']:,} validation images"
    workers = f" · {run['distributed']['kind']}" if "distributed" in run else ""
    name = (
        f"{run['model']} · {_epochs(recipe)} {recipe['recipe']}{workers} · seed {run['seed']} · {run['data']}"
        + (" data" if run["is_sample"] else "")  # "sample data": their accuracies say nothing
    )
    note = (
        f"The network **{run['model']}**, trained for {_epochs(recipe)} with the recipe {recipe['recipe']} on "
        f"{run['data']}: {run['num_classes']} classes, {images}. Accuracies are on the {run['validated_on']}."
    )
    identity = {key: run[key] for key in ("weights_sha256", "fingerprint") if key in run}
    shown = ("data", "is_sample", "validated_on", "data_sha256", "views_sha256", "source_sha256")
    tags = {key: str(run[key]) for key in shown} | {"mlflow.source.type": "LOCAL"}
    tags["mlflow.source.name"] = "pipeline/train.py"
    profile = {key: run[key] for key in ("num_classes", "n_train", "n_validation")}
    source = json.dumps({"path": "data/arrays", "sha256": run["data_sha256"]})
    data = Dataset(run["data"], run["data_sha256"][:12], "dvc", source, profile=json.dumps(profile))
    return TrackedRun(root, name, identity, tags, trained, dotted_keys(run), note=note, data=data)


def comparison_run(root: Path, models: Sequence[str], data: str, runs_sha256: str) -> "TrackedRun":
    """The MLflow run of a comparison, found by the hash of the compared runs, in an experiment of its own."""
    name = f"{', '.join(models)} · {data}"
    tags = {"data": data, "mlflow.source.type": "LOCAL", "mlflow.source.name": "pipeline/compare.py"}
    identity = {"compared_runs_sha256": runs_sha256}
    return TrackedRun(root, name, identity, tags, provenance(), experiment=COMPARISONS, note=f"Comparison of {name}:")


def _epochs(recipe: Mapping[str, Any]) -> str:
    return f"{recipe['epochs']} epoch{'s' if recipe['epochs'] > 1 else ''}"


class TrackedRun:
    """One MLflow run, created on first use if there is none.

    As a context manager it ends the run: FINISHED, KILLED after an interruption, FAILED after any other exception.

    identity: tags that follow from the run's content. Any one of them finds the run, unless another one differs.
    tags: set beside those. made: holds the provenance of what the run is about. note: the start of its description.
    data: what it was trained on.
    """

    _said = ""  # why the last call in this process failed: each reason is said once

    def __init__(
        self,
        root: Path,
        name: str,
        identity: Mapping[str, str],
        tags: Mapping[str, str],
        made: Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
        *,
        experiment: str = EXPERIMENT,
        note: str = "",
        data: Dataset | None = None,
    ) -> None:
        self.root, self.name, self.identity, self.params = root, name, dict(identity), dict(params or {})
        self.experiment, self.note, self.data = experiment, note, data
        self.tags = dict(tags)
        self.provenance = {key: str(made[key]) for key in PROVENANCE if key in made}
        self._run_id: str | None = None
        self._of_another = False  # the run found has weights, and this one has none yet: it belongs to an earlier one
        self._retry_at = 0.0
        self._pending: list[tuple[str, Callable[[str], object]]] = []  # calls that have not succeeded yet
        self._rows: Sequence[Mapping[str, float]] = ()
        self._steps: set[int] = set()  # epochs whose figures the run holds

    def __enter__(self) -> "TrackedRun":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._retry_at = 0.0  # what could not be logged gets one more chance
        killed = kind is not None and issubclass(kind, Interrupted | KeyboardInterrupt)
        status = "FINISHED" if kind is None else "KILLED" if killed else "FAILED"
        self.call("its end", lambda run_id: self._of_another or self._client.set_terminated(run_id, status))

    def log_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Log the figures of those epochs that the run does not hold yet, at step `epoch`.

        The MACs of training are a parameter, their sum over all epochs.
        """
        self._rows = rows

        def log(run_id: str) -> None:
            missing = [row for row in rows if int(row["epoch"]) not in self._steps]
            now = get_current_time_millis()
            metrics = [
                Metric(_curve(key), float(value), now, int(row["epoch"]))
                for row in missing
                for key, value in row.items()
                if key not in ("epoch", "train_macs")
            ]
            self._log_metrics(run_id, metrics)
            if rows and len(rows) == self.params.get("train.epochs") and "train_macs" in rows[0]:
                self._client.log_param(run_id, "train_macs", sum(int(row["train_macs"]) for row in rows))
            self._steps |= {int(row["epoch"]) for row in missing}

        self.call("its curves", log)

    def log_results(self, metrics: Mapping[str, float], artifacts: Sequence[Path] = ()) -> None:
        """Log final figures, and files and folders as artifacts. A second call replaces the first."""

        def log(run_id: str) -> None:
            now = get_current_time_millis()
            self._log_metrics(run_id, [Metric(key, float(value), now, 0) for key, value in metrics.items()])
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

        def log(run_id: str) -> None:
            if self._client.get_run(run_id).data.tags.get(_NOTE, "").startswith(self.note):
                self._client.set_tag(run_id, _NOTE, f"{self.note}\n\n{text}")

        self.call("its description", log)

    def link(self, path: str) -> str:
        """The address, within the UI, of an artifact; empty where MLflow has not answered yet."""
        if self._run_id is None:
            return ""
        return f"#/experiments/{self._experiment_id}/runs/{self._run_id}/artifacts/{path}?workflowType=machine_learning"

    def log_model(self, name: str, model: "nn.Module", example: np.ndarray, class_names: Sequence[str]) -> None:
        """Log the model in PyTorch's pt2 format, once a run, for `mlflow.pytorch.load_model`.

        That call trusts whoever could write the model (docs/sharing.md); the weights in the artifacts need no trust.
        model: on the CPU, in evaluation mode. example: a batch of at least two, for the export. class_names: in label
        order, for the model's metadata.
        """
        import torch  # here, since the stage `compare` logs no model and starts two seconds sooner without it

        def log(run_id: str) -> None:
            if "model_uri" not in self._client.get_run(run_id).data.tags:
                model.to(memory_format=torch.contiguous_format)  # pt2 warns of any other
                with mlflow.start_run(run_id=run_id):
                    info = mlflow.pytorch.log_model(
                        model,
                        name=name,
                        input_example=example,
                        pip_requirements=["torch"],
                        metadata={"class_names": list(class_names)},
                    )
                self._client.set_tag(run_id, "model_uri", info.model_uri)

        self.call("its model", log)

    def identify(self, key: str, value: str) -> None:
        """Add a tag by which the run is found.

        A run that has another value there belongs to a training with the same fingerprint and other bits (on a GPU,
        say). It stays as it is, and this training gets a run of its own.
        """
        self.identity[key] = value

        def log(_: str) -> None:
            self._run_id = None
            self._client.set_tag(self._open(), key, value)

        self.call(key, log)
        self.log_history(self._rows)

    def call(self, what: str, call: Callable[[str], object]) -> None:
        """Call with the run's id, after those that failed before. What fails is said once, and tried again later."""
        self._pending.append((what, call))
        if time.monotonic() < self._retry_at:
            return
        waiting, self._pending = self._pending, []
        while waiting:
            what, call = waiting.pop(0)
            try:
                call(self._open())
                TrackedRun._said = ""
            except Exception as error:  # whatever MLflow, its database or the network raise
                self._pending.append((what, call))
                self._retry_at = time.monotonic() + _PAUSE_SECONDS
                reason = str(UserError((str(error).strip() or type(error).__name__).splitlines()[0]))[:200]
                stage = os.environ.get("DVC_STAGE", "evaluate").replace("train@", "evaluate@")
                if reason != TrackedRun._said:
                    print(
                        f"tracking: {self.name}: {what} could not be logged ({reason}). Results are on disk; the next "
                        f"call tries again. If no call follows, run: dvc repro --force --single-item {stage}",
                        file=sys.stderr,
                    )
                TrackedRun._said = reason
                if self._run_id is None or isinstance(error, MlflowException):  # the server or the database itself
                    self._pending += waiting
                    return

    def _open(self) -> str:
        if self._run_id is not None:
            return self._run_id
        self._client, self._experiment_id = connect(self.root, self.experiment)
        run = self._find() or self._client.create_run(self._experiment_id, run_name=self.name)
        run_id: str = run.info.run_id
        # A training without weights yet cannot claim a run that has some.
        self._of_another = "weights_sha256" in run.data.tags and "weights_sha256" not in self.identity
        if run.info.status != "RUNNING" and not self._of_another:
            self._client.update_run(run_id, status="RUNNING")
        new = [Param(key, str(value)) for key, value in self.params.items() if key not in run.data.params]
        tags = self.identity | self.tags
        if not self._of_another:
            tags |= self.provenance
            for key in (run.data.tags.keys() & PROVENANCE) - self.provenance.keys():
                self._client.delete_tag(run_id, key)
        if self.note and _NOTE not in run.data.tags:
            tags[_NOTE] = self.note
        if experiments := self._experiments(run.data.tags):
            tags["dvc_experiment"] = ", ".join(experiments)
        self._client.log_batch(run_id, params=new, tags=[RunTag(key, value) for key, value in tags.items()])
        if self.data is not None and not run.inputs.dataset_inputs:
            context = [InputTag("mlflow.data.context", "training")]
            self._client.log_inputs(run_id, [DatasetInput(self.data, context)])
        self._steps = {metric.step for metric in self._client.get_metric_history(run_id, "curves/train_loss")}
        self._run_id = run_id
        return run_id

    def _find(self) -> Run | None:
        for key, value in self.identity.items():
            for run in self._client.search_runs([self._experiment_id], f"tags.`{key}` = '{value}'"):
                if all(run.data.tags.get(other, wanted) == wanted for other, wanted in self.identity.items()):
                    return run
        return None

    def _experiments(self, present: Mapping[str, str]) -> list[str]:
        """All DVC experiments that share the run: one trained it, others took it from the cache."""
        named = (present.get("dvc_experiment"), self.provenance.get("dvc_experiment"), os.environ.get("DVC_EXP_NAME"))
        return sorted({name for listed in named if listed for name in listed.split(", ")})

    def _log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
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
