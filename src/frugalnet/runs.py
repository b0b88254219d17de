"""What a training run is: everything that determines its weights, and the files that it leaves."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frugalnet.files import atomic, sha256_of

# The code that decides a run's bits, besides the architecture's own file.
_SOURCES = ("batches.py", "optim.py", "training.py", "models/layers.py")


def source_sha256(model: str) -> str:
    """The SHA-256 of the code that trains `model`: its checkpoints are of no use to other code."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for source in (*_SOURCES, f"models/{model}.py"):
        digest.update((package / source).read_bytes())
    return digest.hexdigest()


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """A name for a run: the SHA-256 of all that its weights depend on."""
    return sha256_of(inputs)


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write one line an epoch, with the columns of the first row; floats to their last bit."""
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_history(path: Path) -> list[dict[str, float]]:
    """What `write_history` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
