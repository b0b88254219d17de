"""Stored results to tables, fronts, differences and a verdict: everything but `load` is a pure function."""

import csv
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from frugalnet.errors import UserError
from frugalnet.metrics import accuracy, statistics
from frugalnet.metrics.accuracy import ClassAccuracy
from frugalnet.metrics.statistics import Interval, Spread
from frugalnet.report.wording import listed, percent, points, ratio

T = TypeVar("T")

MILESTONES = (0.20, 0.25, 0.30, 0.33, 0.35, 0.40)  # validation top-1; 0.33 is the paper's (section 4.1)


@dataclass(frozen=True)
class Record:
    """One trained network, evaluated: what its two folders hold."""

    model: str
    seed: int
    run: dict[str, Any]  # run.json
    metrics: dict[str, Any]  # metrics.json
    history: list[dict[str, float]]  # history.csv
    timing: dict[str, Any]  # timing.json
    cost: dict[str, Any]  # cost.json
    layers: list[dict[str, str]]  # layers.csv
    class_ids: list[str]
    class_names: list[str]
    labels: NDArray[np.int64]  # (N,)
    predicted: NDArray[np.int64]  # (N,)

    @property
    def correct(self) -> NDArray[np.bool_]:
        return np.asarray(self.predicted == self.labels)

    @property
    def name(self) -> str:
        return f"{self.model}-{self.seed}"


def load(results_evaluate: Path, results_train: Path) -> list[Record]:
    """Every evaluated network, by model and seed. Raises UserError that names a file that is missing or broken."""
    records = []
    # DVC removes the outputs of networks that the present parameters do not name, and leaves their folders.
    for folder in sorted(path for path in results_evaluate.glob("*-*") if path.is_dir() and any(path.iterdir())):
        trained = results_train / folder.name
        run = _read(trained / "run.json", _json)
        classes = _read(folder / "per_class.csv", _rows)
        logits, labels = _read(folder / "predictions.npz", _predictions)
        metrics = _read(folder / "metrics.json", _json)
        if metrics["top1"] != (top1 := accuracy.figures(logits, labels)["top1"]):
            raise UserError(
                f"{folder / 'metrics.json'}: top1 is {metrics['top1']}, and {top1} by predictions.npz beside it; "
                f"evaluate again: dvc repro --force --single-item evaluate@{folder.name}"
            )
        records.append(
            Record(
                model=run["model"],
                seed=run["seed"],
                run=run,
                metrics=metrics,
                history=_read(trained / "history.csv", _numbers),
                timing=_read(trained / "timing.json", _json),
                cost=_read(folder / "cost.json", _json),
                layers=_read(folder / "layers.csv", _rows),
                class_ids=[row["class_id"] for row in classes],
                class_names=[row["name"] for row in classes],
                labels=labels,
                predicted=accuracy.predict(logits),
            )
        )
    return sorted(records, key=lambda record: (record.model, record.seed))


