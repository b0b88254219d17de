"""Figures as text, for tables, charts and sentences."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from frugalnet.metrics.statistics import Interval, SeedMean

NOT_MEASURED = "not measured"
Units = Sequence[tuple[float, str]]  # sizes and names, the largest first
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"))
MILLISECONDS = ((1.0, " ms"),)
DURATIONS = ((3600.0, " h"), (60.0, " min"), (1.0, " s"))


@dataclass(frozen=True)
class Scale:
    """One unit and number of decimals for all numbers of a column; called with a number, it gives the text."""

    size: float
    unit: str  # with its space
    decimals: int

    def __call__(self, value: float) -> str:
        return f"{value / self.size:z,.{self.decimals}f}{self.unit}"

    def range(self, low: float, high: float) -> str:
        """Two numbers, as "2.20 to 2.84 ms"."""
        return f"{self(low).removesuffix(self.unit)} to {self(high)}"


def scale(values: Sequence[float], units: Units) -> Scale:
    """The scale that shows three digits of the smallest value, and at most five of the largest.

    units: size and name, largest first. The largest unit is taken that the largest value reaches, and the smallest
    value a quarter of; else the last.
    """
    low, high = min(values), max(values)
    size, unit = next((u for u in units if high >= 0.9995 * u[0] and low >= 0.25 * u[0]), units[-1])
    small, large = (math.floor(math.log10(value / size)) if value > 0 else 0 for value in (low, high))
    return Scale(size, unit, max(min(2 - max(small, 0 if high >= size else small), 4 - large), 0))


def prefixed(unit: str) -> list[tuple[float, str]]:
    """Units with metric prefixes, as " kB", " MB"."""
    return [(size, f" {letter}{unit}".rstrip()) for size, letter in PREFIXES]


COUNT = prefixed("")
BYTES = prefixed("B")
JOULES = prefixed("J")


def count(number: float, noun: str, plural: str = "") -> str:
    """1 → "1 epoch", 30 → "30 epochs", 1000 → "1,000 epochs"."""
    shown = f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"


def p_value(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else "< 0.0001"


def human(value: float) -> str:
    """12,345,678 → "12.3 M"; three significant digits below a thousand."""
    for size, letter in PREFIXES[:5]:
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {letter}" if value < 999.5 * size else f"{value / size:,.0f} {letter}"
    return f"{value:.3g}"


def human_bytes(value: float) -> str:
    """299,080 → "299 kB"."""
    return f"{human(value)}B" if value >= 999.5 else f"{human(value)} B"


def seed_mean(value: SeedMean, as_percent: bool = True) -> str:
    """Mean, and standard deviation if there are several seeds."""
    if not as_percent:
        return f"{value.mean:.3f}" + (f" ± {value.deviation:.3f}" if value.deviation is not None else "")
    deviation = f" ± {100 * value.deviation:.1f}" if value.deviation is not None else ""
    return f"{100 * value.mean:.1f}{deviation}\u00a0%"


def interval(value: Interval) -> str:
    return f"{100 * value.low:.1f} to {100 * value.high:.1f}\u00a0%"


def percent(fraction: float, digits: int = 1) -> str:
    """0.4153 → "41.5 %", with a non-breaking space."""
    return f"{fraction:z.{digits}%}".replace("%", "\u00a0%").replace("-", "−")


def with_interval(value: Interval) -> str:
    """A fraction and its interval, as "41.5 % (40.5 to 42.5 %)"."""
    return f"{percent(value.estimate)} ({interval(value)})"


def ratio(fraction: float) -> str:
    """A fraction in percent to two digits, whole from 10 % on: 0.00744 → "0.74 %", 1.5 → "150 %"."""
    value = 100 * fraction
    return f"{value:,.0f}\u00a0%" if value >= 9.95 else f"{value:.2g}\u00a0%"


def signed_points(fraction: float) -> str:
    """A difference of accuracies in percentage points: -0.026 → "−2.6"."""
    return f"{100 * fraction:+z.1f}".replace("-", "−")


def points(interval: Interval) -> str:
    """The size of a difference of accuracies in percentage points, with its interval, both in its own direction, which
    the sentence around it says: "lower by" -0.026 (-0.035 to +0.002) → "2.6 points (95 % interval −0.2 to 3.5)"."""
    bounds = (interval.low, interval.high) if interval.estimate >= 0 else (-interval.high, -interval.low)
    low, high = (f"{100 * bound:z.1f}".replace("-", "−") for bound in bounds)
    return f"{abs(100 * interval.estimate):.1f} points (95\u00a0% interval {low} to {high})"


def listed(names: Sequence[str]) -> str:
    """["a", "b", "c"] → "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def one_line(text: object) -> str:
    """Text from data without line breaks."""
    return " ".join(str(text).splitlines())


def markdown(text: object) -> str:
    """Text from data for GitHub-flavoured Markdown: no mark-up, no formula, no new table column or line."""
    return "".join("\\" + c if c in "\\`*_[]|~#$" else html.escape(c, quote=False) for c in one_line(text))
