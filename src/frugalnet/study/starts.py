"""Networks that began from trained weights beside networks that began from random ones: like is compared with like."""

from collections.abc import Sequence
from itertools import groupby

from frugalnet.comparison.comparable import recipe
from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.networks import Row
from frugalnet.document.wording import listed, percent, points


def start(row: Row) -> str:
    """What a network's weights were when its training began."""
    return str(recipe(row.records[0]).get("start", "random weights"))


def sentences(comparison: Comparison) -> list[str]:
    """Which networks began from what, and the best of each kind; empty if all began alike."""
    groups = [list(rows) for _, rows in groupby(sorted(comparison.rows, key=start), key=start)]
    if len(groups) < 2:
        return []
    began = "; ".join(f"{start(group[0])}: {listed([row.model for row in group])}" for group in groups)
    return [
        f"Networks began from different weights, which alone makes a difference: {began}.",
        *(sentence for group in groups if (sentence := _best(comparison, group))),
    ]


def _best(comparison: Comparison, group: Sequence[Row]) -> str:
    """The best network of those that began alike, and its lead over the second; empty for one network."""
    if len(group) < 2:
        return ""
    best, second, *_ = sorted(group, key=lambda row: -row.lead.mean)
    lead = comparison.difference(best.model, second.model)
    real = "is" if lead.excludes_zero else "is not"
    return (
        f"Of those that began from {start(best)}, {best.model} is the most accurate, {percent(best.lead.mean)} "
        f"{best.measure.name}; its lead over {second.model} {real} significant: {points(lead)}."
    )
