"""What the server's "not sure" is worth: python -m benchmarks.sureness [--weights FOLDER], with the full data.

A network is sure where it gives its best class at least a threshold. Prints a Markdown table, the same each time: of
what share of the validation pictures each network is sure, what share of these and of the others it gets right, and of
what share of pictures it is sure that show none of its classes: scikit-learn's handwritten digits.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from frugalnet.data.arrays import read_dataset
from frugalnet.document.wording import percent
from frugalnet.errors import UserError, in_one_line
from frugalnet.metrics.accuracy import expected_calibration_error, predict
from frugalnet.use import weights
from frugalnet.use.runtime import open_stored, softmax
from frugalnet.use.server.api import sure_from

THRESHOLDS = (0.3, 0.4, 0.6, 0.7, 0.8)  # besides the server's
HEADER = ("Network", "Threshold", "Sure", "Right of these", "Of the others", "Sure of digits", "Calibration error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=weights.project_folder(), help="default: weights/")
    data = read_dataset(Path("data/arrays"))
    labels = np.array(data.validation.labels)
    print(f"| {' | '.join(HEADER)} |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for stored in weights.of_folder(parser.parse_args().weights):
        if stored.classes.ids != data.class_ids:
            raise UserError(f"data/arrays: {data.name}, whose classes are not those of {stored.name}")
        network = open_stored(stored)
        logits = network.logits(np.array(data.validation.images))
        strange = network.logits(digits(network.side))
        error = percent(expected_calibration_error(logits, labels))
        for threshold in sorted([*THRESHOLDS, sure_from(len(data.class_ids))]):
            figures = [*shares(logits, labels, threshold), _mean(is_sure(strange, threshold))]
            print(f"| `{stored.name}` | {threshold:.0%} | {' | '.join(figures)} | {error} |", flush=True)


def shares(logits: NDArray[np.float32], labels: NDArray[np.int64], threshold: float) -> list[str]:
    """Of (N, classes) logits: of what share the network is sure, what share of these is right, and of the others."""
    sure = is_sure(logits, threshold)
    right = predict(logits) == labels
    return [_mean(sure), _mean(right[sure]), _mean(right[~sure])]


def is_sure(logits: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    return np.asarray(softmax(logits).max(axis=1) >= threshold)


def _mean(values: NDArray[np.bool_]) -> str:
    return percent(float(values.mean())) if len(values) else "–"


def digits(side: int) -> NDArray[np.uint8]:
    """Handwritten digits, white on black: (1797, side, side, 3)."""
    images = [Image.fromarray((values * 255 / 16).astype(np.uint8)) for values in load_digits().images]
    large = [image.resize((side, side), Image.Resampling.BICUBIC).convert("RGB") for image in images]
    return np.stack([np.asarray(image) for image in large])


if __name__ == "__main__":
    with in_one_line("bench-sureness"):
        main()
