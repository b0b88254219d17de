"""One row a network: its figures over seeds, and what training it cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalnet.comparison.records import Record, is_quantiles
from frugalnet.metrics import classes, statistics
from frugalnet.metrics.classes import ClassAccuracy
from frugalnet.metrics.statistics import Interval, Quantiles, SeedMean, quantiles, seed_mean

MILESTONES = (0.20, 0.25, 0.30, 0.33, 0.35, 0.40)  # validation top-1; 0.33 is the paper's (section 4.1)
SHARES = (0.5, 0.7, 0.8, 0.9, 0.95)  # of the highest top-1: milestones on other data


@dataclass(frozen=True)
class Reached:
    """The training cost of reaching a validation top-1: means over seeds, None unless every seed reached it."""

    milestone: float
    seeds_reached: int
    seeds: int
    epochs: float | None
    seconds: float | None
    macs: float | None


def own_milestones(records: Sequence[Record]) -> list[float]:
    """Accuracies, in whole percent, on the way to the highest final top-1 of these records."""
    best = max(record.history[-1].validation_top1 for record in records)
    return sorted({round(share * best, 2) for share in SHARES} - {0.0})


def training_cost(records: Sequence[Record], milestones: Sequence[float] = MILESTONES) -> list[Reached]:
    """Epochs, seconds and MACs up to the end of the first epoch that reached each milestone."""
    table = []
    for milestone in milestones:
        epochs: list[int] = []
        seconds: list[float] = []
        macs: list[float] = []
        for record in records:
            epoch = next((e.epoch for e in record.history if e.validation_top1 >= milestone), None)
            if epoch is None:
                continue
            epochs.append(epoch)
            macs.append(sum(e.train_macs for e in record.history[:epoch]))
            if len(record.timing.get("epoch_seconds", [])) >= epoch:
                seconds.append(sum(record.timing["epoch_seconds"][:epoch]))
        costs = (epochs, seconds, macs)
        means = [float(np.mean(cost)) if len(cost) == len(records) else None for cost in costs]
        table.append(Reached(milestone, len(epochs), len(records), *means))
    return table


@dataclass(frozen=True)
class Measure:
    """The accuracy that ranks networks: its key among the figures, and its name within a sentence and at its start."""

    key: str
    name: str
    title: str


BUSY_CORES = 0.25
BUSY_SPREAD = 5  # between the 5th and 95th percentile; 3 on an idle machine (docs/results/modern)
TOP1 = Measure("top1", "top-1", "Top-1")
MACRO = Measure("macro_accuracy", "macro accuracy", "Macro accuracy")  # where classes differ in size


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
    macro_interval: Interval | None = None  # None: top-1 ranks the networks

    @property
    def measure(self) -> Measure:
        return MACRO if self.macro_interval else TOP1

    @property
    def lead(self) -> SeedMean:
        """The accuracy that ranks networks."""
        return self.macro_accuracy if self.macro_interval else self.top1

    @property
    def lead_interval(self) -> Interval:
        return self.macro_interval or self.top1_interval

    @property
    def has_few_classes(self) -> bool:
        """Whether top-5 says nothing: it cannot be wrong with five classes or fewer."""
        return len(self.classes) <= 5

    @property
    def cost(self) -> dict[str, Any]:
        """The model's entry in cost.json, the same for all seeds."""
        return self.records[0].cost

    @property
    def was_busy(self) -> bool:
        """Whether other programs slowed the machine down while the costs were measured.

        Known by what they used or, from older measurements, by the spread of the latencies.
        """
        other_cores = self.cost.get("other_cores")
        if other_cores is not None:
            return bool(other_cores > BUSY_CORES)
        return self.latency_ms is not None and self.latency_ms.p95 > BUSY_SPREAD * self.latency_ms.p5

    def figure(self, key: str) -> SeedMean | Quantiles | float | None:
        """A field of this row, or else of the model's entry in cost.json; None if it was not measured."""
        value: Any = getattr(self, key) if hasattr(self, key) else self.cost.get(key)
        return Quantiles(**value) if is_quantiles(value) else value

    def figures(self) -> dict[str, Any]:
        """All fields up to `recipe`, ready for JSON."""
        others = {"records", "reached", "confusion", "classes"}
        others |= set() if self.macro_interval else {"macro_interval"}
        others |= {"top5"} if self.has_few_classes else set()
        fields = {key: value for key, value in vars(self).items() if key not in others}
        return {key: asdict(value) if is_dataclass(value) else value for key, value in fields.items()}  # type: ignore[arg-type]


def row(records: Sequence[Record], milestones: Sequence[float] = MILESTONES, *, by_class: bool = False) -> Row:
    """One model's row, from one record per seed. by_class: macro accuracy ranks the networks."""
    first = records[0]

    def metric(key: str) -> SeedMean:
        return seed_mean([getattr(record.metrics, key) for record in records])

    def measured(key: str) -> Quantiles | None:
        return Quantiles(**first.cost[key]) if is_quantiles(first.cost.get(key)) else None

    def by_epoch(key: str) -> Quantiles | None:
        values = [value for record in records for value in record.timing.get(key, [])]
        measurements = [value for value in values if value is not None]
        return quantiles(measurements) if measurements else None

    confusion = np.sum([record.confusion for record in records], axis=0)
    totals = [sum(record.timing["epoch_seconds"]) for record in records if record.timing.get("epoch_seconds")]
    figures: dict[str, Any] = {key: metric(key) for key in ("top1", "top5", "macro_accuracy", "loss", "ece")}
    counted = ("parameters_trainable", "parameters_keras", "macs", "weights_bytes")
    figures |= {key: getattr(first.metrics, key) for key in counted}
    figures |= {key: measured(key) for key in ("latency_ms", "throughput", "train_step_ms")}
    figures |= {key: by_epoch(key) for key in ("epoch_seconds", "epoch_cpu_seconds", "epoch_joules")}
    correct = np.stack([record.correct for record in records])
    weights = statistics.class_weights(first.labels)
    return Row(
        model=first.model,
        seeds=[record.seed for record in records],
        top1_interval=statistics.bootstrap(correct),
        macro_interval=statistics.bootstrap(correct, weights=weights) if by_class else None,
        train_top1=seed_mean([record.history[-1].train_top1 for record in records]),
        epoch_macs=float(np.mean([epoch.train_macs for epoch in first.history])),
        train_seconds=seed_mean(totals) if totals else None,
        epochs=len(first.history),
        recipe=first.run.recipe,
        records=list(records),
        reached=training_cost(records, milestones),
        confusion=confusion,
        classes=classes.per_class(confusion, first.class_ids, first.class_names, len(records)),
        **figures,
    )
