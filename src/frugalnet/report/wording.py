"""Figures as text, for whatever shows them: tables, charts, sentences."""

import html
from collections.abc import Sequence

from frugalnet.metrics.statistics import Interval, Spread

NOT_MEASURED = "not measured"


def human(value: float) -> str:
    """12,345,678 → "12.3 M"; below a thousand three significant digits."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {letter}" if value < 999.5 * size else f"{value / size:,.0f} {letter}"
    return f"{value:.3g}"


def number(value: float) -> str:
    """Whole and with commas from a hundred on; below three significant digits."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds below ten minutes, then minutes, then hours."""
    if seconds < 600:
        return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def spread(value: Spread, as_percent: bool = True) -> str:
    """Mean, and deviation where there is one."""
    if not as_percent:
        return f"{value.mean:.3f}" + (f" ± {value.deviation:.3f}" if value.deviation is not None else "")
    deviation = f" ± {100 * value.deviation:.1f}" if value.deviation is not None else ""
    return f"{100 * value.mean:.1f}{deviation}\u00a0%"


def interval(value: Interval) -> str:
    return f"{100 * value.low:.1f} to {100 * value.high:.1f}\u00a0%"


def percent(share: float, digits: int = 1) -> str:
    """0.4153 → "41.5 %", with a space that no line breaks at."""
    return f"{share:.{digits}%}".replace("%", "\u00a0%").replace("-", "−")


def ratio(share: float) -> str:
    """A share in percent to two digits: 0.00745 → "0.75 %"."""
    return f"{100 * share:.2g}\u00a0%"


def points(interval: Interval) -> str:
    """A difference of two shares in percentage points, with its interval."""
    low, high = (f"{100 * bound:+.1f}".replace("-", "−") for bound in (interval.low, interval.high))
    return f"{abs(100 * interval.estimate):.1f} points (95 % interval {low} to {high})"


def listed(names: Sequence[str]) -> str:
    """["a", "b", "c"] → "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def markdown(text: object) -> str:
    """Data in a GitHub-flavoured table: no markup, no new column."""
    return "".join("\\" + c if c in "\\`*_[]|~#" else html.escape(c, quote=False) for c in str(text))
