"""Reads what the stages stored: one Record per trained and evaluated network."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from frugalnet.errors import UserError
from frugalnet.files import read_history, read_json, read_table, unreadable
from frugalnet.metrics import accuracy, classes
from frugalnet.metrics.evaluation import Metrics, read_metrics
from frugalnet.run import Run, read_run

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class Layer(BaseModel):
    """A row of layers.csv."""

    layer: str
    kind: str
    output_shape: str
    parameters_trainable: int
    macs: int


class Epoch(BaseModel):
    """A row of history.csv. Shares of images are in 0..1."""

    epoch: int  # from 1
    learning_rate: float
    train_macs: float
    train_loss: float
    train_top1: float
    validation_loss: float
    validation_top1: float
    validation_top5: float


@dataclass(frozen=True)
class Record:
    """One trained and evaluated network."""

    model: str
    seed: int
    run: Run
    metrics: Metrics
    history: list[Epoch]
    timing: dict[str, Any]  # timing.json
    cost: dict[str, Any]  # the model's entry in cost.json; empty if it was not measured
    layers: list[Layer]
    class_ids: list[str]
    class_names: list[str]
    labels: NDArray[np.int64]  # (N,)
    predicted: NDArray[np.int64]  # (N,)

    @property
    def name(self) -> str:
        return f"{self.model}-{self.seed}"

    @property
    def correct(self) -> NDArray[np.bool_]:
        return np.asarray(self.predicted == self.labels)

    @property
    def confusion(self) -> NDArray[np.int64]:
        return classes.confusion(self.predicted, self.labels, len(self.class_ids))

    def efficiency(self) -> dict[str, float]:
        """One number per cost: medians of measurements and of epochs, and the total `train_seconds`.

        What was not measured has no key.
        """
        medians = {key: value["median"] for key, value in self.cost.items() if is_quantiles(value)}
        single = {key: value for key, value in self.cost.items() if type(value) in (int, float)}
        epochs = {
            key: np.median(values)
            for key, values in self.timing.items()
            if key.startswith("epoch_") and values and None not in values
        }
        total = {"train_seconds": sum(self.timing["epoch_seconds"])} if "epoch_seconds" in self.timing else {}
        return {key: float(value) for key, value in (medians | single | epochs | total).items()}


def is_quantiles(value: object) -> bool:
    """Whether an entry of cost.json holds quantiles: {median, p5, p95, n}."""
    return isinstance(value, Mapping) and "median" in value


def read_records(folder: Path) -> list[Record]:
    """Every evaluated network under `folder`, by model and seed.

    Reads evaluate/, train/ and cost.json. Raises UserError that names a missing or broken file.
    """
    costs = read_json(folder / "cost.json")
    # DVC removes the outputs of networks that the parameters no longer name, and leaves their empty folders.
    names = [path.name for path in (folder / "evaluate").glob("*-*") if path.is_dir() and any(path.iterdir())]
    records = [_record(folder / "evaluate" / name, folder / "train" / name, costs) for name in names]
    return sorted(records, key=lambda record: (record.model, record.seed))


def _record(evaluated: Path, trained: Path, costs: Mapping[str, dict[str, Any]]) -> Record:
    run = _read(trained / "run.json", read_run)
    classes = _read(evaluated / "per_class.csv", read_table)
    labels, predicted = _read(evaluated / "predictions.npz", read_predictions)
    record = Record(
        model=run.model,
        seed=run.seed,
        run=run,
        metrics=_read(evaluated / "metrics.json", read_metrics),
        history=_read(trained / "history.csv", read_epochs),
        timing=_read(trained / "timing.json", read_json),
        cost=costs.get(run.model, {}),
        layers=_read(evaluated / "layers.csv", _read_layers),
        class_ids=[row["class_id"] for row in classes],
        class_names=[row["name"] for row in classes],
        labels=labels,
        predicted=predicted,
    )
    if record.metrics.top1 != (top1 := float(record.correct.mean())):
        raise UserError(
            f"{evaluated / 'metrics.json'}: top1 is {record.metrics.top1}, but {top1} by predictions.npz; "
            f"evaluate again: dvc repro --force --single-item evaluate@{evaluated.name}"
        )
    return record


def _read(path: Path, reader: Callable[[Path], T]) -> T:
    try:
        return reader(path)
    except UserError as error:
        raise UserError(f"{error}, or remove {path.parent} to compare without it") from error


def read_epochs(path: Path) -> list[Epoch]:
    """A history.csv. Raises UserError if it is missing or damaged."""
    return _rows(path, Epoch, read_history(path))


def _read_layers(path: Path) -> list[Layer]:
    return _rows(path, Layer, read_table(path))


def _rows(path: Path, kind: type[M], rows: Sequence[Mapping[str, object]]) -> list[M]:
    try:
        return [kind.model_validate(row) for row in rows]
    except ValidationError as error:
        raise unreadable(path, error) from error


def read_predictions(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels and predicted classes, each (N,). Raises UserError if the file is missing or damaged.

    The stage `evaluate` stores logits; what `tools.publish` copies holds the predicted classes instead.
    """
    try:
        with np.load(path) as stored:
            labels = stored["labels"].astype(np.int64)
            if "predicted" in stored:
                return labels, stored["predicted"].astype(np.int64)
            logits = stored["logits"]
        accuracy.check(logits, labels)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, UserError) as error:
        raise unreadable(path, error) from error
    return labels, accuracy.predict(logits)
