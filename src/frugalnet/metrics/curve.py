"""Accuracy as a function of cost: straight between measured points, over the logarithm of the cost."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def value_at(costs: Sequence[float], values: Sequence[float], cost: float) -> float | None:
    """The value at a cost; None beyond the points, and where the costs do not ascend: there is no curve then.

    costs: (K,), positive; values: (K,).
    """
    ascend = all(low < high for low, high in pairwise(costs))
    if not ascend or not costs[0] <= cost <= costs[-1]:
        return None
    return float(np.interp(np.log(cost), np.log(costs), values))


def cost_of(costs: Sequence[float], values: Sequence[float], value: float) -> float | None:
    """The least cost at which the value is reached, or None where that is beyond the points.

    costs: (K,), positive and ascending; values: (K,), which may fall in between.
    """
    reached = next((i for i, at in enumerate(values) if at >= value), None)
    if reached is None or value < values[0]:
        return None
    if reached == 0:
        return costs[0]
    ends = slice(reached - 1, reached + 1)
    return float(np.exp(np.interp(value, values[ends], np.log(costs[ends]))))
