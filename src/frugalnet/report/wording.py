"""Figures as text, for tables, charts and sentences."""

import html
from collections.abc import Sequence

from frugalnet.metrics.statistics import Interval, SeedMean

NOT_MEASURED = "not measured"


def human(value: float) -> str:
    """12,345,678 → "12.3 M"; three significant digits below a thousand."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {letter}" if value < 999.5 * size else f"{value / size:,.0f} {letter}"
    return f"{value:.3g}"


def number(value: float) -> str:
    """Whole, with commas, from a hundred on; three significant digits below."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def milliseconds(value: float) -> str:
    return f"{number(value)} ms"


def memory(size: float) -> str:
    """Bytes: 480,000,000 → "480 MB"."""
    return f"{human(size)}B"


def duration(seconds: float) -> str:
    """Seconds below ten minutes, then minutes, then hours."""
    if seconds < 600:
        return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


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
    return f"{fraction:.{digits}%}".replace("%", "\u00a0%").replace("-", "−")


def ratio(fraction: float) -> str:
    """A fraction in percent to two digits, whole from 10 % on: 0.00744 → "0.74 %", 1.5 → "150 %"."""
    value = 100 * fraction
    return f"{value:,.0f}\u00a0%" if value >= 9.95 else f"{value:.2g}\u00a0%"


def signed_points(fraction: float) -> str:
    """A difference of accuracies in percentage points: -0.026 → "−2.6"."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def points(interval: Interval) -> str:
    """The size of a difference of accuracies in percentage points, with its interval."""
    low, high = signed_points(interval.low), signed_points(interval.high)
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
