"""Which network to recommend where computation matters: the one rule of the report and of the registry's aliases."""

from collections.abc import Sequence

NEAR = 0.05  # top-1 that a network may lose against the best one and still be recommended for its cost
_ROUNDING = 1e-9


def near(top1: Sequence[float]) -> list[int]:
    """The indices of the networks whose top-1 (in 0..1) is at most `NEAR` below the highest, which is one of them."""
    limit = max(top1) - NEAR - _ROUNDING
    return [index for index, value in enumerate(top1) if value >= limit]


def frugal(top1: Sequence[float], macs: Sequence[float]) -> int:
    """The index of the network with the fewest MACs of those near the highest top-1, or of all if no other is near it.

    Of a tie it is the more accurate one. top1, macs: of each network, its top-1 in 0..1 and its MACs per image.
    """
    candidates = near(top1)
    if len(candidates) == 1:
        candidates = list(range(len(top1)))
    return min(candidates, key=lambda index: (macs[index], -top1[index]))
