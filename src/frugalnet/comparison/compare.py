"""Records to a comparison of networks: figures over seeds, paired differences, Pareto front. Pure functions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from frugalnet.comparison.records import Record, is_quantiles
from frugalnet.errors import UserError
from frugalnet.files import sha256_of
from frugalnet.metrics import classes, statistics
from frugalnet.metrics.classes import ClassAccuracy
from frugalnet.metrics.statistics import Interval, Quantiles, SeedMean, quantiles, seed_mean

R = TypeVar("R")
FEW_SEEDS = 5  # up to which it is said how an interval is made
MILESTONES = (0.20, 0.25, 0.30, 0.33, 0.35, 0.40)  # validation top-1; 0.33 is the paper's (section 4.1)


@dataclass(frozen=True)
class LeftOut:
    """A record that is not comparable with the others, and why."""

    name: str
    reason: str


def comparable(records: Sequence[Record], data_sha256: str, validated_on: str) -> tuple[list[Record], list[LeftOut]]:
    """The records evaluated on these images, with one recipe per model; and the others, with the reason.

    Seeds of one model are averaged, so they must share the recipe and the views of the model's lowest seed.
    """
    kept: list[Record] = []
    left_out = []
    for record in records:
        first = next((other for other in kept if other.model == record.model), None)
        if record.run["data_sha256"] != data_sha256:
            reason = f"trained and evaluated on other data ({record.run['data']}, {record.run['data_sha256'][:12]})"
        elif record.run["validated_on"] != validated_on:
            reason = f"evaluated on the {record.run['validated_on']}, not on the {validated_on}"
        elif first and (different := differing(_training(first), _training(record))):
            reason = f"trained differently from {first.name}, so the two cannot be averaged ({different})"
        else:
            kept.append(record)
            continue
        left_out.append(LeftOut(record.name, reason))
    for record in kept:
        if not np.array_equal(record.labels, kept[0].labels):
            raise UserError(
                f"{record.name}: its labels differ from those of {kept[0].name}, although the data are the same: "
                "evaluate both again"
            )
    return kept, left_out


def recipe(record: Record) -> dict[str, Any]:
    """How a network was trained, but for its images: settings, teacher and workers."""
    teacher = record.run.get("teacher")
    taught = {"teacher": f"{teacher['model']} {teacher['sha256'][:12]}"} if teacher else {}
    distributed = {
        f"distributed.{key}": sha256_of(value)[:12] if isinstance(value, dict) else value  # the hashes of its code
        for key, value in record.run.get("distributed", {}).items()
    }
    return {**record.run["train"], **taught, **distributed}


def _training(record: Record) -> dict[str, Any]:
    return {**recipe(record), "views": record.run.get("views_sha256", "")[:12]}


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """The keys whose values differ, as "epochs 30 and 5"; empty if none does."""
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    return ", ".join(f"{key} {first.get(key)} and {second.get(key)}" for key in keys)


@dataclass(frozen=True)
class Reached:
    """The training cost of reaching a validation top-1: means over seeds, None unless every seed reached it."""

    milestone: float
    seeds_reached: int
    seeds: int
    epochs: float | None
    seconds: float | None
    macs: float | None


def training_cost(records: Sequence[Record], milestones: Sequence[float] = MILESTONES) -> list[Reached]:
    """Epochs, seconds and MACs up to the end of the first epoch that reached each milestone."""
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
        means = [float(np.mean(each)) if len(each) == len(records) else None for each in (epochs, seconds, macs)]
        table.append(Reached(milestone, len(epochs), len(records), *means))
    return table


@dataclass(frozen=True)
class Row:
    """One model over its seeds. Accuracies in 0..1, loss in nats; None: not measured."""

    model: str
    seeds: list[int]
    top1: SeedMean
    top1_interval: Interval
    top5: SeedMean
    macro_accuracy: SeedMean
    loss: SeedMean
    ece: SeedMean
    train_top1: SeedMean
    parameters_trainable: int
    parameters_keras: int
    macs: int
    weights_bytes: int
    latency_ms: Quantiles | None
    throughput: Quantiles | None
    train_step_ms: Quantiles | None
    epoch_seconds: Quantiles | None
    epoch_cpu_seconds: Quantiles | None
    epoch_joules: Quantiles | None
    epoch_macs: float
    train_seconds: SeedMean | None
    epochs: int
    recipe: str
    # Not in comparison.json
    records: list[Record]  # one per seed
    reached: list[Reached]
    confusion: NDArray[np.int64]  # (C, C), summed over the seeds
    classes: list[ClassAccuracy]  # over the seeds, in label order

    @property
    def cost(self) -> dict[str, Any]:
        """The model's entry in cost.json, the same for all seeds."""
        return self.records[0].cost

    def figure(self, key: str) -> SeedMean | Quantiles | float | None:
        """A field of this row, or else of the model's entry in cost.json; None if it was not measured."""
        value: Any = getattr(self, key) if hasattr(self, key) else self.cost.get(key)
        return Quantiles(**value) if is_quantiles(value) else value

    def figures(self) -> dict[str, Any]:
        """All fields up to `recipe`, ready for JSON."""
        others = ("records", "reached", "confusion", "classes")
        found = {key: value for key, value in vars(self).items() if key not in others}
        return {key: asdict(value) if is_dataclass(value) else value for key, value in found.items()}  # type: ignore[arg-type]


