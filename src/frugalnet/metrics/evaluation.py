"""What the evaluation of one trained network found, as metrics.json holds it."""

from pathlib import Path

from frugalnet.files import read_record, unreadable
from frugalnet.schema import Config


class Metrics(Config):
    """Accuracy, from `accuracy.figures`, and cost, from `counts.counts`, of one network on the validation split."""

    top1: float
    top5: float
    loss: float  # nats
    macro_accuracy: float
    ece: float
    n: int  # images
    parameters_trainable: int
    parameters_keras: int
    macs: int
    weights_bytes: int


def read_metrics(path: Path) -> Metrics:
    """A metrics.json. Raises UserError if it is missing or damaged."""
    metrics = read_record(path, Metrics)
    if metrics is None:
        raise unreadable(path, ValueError("nothing was measured"))
    return metrics
