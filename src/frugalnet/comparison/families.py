"""Families: the networks of one architecture at several widths, and what two families reach for the same cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, permutations

import numpy as np

from frugalnet import models
from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.networks import Row
from frugalnet.document import charts
from frugalnet.document.wording import human, points
from frugalnet.metrics import curve
from frugalnet.metrics.statistics import Interval

CLOSE = 1.15  # the ratio of their MACs up to which two networks cost about the same


def architecture(row: Row) -> str:
    return models.parse(row.model).architecture


def width(row: Row) -> float:
    return models.parse(row.model).width


def colours(rows: Sequence[Row]) -> dict[str, str]:
    """Each network's colour, which is its family's."""
    of_family = charts.colours({architecture(row) for row in rows})
    return {row.model: of_family[architecture(row)] for row in rows}


@dataclass(frozen=True)
class Family:
    """An architecture at two or more widths, the smallest first."""

    name: str
    rows: list[Row]

    @property
    def macs(self) -> list[float]:
        return [float(row.macs) for row in self.rows]

    @property
    def top1(self) -> list[float]:
        return [row.lead.mean for row in self.rows]

    @property
    def latency(self) -> list[float] | None:
        """Medians in milliseconds, or None if one was not measured."""
        medians = [row.latency_ms.median for row in self.rows if row.latency_ms]
        return medians if len(medians) == len(self.rows) else None

    def at(self, costs: Sequence[float] | None, top1: float) -> float | None:
        """What a top-1 costs the family, interpolated at the MACs that it takes; None if it is beyond its networks.

        costs: of each of its networks.
        """
        macs = curve.cost_of(self.macs, self.top1, top1)
        if macs is None or costs is None:
            return None
        return float(np.exp(np.interp(np.log(macs), np.log(self.macs), np.log(costs))))


def families(rows: Sequence[Row]) -> list[Family]:
    """The architectures that were compared at several widths, by name."""
    ordered = sorted(rows, key=lambda row: (architecture(row), width(row)))
    groups = [Family(name, [*group]) for name, group in groupby(ordered, architecture)]
    return [family for family in groups if len(family.rows) > 1]


def names_in_charts(rows: Sequence[Row]) -> dict[str, str]:
    """What a chart calls each network: one of a family by its name, the others, of the same colour, by width: ×0.5."""
    names = {row.model: row.model for row in rows}
    for family in families(rows):
        named = next((row for row in family.rows if width(row) == 1), family.rows[-1])
        names |= {row.model: f"×{width(row):g}" for row in family.rows if row is not named}
    return names


@dataclass(frozen=True)
class Gain:
    """Top-1 of a family minus that of another for the same MACs.

    pair: the two networks if the other family has one of about the same MACs; then the interval is paired by image.
    Else the top-1 of one of them is interpolated, and there is no interval. macs: of the first family's network;
    macs_second: of the other's.
    """

    macs: float
    macs_second: float
    first: float
    second: float
    pair: tuple[str, str] | None = None
    interval: Interval | None = None

    @property
    def points(self) -> float:
        return self.first - self.second

    @property
    def at(self) -> str:
        """The MACs in words, both where they differ."""
        macs = dict.fromkeys((human(self.macs), human(self.macs_second)))
        return " against ".join(macs)


@dataclass(frozen=True)
class Pair:
    """Two families, the one that is ahead at equal MACs first, and by how much at each MACs that both can have."""

    first: Family
    second: Family
    gains: list[Gain]

    @property
    def mean_gain(self) -> float:
        return float(np.mean([gain.points for gain in self.gains]))

    @property
    def measured(self) -> list[Gain]:
        """The gains of networks that cost about the same, the cheapest first."""
        return [gain for gain in self.gains if gain.pair]

    @property
    def is_real(self) -> bool:
        """Whether two networks that cost about the same differ significantly."""
        return any(gain.interval and gain.interval.excludes_zero for gain in self.measured)


def pairs(comparison: Comparison) -> list[Pair]:
    """Every two families whose MACs overlap."""
    result = []
    for first, second in permutations(families(comparison.rows), 2):
        pair = Pair(first, second, _gains(comparison, first, second))
        if pair.gains and (pair.mean_gain, second.name) > (0, first.name):  # of a tie, by name
            result.append(pair)
    return result


def _gains(comparison: Comparison, first: Family, second: Family) -> list[Gain]:
    """At the MACs of each network of both, the cheapest first; of about equal ones once."""
    gains: list[Gain] = []
    paired: set[str] = set()
    for row in first.rows:
        other = min(second.rows, key=lambda other: abs(np.log(other.macs / row.macs)))
        back = min(first.rows, key=lambda row: abs(np.log(row.macs / other.macs)))
        if back is row and abs(np.log(other.macs / row.macs)) <= np.log(CLOSE):
            interval = comparison.difference(row.model, other.model)
            names = (row.model, other.model)
            gains.append(Gain(row.macs, other.macs, row.lead.mean, other.lead.mean, names, interval))
            paired |= {*names}
    for row in (*first.rows, *second.rows):
        reached = [curve.value_at(family.macs, family.top1, row.macs) for family in (first, second)]
        if row.model not in paired and reached[0] is not None and reached[1] is not None:
            gains.append(Gain(row.macs, row.macs, reached[0], reached[1]))
    return sorted(gains, key=lambda gain: gain.macs)


def gained(pair: Pair) -> str:
    """Which family is ahead at equal MACs, and by how much, in a sentence."""
    first, second = pair.first.name, pair.second.name
    if not pair.measured:
        ends = " to ".join(dict.fromkeys(human(gain.macs) for gain in (pair.gains[0], pair.gains[-1])))
        by = f"{100 * pair.mean_gain:.1f} points from {ends} (interpolated, without an interval)"
        return f"At equal MACs {first} is ahead of {second} on average: by {by}."
    equal = "equal" if all("against" not in gain.at for gain in pair.measured) else "about equal"
    if not pair.is_real:
        each = _each(pair.measured, joined=" and ")
        return f"At {equal} MACs {first} and {second} are not significantly different: {each}."
    if any(gain.points < 0 for gain in pair.measured if gain.interval and gain.interval.excludes_zero):
        return f"At {equal} MACs {first} is ahead of {second} on average, but not everywhere: {_each(pair.measured)}."
    return f"At {equal} MACs {first} is ahead of {second}: by {_each(pair.measured)}."


def _each(measured: Sequence[Gain], joined: str = " and by ") -> str:
    ends = [measured[0]] if len(measured) == 1 else [measured[0], measured[-1]]
    return joined.join(f"{_gain(gain)} at {gain.at}" for gain in ends)


def _gain(gain: Gain) -> str:
    assert gain.interval
    text = points(gain.interval)
    return text if gain.points >= 0 else f"−{text}"