def row(records: Sequence[Record]) -> Row:
    """One model's row, from one record per seed."""
    first = records[0]

    def metric(key: str) -> SeedMean:
        return seed_mean([record.metrics[key] for record in records])

    def measured(key: str) -> Quantiles | None:
        return Quantiles(**first.cost[key]) if is_quantiles(first.cost.get(key)) else None

    def by_epoch(key: str) -> Quantiles | None:
        values = [v for record in records for v in record.timing.get(key, []) if v is not None]
        return quantiles(values) if values else None

    confusion = np.sum([record.confusion for record in records], axis=0)
    totals = [sum(record.timing["epoch_seconds"]) for record in records if record.timing.get("epoch_seconds")]
    figures: dict[str, Any] = {key: metric(key) for key in ("top1", "top5", "macro_accuracy", "loss", "ece")}
    figures |= {
        key: first.metrics[key] for key in ("parameters_trainable", "parameters_keras", "macs", "weights_bytes")
    }
    figures |= {key: measured(key) for key in ("latency_ms", "throughput", "train_step_ms")}
    figures |= {key: by_epoch(key) for key in ("epoch_seconds", "epoch_cpu_seconds", "epoch_joules")}
    return Row(
        model=first.model,
        seeds=[record.seed for record in records],
        top1_interval=statistics.bootstrap(np.stack([record.correct for record in records])),
        train_top1=seed_mean([record.history[-1]["train_top1"] for record in records]),
        epoch_macs=float(np.mean([epoch["train_macs"] for epoch in first.history])),
        train_seconds=seed_mean(totals) if totals else None,
        epochs=len(first.history),
        recipe=first.run["train"]["recipe"],
        records=list(records),
        reached=training_cost(records),
        confusion=confusion,
        classes=classes.per_class(confusion, first.class_ids, first.class_names, len(records)),
        **figures,
    )


@dataclass(frozen=True)
class Difference:
    """Top-1 of `first` minus that of `second` on the same images; McNemar's p-value for each seed of both."""

    first: str
    second: str
    interval: Interval
    mcnemar: dict[int, float]

    @property
    def wording(self) -> str:
        """Names a better network only where the 95 % interval excludes zero."""
        if not self.interval.excludes_zero:
            return f"{self.first} and {self.second} are not significantly different"
        return f"{self.first} is {'better' if self.interval.estimate > 0 else 'worse'} than {self.second}"


def difference(first: Sequence[Record], second: Sequence[Record]) -> Difference:
    """The paired difference of two models' top-1, over images and seeds."""
    by_seed = {record.seed: record for record in second}
    return Difference(
        first[0].model,
        second[0].model,
        statistics.bootstrap(np.stack([r.correct for r in first]), np.stack([r.correct for r in second])),
        {r.seed: statistics.mcnemar(r.correct, by_seed[r.seed].correct) for r in first if r.seed in by_seed},
    )