def _read(path: Path, reader: Callable[[Path], T]) -> T:
    advice = f"run `dvc repro`, or remove {path.parent} to compare without it"
    try:
        return reader(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {advice}") from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, UserError) as error:
        raise UserError(f"{path} cannot be read ({error}): {advice}") from error


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _numbers(path: Path) -> list[dict[str, float]]:
    rows = [{key: float(value) for key, value in row.items()} for row in _rows(path)]
    if not rows:
        raise ValueError("no epochs")
    return rows


def _predictions(path: Path) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    with np.load(path) as stored:
        logits, labels = stored["logits"], stored["labels"].astype(np.int64)
    accuracy.check(logits, labels)
    return logits, labels


@dataclass(frozen=True)
class LeftOut:
    """An entry that must not stand beside the others, and why."""

    name: str
    reason: str


def comparable(records: Sequence[Record], data_sha256: str, validated_on: str) -> tuple[list[Record], list[LeftOut]]:
    """The records measured on these very images, each model's by one recipe; and the others, with the reason.

    Seeds of one model are averaged, so they must share the recipe and the views of that model's lowest seed.
    """
    kept: list[Record] = []
    left_out = []
    for record in records:
        first = next((other for other in kept if other.model == record.model), None)
        if record.run["data_sha256"] != data_sha256:
            reason = f"trained and measured on other data ({record.run['data']}, hash {record.run['data_sha256'][:12]})"
        elif record.run["validated_on"] != validated_on:
            reason = f"measured on the {record.run['validated_on']}, not on the {validated_on}"
        elif first and (different := differing(_recipe(first), _recipe(record))):
            reason = f"trained otherwise than {first.name}, with which it would be averaged ({different})"
        else:
            kept.append(record)
            continue
        left_out.append(LeftOut(record.name, reason))
    for record in kept:
        if not np.array_equal(record.labels, kept[0].labels):
            raise UserError(
                f"{record.name}: its labels differ from those of {kept[0].name} though the data are the same: "
                "evaluate both again"
            )
    return kept, left_out


def _recipe(record: Record) -> dict[str, Any]:
    workers = {f"distributed.{key}": value for key, value in record.run.get("distributed", {}).items()}
    return {**record.run["train"], "views": record.run.get("views_sha256", "")[:12], **workers}


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """The keys whose values differ, as "epochs 30 and 5"; empty if none does."""
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    return ", ".join(f"{key} {first.get(key)} and {second.get(key)}" for key in keys)


@dataclass(frozen=True)
class Measured:
    """Something that varies when measured again: median, 5th and 95th percentile, and the number of measurements."""

    median: float
    p5: float
    p95: float
    n: int


def measured(values: Sequence[float]) -> Measured | None:
    """The median and spread of the values; None if there are none."""
    if not values:
        return None
    p5, median, p95 = np.percentile(values, [5, 50, 95])
    return Measured(float(median), float(p5), float(p95), len(values))


def _pooled(records: Sequence[Record], key: str) -> Measured | None:
    """One figure of cost.json over a model's seeds: the same network, so the medians of medians and percentiles."""
    found = [record.cost[key] for record in records if isinstance(record.cost.get(key), Mapping)]
    found = [one for i, one in enumerate(found) if one not in found[:i]]  # one measurement may serve several seeds
    if not found:
        return None
    middle = {part: float(np.median([one[part] for one in found])) for part in ("median", "p5", "p95")}
    return Measured(**middle, n=sum(int(one["n"]) for one in found))


@dataclass(frozen=True)
class Row:
    """One model over its seeds. Accuracies in 0..1, loss in nats; None is what was not measured."""

    model: str
    seeds: list[int]
    top1: Spread
    top1_interval: Interval
    top5: Spread
    macro_accuracy: Spread
    loss: Spread
    ece: Spread
    train_top1: Spread
    parameters_trainable: int
    parameters_keras: int
    macs: int
    weights_bytes: int
    latency_ms: Measured | None
    throughput: Measured | None
    train_step_ms: Measured | None
    epoch_seconds: Measured | None
    epoch_cpu_seconds: Measured | None
    epoch_joules: Measured | None
    train_seconds: Spread | None
    epochs: int
    recipe: str
    confusion: NDArray[np.int64]  # (C, C), summed over the seeds


def row(records: Sequence[Record]) -> Row:
    """One model's row from its records, one a seed."""
    first = records[0]

    def metric(key: str) -> Spread:
        return statistics.across_seeds([record.metrics[key] for record in records])

    confused = [accuracy.confusion(r.predicted, r.labels, len(r.class_ids)) for r in records]
    seconds = [record.timing["epoch_seconds"] for record in records if record.timing.get("epoch_seconds")]

    def by_epoch(key: str) -> Measured | None:
        return measured([v for record in records for v in record.timing.get(key, []) if v is not None])

    return Row(
        model=first.model,
        seeds=[record.seed for record in records],
        top1=metric("top1"),
        top1_interval=statistics.bootstrap(np.stack([record.correct for record in records])),
        top5=metric("top5"),
        macro_accuracy=metric("macro_accuracy"),
        loss=metric("loss"),
        ece=metric("ece"),
        train_top1=statistics.across_seeds([record.history[-1]["train_top1"] for record in records]),
        parameters_trainable=first.metrics["parameters_trainable"],
        parameters_keras=first.metrics["parameters_keras"],
        macs=first.metrics["macs"],
        weights_bytes=first.metrics["weights_bytes"],
        latency_ms=_pooled(records, "latency_ms"),
        throughput=_pooled(records, "throughput"),
        train_step_ms=_pooled(records, "train_step_ms"),
        epoch_seconds=by_epoch("epoch_seconds"),
        epoch_cpu_seconds=by_epoch("epoch_cpu_seconds"),
        epoch_joules=by_epoch("epoch_joules"),
        train_seconds=statistics.across_seeds([sum(run) for run in seconds]) if seconds else None,
        epochs=len(first.history),
        recipe=first.run["train"]["recipe"],
        confusion=np.sum(confused, axis=0),
    )


@dataclass(frozen=True)
class Column:
    """A column of the table: `value` gives a row's figure (None: not measured); `best` is max, min or None."""

    kind: Literal["accuracy", "cost"]
    key: str
    title: str
    value: Callable[[Row], float | None]
    best: Callable[[Sequence[float]], float] | None


def _median(get: Callable[[Row], Measured | None]) -> Callable[[Row], float | None]:
    return lambda row: found.median if (found := get(row)) else None


COLUMNS = (
    Column("accuracy", "top1", "Top-1", lambda r: r.top1.mean, max),
    Column("accuracy", "top5", "Top-5", lambda r: r.top5.mean, max),
    Column("accuracy", "macro_accuracy", "Macro accuracy", lambda r: r.macro_accuracy.mean, max),
    Column("accuracy", "loss", "Loss (nats)", lambda r: r.loss.mean, min),
    Column("accuracy", "ece", "Calibration error", lambda r: r.ece.mean, min),
    Column("accuracy", "train_top1", "Training top-1", lambda r: r.train_top1.mean, None),
    Column("cost", "parameters_trainable", "Parameters, trainable", lambda r: r.parameters_trainable, min),
    Column("cost", "parameters_keras", "Parameters, Keras's count", lambda r: r.parameters_keras, min),
    Column("cost", "macs", "MACs an image", lambda r: r.macs, min),
    Column("cost", "weights_bytes", "Weights", lambda r: r.weights_bytes, min),
    Column("cost", "latency_ms", "Latency, batch 1", _median(lambda r: r.latency_ms), min),
    Column("cost", "throughput", "Images a second", _median(lambda r: r.throughput), max),
    Column("cost", "epoch_seconds", "Epoch", _median(lambda r: r.epoch_seconds), min),
    Column("cost", "train_seconds", "Training", lambda r: r.train_seconds.mean if r.train_seconds else None, min),
)


def best_in(column: Column, rows: Sequence[Row]) -> float | None:
    """The best value of a column; None where no value is better than another or fewer than two were measured."""
    values = [value for row in rows if (value := column.value(row)) is not None]
    return column.best(values) if column.best and len(set(values)) > 1 else None


def pareto_front(costs: NDArray[np.float64], accuracies: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the (K,) points no other beats: at least as accurate, at most as costly, one of them strictly."""
    cheaper = costs[:, None] <= costs
    better = accuracies[:, None] >= accuracies
    strictly = (costs[:, None] < costs) | (accuracies[:, None] > accuracies)
    return np.asarray(~(cheaper & better & strictly).any(axis=0))


@dataclass(frozen=True)
class Difference:
    """Top-1 of `first` minus that of `second` on the same images; McNemar's p for each seed that both have."""

    first: str
    second: str
    interval: Interval
    mcnemar: dict[int, float]

    @property
    def wording(self) -> str:
        """ "better" and "worse" only where the 95 % interval excludes zero."""
        if not self.interval.excludes_zero:
            return f"{self.first} and {self.second} cannot be told apart"
        return f"{self.first} is {'better' if self.interval.estimate > 0 else 'worse'} than {self.second}"


def difference(first: Sequence[Record], second: Sequence[Record]) -> Difference:
    """How one model's top-1 differs from another's, over images and seeds."""
    by_seed = {record.seed: record for record in second}
    return Difference(
        first[0].model,
        second[0].model,
        statistics.bootstrap(np.stack([r.correct for r in first]), np.stack([r.correct for r in second])),
        {r.seed: statistics.mcnemar(r.correct, by_seed[r.seed].correct) for r in first if r.seed in by_seed},
    )


@dataclass(frozen=True)
class Reached:
    """What it took a model to reach a validation top-1: means over its seeds, None unless every seed reached it."""

    milestone: float
    seeds_reached: int
    seeds: int
    epochs: float | None
    seconds: float | None
    macs: float | None


def training_cost(records: Sequence[Record], milestones: Sequence[float] = MILESTONES) -> list[Reached]:
    """Epochs, seconds and MACs until the end of the first epoch whose validation top-1 reached each milestone."""
    table = []
    for milestone in milestones:
        epochs, seconds, macs = [], [], []
        for record in records:
            epoch = next((int(e["epoch"]) for e in record.history if e["validation_top1"] >= milestone), None)
            if epoch is None:
                continue
            epochs.append(epoch)
            macs.append(sum(e["train_macs"] for e in record.history[:epoch]))
            if len(record.timing.get("epoch_seconds", [])) >= epoch:
                seconds.append(sum(record.timing["epoch_seconds"][:epoch]))
        every = len(epochs) == len(records)
        table.append(
            Reached(
                milestone,
                len(epochs),
                len(records),
                float(np.mean(epochs)) if every else None,
                float(np.mean(seconds)) if len(seconds) == len(records) else None,
                float(np.mean(macs)) if every else None,
            )
        )
    return table


@dataclass(frozen=True)
class Comparison:
    """All that the report says, before it is put in words and pictures. Rows by top-1, highest first."""

    records: dict[str, list[Record]]  # a model's, in the order of the rows
    rows: list[Row]
    differences: list[Difference]
    costs: dict[str, list[Reached]]
    left_out: list[LeftOut]
    notes: list[str]

    @property
    def first(self) -> Record:
        return self.records[self.rows[0].model][0]

    def difference(self, first: str, second: str) -> Interval | None:
        """Top-1 of `first` minus `second`'s; None if one was not evaluated."""
        for one in self.differences:
            if (one.first, one.second) == (first, second):
                return one.interval
            if (one.first, one.second) == (second, first):
                return Interval(-one.interval.estimate, -one.interval.high, -one.interval.low)
        return None

    def trained_alike(self, *models: str) -> bool:
        """Whether all were trained on one kind of machine, with the same versions and threads."""
        return len({_trained_on(record) for model in models for record in self.records[model]}) == 1

    def measured_alike(self, *models: str) -> bool:
        """Whether the costs of all were measured on one machine, with the same versions and threads."""
        return len({_measured_on(record) for model in models for record in self.records[model]}) == 1

    def row(self, model: str) -> Row | None:
        return next((row for row in self.rows if row.model == model), None)

    def classes(self, row: Row) -> list[ClassAccuracy]:
        """A model's figures for each class, counted over all its seeds."""
        return accuracy.per_class(row.confusion, self.first.class_ids, self.first.class_names, len(row.seeds))


def compare(records: Sequence[Record], data_sha256: str, validated_on: str) -> Comparison:
    """Compare what was measured on the data of that hash. Raises UserError if there is none."""
    kept, left_out = comparable(records, data_sha256, validated_on)
    if not kept:
        found = "; ".join(f"{one.name}: {one.reason}" for one in left_out) or "none"
        raise UserError(f"nothing evaluated on the present data (hash {data_sha256[:12]}); found: {found}")
    models = {record.model: [other for other in kept if other.model == record.model] for record in kept}
    rows = sorted((row(group) for group in models.values()), key=lambda one: (-one.top1.mean, one.model))
    ordered = {one.model: models[one.model] for one in rows}
    names = list(ordered)
    return Comparison(
        records=ordered,
        rows=rows,
        differences=[difference(ordered[a], ordered[b]) for i, a in enumerate(names) for b in names[i + 1 :]],
        costs={model: training_cost(group) for model, group in ordered.items()},
        left_out=left_out,
        notes=_notes(ordered),
    )


def _notes(ordered: Mapping[str, Sequence[Record]]) -> list[str]:
    """What keeps the models from standing on a par."""
    groups = list(ordered.values())
    notes = [
        f"{group[0].model} was not trained like {groups[0][0].model}: {different}."
        for group in groups[1:]
        if (different := differing(_recipe(groups[0][0]), _recipe(group[0])))
    ]
    if len({tuple(record.seed for record in group) for group in groups}) > 1:
        notes.append(
            "Not every network was trained from the same seeds: "
            + "; ".join(f"{group[0].model} {', '.join(str(r.seed) for r in group)}" for group in groups)
            + "."
        )
    if len({_trained_on(record) for group in groups for record in group}) > 1:
        notes.append("Not all were trained on the same machine and versions: their epoch times don't compare.")
    if len({_measured_on(record) for group in groups for record in group if record.cost}) > 1:
        notes.append(
            "Not all were measured on the same machine and versions: their latency and throughput don't compare."
        )
    if any(len(group) == 1 for group in groups):
        notes.append(
            "Where a network was trained from a single seed, intervals cover the choice of the validation images, "
            "not the luck of training."
        )
    return notes


def _trained_on(record: Record) -> str:
    return json.dumps([record.run.get("environment"), record.timing.get("machine")], sort_keys=True)


def _measured_on(record: Record) -> str:
    return json.dumps(record.cost.get("machine"), sort_keys=True)


def verdict(comparison: Comparison) -> list[str]:
    """Three sentences made of the figures: the most accurate, what frugality costs, and who stands on the front."""
    rows = comparison.rows
    best, run = rows[0], comparison.first.run
    start = "On sample data, which say nothing about Tiny ImageNet: of" if run["is_sample"] else "Of"
    seeds = "" if len(best.seeds) == 1 else f", mean of {len(best.seeds)} seeds"
    first = (
        f"{start} the {run['n_validation']:,} images of the {run['validated_on']}, {best.model} gets the largest share "
        f"right, {percent(best.top1.mean)} (95 % interval {percent(best.top1_interval.low)} to "
        f"{percent(best.top1_interval.high)}{seeds})"
    )
    if len(rows) == 1:
        return [first + ".", "It is the only network evaluated.", f"It costs {best.macs:,} MACs an image."]
    second = rows[1].model
    interval = comparison.difference(best.model, second)
    assert interval is not None
    if interval.excludes_zero:
        first += f"; it is better than {second}, the next, by {points(interval)}."
    else:
        first += f"; it cannot be told apart from {second}, the next: {points(interval)} between them."

    frugal = min(rows, key=lambda one: (one.macs, -one.top1.mean))
    if frugal is best:
        middle = f"{best.model} is also the one that computes least, {best.macs:,} MACs an image."
    else:
        interval = comparison.difference(best.model, frugal.model)
        assert interval is not None
        price = (
            f"and is worse by {points(interval)}"
            if interval.low > 0
            else f"and cannot be told apart from it in accuracy: {points(interval)}"
        )
        as_frugal = [one.model for one in rows if one.macs == frugal.macs and one is not frugal]
        which = f"which computes least, like {listed(as_frugal)}" if as_frugal else "which computes least"
        middle = (
            f"{frugal.model}, {which}, needs {ratio(frugal.macs / best.macs)} of {best.model}'s MACs "
            f"and {ratio(frugal.parameters_trainable / best.parameters_trainable)} of its parameters, {price}."
        )

    return [first, middle, _front_sentence(comparison)]


def _front_sentence(comparison: Comparison) -> str:
    """Who stands on the front by the means; of whom that can't be said for sure, with whom it is confused."""
    rows = comparison.rows
    on_front = pareto_front(np.array([r.macs for r in rows], float), np.array([r.top1.mean for r in rows]))
    front = [r.model for r, on in zip(rows, on_front, strict=True) if on]
    beaten, perhaps = [], []
    for behind in (r for r, on in zip(rows, on_front, strict=True) if not on):
        ahead = [r for r in rows if r.macs <= behind.macs and r.top1.mean >= behind.top1.mean and r is not behind]
        differences = [comparison.difference(r.model, behind.model) for r in ahead]
        if any(interval and interval.low > 0 for interval in differences):
            beaten.append(behind.model)
        else:
            at = "as many" if ahead[0].macs == behind.macs else "fewer"
            perhaps.append(f"{behind.model} cannot be told apart from {ahead[0].model} at {at} MACs")
    stand = "stand" if len(front) > 1 else "stands"
    last = f"By their means, {listed(front)} {stand} on the front of accuracy against MACs"
    if beaten:
        last += f"; {listed(beaten)} {'do' if len(beaten) > 1 else 'does'} not"
    if perhaps:
        last += f"; {listed(perhaps)}"
    return last + ("." if beaten or perhaps else ", so none is beaten by another in both.")
