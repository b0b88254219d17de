"""Softmax regression on a network's features, by numpy: the training of its last layer."""

import numpy as np
from numpy.typing import NDArray

from frugalnet.errors import UserError
from frugalnet.use.onnx_file import Classifier
from frugalnet.use.runtime import softmax

DECAY = 0.03  # of the squared weights; the best of 0.001 to 0.1 over six data sets (docs/adaptation.md)
LEAST = 0.01  # of the mean deviation: a feature that varies less is not blown up
LEAST_OF_INT8 = 0.3  # where features and weights are rounded: the best of 0.01 to 0.3 over four data sets
STEPS = 300


def train_classifier(
    features: NDArray[np.float32], labels: NDArray[np.int64], is_balanced: bool, least: float = LEAST
) -> Classifier:
    """The classifier with the least cross-entropy plus DECAY / 2 times the sum of squared weights.

    features: (N, features); they are standardised first, by at least `least` times the mean deviation. labels: (N,),
    with each class among them. is_balanced: each class counts as much as another, however many pictures it has.
    Nesterov's accelerated gradient, whose step follows from the largest curvature: the problem is convex, so there is
    nothing to tune and nothing random. Raises UserError if the features are not finite.
    """
    if not np.isfinite(features).all():
        raise UserError("the network's features of these pictures are not finite numbers; start from another network")
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    scale = np.maximum(deviation, least * deviation.mean() or 1.0)
    inputs = np.pad((features - mean) / scale, ((0, 0), (0, 1)), constant_values=1.0)  # the last one is of the bias
    sizes = np.bincount(labels)
    shares = 1 / (sizes[labels] * len(sizes)) if is_balanced else np.full(len(labels), 1 / len(labels))
    targets = np.eye(len(sizes))[labels]
    curvature = np.linalg.eigvalsh(inputs.T @ (inputs * shares[:, None]))[-1] / 2 + DECAY
    momentum = (np.sqrt(curvature) - np.sqrt(DECAY)) / (np.sqrt(curvature) + np.sqrt(DECAY))
    weights = np.zeros((len(sizes), inputs.shape[1]))
    ahead = weights
    for _ in range(STEPS):
        errors = (softmax(inputs @ ahead.T) - targets) * shares[:, None]
        before, weights = weights, ahead - (errors.T @ inputs + DECAY * ahead) / curvature
        ahead = weights + momentum * (weights - before)
    weight = weights[:, :-1] / scale
    return Classifier(weight.astype(np.float32), (weights[:, -1] - weight @ mean).astype(np.float32))
