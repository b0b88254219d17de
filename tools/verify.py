"""Evaluate the committed weights again and compare with the committed results: python -m tools.verify.

Weights are in weights/ and docs/results/RECIPE/weights. Needs the images in data/arrays, as `dvc repro normalise`
leaves them. Top-1, top-5 and the number of correct images of every class must be the same.
"""

from pathlib import Path

import numpy as np

from frugalnet.data import arrays
from frugalnet.data.arrays import Dataset
from frugalnet.errors import UserError, in_one_line
from frugalnet.files import read_json, read_table, sha256_of
from frugalnet.metrics import accuracy, classes
from frugalnet.use import weights
from frugalnet.use.classifier import Classifier
from frugalnet.use.weights import Stored


def record_of(stored: Stored, results: Path) -> Path:
    """The folder of results/RECIPE/NAME that holds the run of these weights. Raises UserError if there is none."""
    for path in sorted(results.glob(f"*/{stored.name}/run.json")):
        if read_json(path)["weights_sha256"] == stored.entry.sha256:
            return path.parent
    raise UserError(f"{stored.path}: no record in {results}/*/{stored.name} is of these weights; commit both together")


def verify(stored: Stored, record: Path, data: Dataset) -> str:
    """What was compared, as a line. Raises UserError if the data or any figure differs."""
    if (found := sha256_of(data.sha256)) != stored.entry.data_sha256:
        raise UserError(
            f"data/arrays holds other images than {stored.name} was evaluated on (SHA-256 {found[:12]}, expected "
            f"{stored.entry.data_sha256[:12]}); run `dvc repro normalise` with the parameters data=full"
        )
    logits = Classifier(stored).logits(data.validation.images).astype(np.float16)  # as `evaluate` stores them
    labels, expected = np.array(data.validation.labels), read_json(record / "metrics.json")
    metrics = accuracy.figures(logits, labels)
    confused = classes.confusion(accuracy.predict(logits), labels, len(data.class_ids))
    correct = [int(row["correct"]) for row in read_table(record / "per_class.csv")]
    compared = {key: (metrics[key], expected[key]) for key in ("top1", "top5")}
    wrong = [f"{key} {found}, expected {stated}" for key, (found, stated) in compared.items() if found != stated]
    if differing := sum(a != b for a, b in zip(confused.diagonal().tolist(), correct, strict=True)):
        wrong.append(f"{differing} of {len(correct)} classes have another number of correct images")
    if wrong:
        raise UserError(f"{stored.name}: {'; '.join(wrong)}; another processor or version of torch can be the cause")
    return f"{stored.name}: top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%}, all classes as in {record}"


def main(root: Path) -> None:
    data = arrays.read_dataset(root / "data/arrays")
    described = [root / "weights/weights.json", *sorted((root / "docs/results").glob("*/weights/weights.json"))]
    for folder in (path.parent for path in described):
        for stored in weights.of_folder(folder):
            print(verify(stored, record_of(stored, root / "docs/results"), data))


if __name__ == "__main__":
    with in_one_line("verify"):
        main(Path())
