"""Whether classes differ so much in size that macro accuracy, their mean, ranks the networks instead of top-1."""

import numpy as np

from frugalnet.data.arrays import Dataset

MOST_UNEQUAL = 1.5  # the largest class, in smallest ones, up to which top-1 ranks the networks


def unequal_sizes(data: Dataset) -> tuple[int, int] | None:
    """The numbers of images of the smallest and the largest class, if their ratio exceeds `MOST_UNEQUAL`; else None.

    Of both splits together: a hold-out of a few images of each class rounds.
    """
    counts = sum(np.bincount(split.labels, minlength=len(data.class_ids)) for split in (data.train, data.validation))
    smallest, largest = int(np.min(counts)), int(np.max(counts))
    return (smallest, largest) if largest > MOST_UNEQUAL * smallest else None
