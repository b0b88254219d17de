"""Records to a comparison of networks: their rows, paired differences, and what limits it. Pure functions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from frugalnet.comparison.comparable import LeftOut, comparable, differing, recipe_and_views
from frugalnet.comparison.networks import MILESTONES, Measure, Row, own_milestones, row
from frugalnet.comparison.records import Record
from frugalnet.datasets import is_tiny_imagenet
from frugalnet.errors import UserError
from frugalnet.metrics import classes, statistics
from frugalnet.metrics.statistics import Interval

R = TypeVar("R")
FEW_SEEDS = 5  # up to which it is said how an interval is made


@dataclass(frozen=True)
class Difference:
    """The accuracy of `first` minus that of `second` on the same images: top-1, or macro accuracy where that ranks the
    networks. McNemar's p-value, of top-1, for each seed of both."""

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


def difference(first: Sequence[Record], second: Sequence[Record], *, by_class: bool = False) -> Difference:
    """The paired difference of two models' top-1 or, by class, macro accuracy, over images and seeds."""
    by_seed = {record.seed: record for record in second}
    correct, others = (np.stack([record.correct for record in records]) for records in (first, second))
    weights = statistics.class_weights(first[0].labels) if by_class else None
    return Difference(
        first[0].model,
        second[0].model,
        statistics.bootstrap(correct, others, weights=weights),
        {r.seed: statistics.mcnemar(r.correct, by_seed[r.seed].correct) for r in first if r.seed in by_seed},
    )


@dataclass(frozen=True)
class Comparison:
    """All figures that the report is made of."""

    rows: list[Row]  # by the accuracy that ranks them, highest first
    differences: list[Difference]  # of every pair of rows
    left_out: list[LeftOut]
    notes: list[str]  # what limits the comparison
    images: NDArray[np.uint8] | None = None  # the validation images (N, H, W, 3) RGB, for examples; None: none shown
    class_sizes: tuple[int, int] | None = None  # the smallest and the largest class, if they differ much

    @property
    def is_of_the_paper(self) -> bool:
        """Whether the data are Tiny ImageNet, of which the paper speaks, or the sample, which stands for it."""
        return self.first.run.is_sample or is_tiny_imagenet(self.first.run.data)

    @cached_property
    def class_order(self) -> list[int]:
        """An order of the classes in which those that the networks confuse are adjacent. Takes seconds for many."""
        return classes.class_order(np.sum([row.confusion for row in self.rows], axis=0))

    @property
    def measure(self) -> Measure:
        """The accuracy that ranks the networks."""
        return self.rows[0].measure

    @property
    def by_macs(self) -> dict[str, int]:
        """The MACs of each model, the fewest first; of equally many the more accurate one first."""
        return {row.model: row.macs for row in sorted(self.rows, key=lambda row: (row.macs, -row.lead.mean))}

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
        intervals = {(pair.first, pair.second): pair.interval for pair in self.differences}
        if (first, second) in intervals:
            return intervals[first, second]
        reverse = intervals[second, first]
        return Interval(-reverse.estimate, -reverse.high, -reverse.low)


def compare(
    records: Sequence[Record],
    data_sha256: str,
    validated_on: str,
    images: NDArray[np.uint8] | None = None,
    class_sizes: tuple[int, int] | None = None,
) -> Comparison:
    """Compare all records evaluated on the given data. Raises UserError if there is none.

    class_sizes: the smallest and the largest class, if they differ so much that macro accuracy ranks the networks.
    """
    kept, left_out = comparable(records, data_sha256, validated_on)
    if not kept:
        others = "; ".join(f"{record.name}: {record.reason}" for record in left_out) or "none"
        raise UserError(f"no network was evaluated on the present data (hash {data_sha256[:12]}); found: {others}")
    models = dict.fromkeys(record.model for record in kept)
    run = kept[0].run
    milestones = MILESTONES if run.is_sample or is_tiny_imagenet(run.data) else own_milestones(kept)
    by_class = class_sizes is not None
    rows = [row([record for record in kept if record.model == m], milestones, by_class=by_class) for m in models]
    rows.sort(key=lambda row: (-row.lead.mean, row.macs, row.model))
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    differences = [difference(a.records, b.records, by_class=by_class) for a, b in pairs]
    return Comparison(rows, differences, left_out, _notes(rows), images, class_sizes)


def trained_alike(rows: Sequence[Row]) -> bool:
    """Whether all were trained on one kind of machine, with the same versions and threads."""
    machines = [(r.run.environment, r.timing.get("machine")) for row in rows for r in row.records]
    return len({json.dumps(machine, sort_keys=True) for machine in machines}) == 1


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = [
        f"{rows[0].model} and {other.model} were trained differently: {different}."
        for other in rows[1:]
        if (different := differing(recipe_and_views(rows[0].records[0]), recipe_and_views(other.records[0])))
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
    """A comparison and what the experiments measured of the networks in it.

    lacking: by the ID of an experiment that measured nothing, what the data lack for it.
    """

    comparison: Comparison
    results: tuple[object, ...] = ()  # one of each experiment that measured something
    lacking: Mapping[str, str] = field(default_factory=dict)

    def result(self, kind: type[R]) -> R | None:
        """The result of that class, or None if that experiment measured nothing."""
        return next((result for result in self.results if isinstance(result, kind)), None)
