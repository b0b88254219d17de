"""Classes with unequal numbers of images: what weighs how much in the loss, or how often an epoch shows an image."""

import numpy as np
from numpy.typing import NDArray


def class_weights(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """The weight of each class in the loss, (num_classes,): N / (classes · its images); over the N images their mean is
    1. A class without images weighs nothing."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.divide(len(labels), num_classes * counts, out=np.zeros(num_classes), where=counts > 0)
    return weights.astype(np.float32)


def draw_balanced(labels: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The images of an epoch, (N,) positions in labels (N,), with equally many of each class; numbers differ by one.

    Images of rare classes are repeated, of frequent ones some are left out: in each epoch others, as a function of
    (seed, epoch).
    """
    generator = np.random.default_rng([seed, epoch, 2])
    classes = np.unique(labels)
    shares = np.array_split(np.arange(len(labels)), len(classes))
    drawn = [
        np.resize(generator.permutation(np.flatnonzero(labels == label)), len(share))
        for label, share in zip(classes, shares, strict=True)
    ]
    return np.concatenate(drawn)