@dataclass(frozen=True)
class Comparison:
    """All figures that the report is made of."""

    rows: list[Row]  # by top-1, highest first
    differences: list[Difference]  # of every pair of rows
    left_out: list[LeftOut]
    notes: list[str]  # what limits the comparison
    images: NDArray[np.uint8] | None = None  # the validation images (N, H, W, 3) RGB, for examples; None: none shown

    @property
    def by_macs(self) -> dict[str, int]:
        """The MACs of each model, the fewest first; of equally many the more accurate one first."""
        return {row.model: row.macs for row in sorted(self.rows, key=lambda row: (row.macs, -row.top1.mean))}

    def extremes_by_macs(self, models: Sequence[str]) -> tuple[str, str]:
        """Of these networks, the one with the fewest MACs and the one with the most."""
        ordered = [model for model in self.by_macs if model in models]
        return ordered[0], max(ordered, key=lambda model: self.by_macs[model])

    @property
    def records(self) -> list[Record]:
        return [record for row in self.rows for record in row.records]

    @property
    def first(self) -> Record:
        """The first seed of the most accurate network."""
        return self.rows[0].records[0]

    def row(self, model: str) -> Row | None:
        return next((row for row in self.rows if row.model == model), None)

    def difference(self, first: str, second: str) -> Interval:
        """Top-1 of `first` minus that of `second`, two of the networks compared."""
        intervals = {(one.first, one.second): one.interval for one in self.differences}
        if (first, second) in intervals:
            return intervals[first, second]
        reverse = intervals[second, first]
        return Interval(-reverse.estimate, -reverse.high, -reverse.low)


def compare(
    records: Sequence[Record], data_sha256: str, validated_on: str, images: NDArray[np.uint8] | None = None
) -> Comparison:
    """Compare all records evaluated on the given data. Raises UserError if there is none."""
    kept, left_out = comparable(records, data_sha256, validated_on)
    if not kept:
        found = "; ".join(f"{one.name}: {one.reason}" for one in left_out) or "none"
        raise UserError(f"no network was evaluated on the present data (hash {data_sha256[:12]}); found: {found}")
    models = dict.fromkeys(record.model for record in kept)
    rows = [row([record for record in kept if record.model == model]) for model in models]
    rows.sort(key=lambda row: (-row.top1.mean, row.model))
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    differences = [difference(a.records, b.records) for a, b in pairs]
    return Comparison(rows, differences, left_out, _notes(rows), images)


def trained_alike(rows: Sequence[Row]) -> bool:
    """Whether all were trained on one kind of machine, with the same versions and threads."""
    found = [(r.run.get("environment"), r.timing.get("machine")) for row in rows for r in row.records]
    return len({json.dumps(one, sort_keys=True) for one in found}) == 1


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = [
        f"{rows[0].model} and {other.model} were trained differently: {different}."
        for other in rows[1:]
        if (different := differing(_training(rows[0].records[0]), _training(other.records[0])))
    ]
    if any(other.seeds != rows[0].seeds for other in rows):
        seeds = "; ".join(f"{row.model} {', '.join(map(str, row.seeds))}" for row in rows)
        notes.append(f"The networks were trained with different seeds: {seeds}.")
    if not trained_alike(rows):
        notes.append(
            "The networks were trained on different machines or versions, so their epoch times are not comparable."
        )
    if any(len(row.seeds) == 1 for row in rows):
        notes.append(
            "Intervals of networks trained with one seed cover the choice of validation images, "
            "not the variance of training."
        )
    if any(1 < len(row.seeds) <= FEW_SEEDS for row in rows):
        notes.append(
            f"Intervals of networks trained with {FEW_SEEDS} seeds or fewer are approximate: the n seeds are resampled "
            "together with the validation images, their spread is scaled by √(n/(n − 1)) for their small number, and "
            "the interval ends at 0 and 100\u00a0%, that of a difference at −100 and 100 points."
        )
    return notes


@dataclass(frozen=True)
class Evidence:
    """A comparison and what the experiments measured of the networks in it."""

    comparison: Comparison
    results: tuple[object, ...] = ()  # one of each experiment that measured something

    def result(self, kind: type[R]) -> R | None:
        """The result of that class, or None if that experiment measured nothing."""
        return next((result for result in self.results if isinstance(result, kind)), None)
