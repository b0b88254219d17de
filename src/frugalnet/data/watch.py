"""Whether a person's pictures may have changed since they were packed, without reading them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from frugalnet.data.container import TABLES, beside
from frugalnet.data.table import MAX_TABLE_BYTES, read_table
from frugalnet.errors import UserError
from frugalnet.files import read_regular
from frugalnet.picture_files import LeftOut, walk


def state(path: Path) -> str:
    """A hash of the name, size and times of each file below a folder, or of an archive, or that a table names.

    Raises UserError if there is nothing at `path`, or if a table can't be read.
    """
    if not path.exists():
        raise UserError(f"data.path {path}: no such folder or file")
    digest = hashlib.sha256()
    for file in _files(path):
        try:
            status = os.stat(file)  # noqa: PTH116
            times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except FileNotFoundError:  # a broken link
            times = (0, 0, 0)
        digest.update(os.fsencode(file) + repr(times).encode())
    return digest.hexdigest()


def _files(path: Path) -> Iterator[str | Path]:
    if path.is_dir():
        yield from walk(path, LeftOut())
        return
    yield path
    if path.suffix.lower() in TABLES:
        for row in read_table(path.name, read_regular(path, MAX_TABLE_BYTES)):
            yield beside(path, row.file)
