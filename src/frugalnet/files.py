"""Files that are either whole or not there."""

import csv
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from frugalnet.errors import UserError
from frugalnet.processes import cores
from frugalnet.schema import Config

C = TypeVar("C", bound=Config)


@contextmanager
def atomic(path: Path, is_new: bool = False) -> Iterator[Path]:
    """Give a temporary path to write a file or fill a folder at; it becomes `path` only if the block ends well.

    One process writes at a time, the others wait. What a killed process left is removed first. A file is flushed to
    the disk before it is renamed. Lack of space raises an OSError that names the path. Raises UserError if `is_new`
    and there already is something at `path`.
    """
    # A folder that is missing inside a partial one was deleted by someone: made again, it would be hollow.
    inside_partial = any(re.search(r"\.\d+\.partial$", folder.name) for folder in path.parents)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with nullcontext() if inside_partial else locked(path), naming(partial):
        if is_new and path.exists():
            raise UserError(f"{path}: already exists; remove it, or name another one")
        for leftover in path.parent.iterdir():
            if re.fullmatch(re.escape(path.name) + r"(\.\d+)?\.partial", leftover.name):
                remove(leftover)
        try:
            yield partial
            if partial.is_dir():
                remove(path)
            else:
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            remove(partial)
            raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, a file `.<name>.lock` beside it; while another process holds it, say which and wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    while True:
        try:
            file = lock.open("ab+", buffering=0)
        except OSError as error:
            error.filename = str(path)  # what the caller knows, in a folder that is missing or read-only
            raise
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                print(
                    f"{path}: waiting for process {file.read().decode() or '?'}, which is writing it", file=sys.stderr
                )
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink == 0:
                continue  # the process that held it has removed the file: lock the new one
            with suppress(OSError):  # on a full disk the number is missing, the lock holds
                file.truncate(0)
                file.write(str(os.getpid()).encode())
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError that says only "no space left" the path that was being written."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            error.filename = str(path)
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
    """Read what `write_json` wrote. Raises UserError if the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_each(array: NDArray[Any], rows: int) -> list[str]:
    """The SHA-256 of each chunk of `rows` rows of a contiguous array, the last one shorter; computed on all cores."""
    parts = [array[start : start + rows] for start in range(0, len(array), rows)]
    with ThreadPoolExecutor(cores()) as threads:  # hashlib releases the GIL
        return list(threads.map(lambda part: hashlib.sha256(part.data).hexdigest(), parts))


def sha256_of(value: Any) -> str:
    """The SHA-256 of a JSON value in its canonical form, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def write_table(path: Path, rows: Sequence[Any]) -> None:
    """Write dictionaries or dataclasses with the same keys as CSV, whole or not at all.

    Floats keep all their digits; None becomes an empty cell.
    """
    plain = [asdict(row) if is_dataclass(row) and not isinstance(row, type) else row for row in rows]
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(plain[0]) if plain else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)


def read_table(path: Path) -> list[dict[str, str]]:
    """Read what `write_table` wrote, every cell as text. Raises UserError if the file is missing or damaged."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("a row is longer or shorter than the header")
    except (FileNotFoundError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from error
    return rows


def read_history(path: Path) -> list[dict[str, float]]:
    """Read a history.csv: one row per epoch, every cell a number. Raises UserError if it is missing or damaged."""
    rows = read_table(path)
    try:
        if not rows:
            raise ValueError("no epochs")
        return [{key: float(value) for key, value in row.items()} for row in rows]
    except ValueError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> UserError:
    """The error of a stage's output that is missing or damaged."""
    return UserError(f"{path}: missing or damaged ({error}); delete it and run `dvc repro`")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The first `most_bytes` + 1 bytes of a file.

    Raises OSError if there is none, or if it is no regular file: a pipe or a device may never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        return file.read(most_bytes + 1)


def read_record(path: Path, kind: type[C]) -> C | None:
    """The record of that class in a JSON file, or None if the file holds null: nothing was measured.

    Raises UserError if the file is missing or damaged.
    """
    try:
        text = path.read_bytes()
        return None if text.strip() == b"null" else kind.model_validate_json(text)
    except (FileNotFoundError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        raise unreadable(path, error) from error
