"""Files that are either whole or not there."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalnet.errors import UserError
from frugalnet.processes import cores


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path to write a file or fill a folder at; it becomes `path` only if the block ends well.

    A file is flushed to the disk before it is renamed. What a killed process left behind is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    remove(partial)
    try:
        yield partial
        if partial.is_file():
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        else:
            remove(path)
            partial.rename(path)
    except BaseException:
        remove(partial)
        raise


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline, whole or not at all."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises UserError if it isn't there or is something else."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{path}: missing or damaged ({error}); delete it and run `dvc repro`") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_each(array: NDArray[np.uint8], rows: int) -> list[str]:
    """The SHA-256 of each so many rows of a contiguous array, the last of what is left; computed on all cores."""
    parts = [array[start : start + rows] for start in range(0, len(array), rows)]
    with ThreadPoolExecutor(cores()) as threads:  # hashing leaves the interpreter free
        return list(threads.map(lambda part: hashlib.sha256(part.data).hexdigest(), parts))


def sha256_of(value: Any) -> str:
    """The SHA-256 of a JSON value in its canonical form, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def write_table(path: Path, rows: Sequence[Any]) -> None:
    """Write dictionaries or dataclasses as CSV, whole or not at all; floats to their last bit, None as nothing."""
    plain = [asdict(row) if is_dataclass(row) and not isinstance(row, type) else row for row in rows]
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(plain[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, every value as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a history.csv, one an epoch."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
