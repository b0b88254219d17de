"""Pictures among files: what is below a folder, which of it is a picture, and what is left out and why."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from frugalnet.errors import UserError
from frugalnet.pictures import EXPECTED, HEAD_BYTES, why_no_picture

SYSTEM_FILES = {
    "$recycle.bin",
    "@eadir",
    "#recycle",
    "__macosx",
    "desktop.ini",
    "system volume information",
    "thumbs.db",
}


@dataclass
class LeftOut:
    """What was found and not taken: how many files for each reason, and the first name."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, name)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        """As "left out: 2 files: not a picture (notes.txt, …); 1 file: hidden (.a.jpg)"."""
        parts = [
            f"{count:,} file{'s'[: count > 1]}: {reason} ({self.first[reason]}{', …'[: 3 * (count > 1)]})"
            for reason, count in self.counts.most_common()
        ]
        return f"left out: {'; '.join(parts)}"


def is_systems(name: str) -> bool:
    """Whether a relative path with "/" is hidden, or is what a system adds to folders: __MACOSX, @eaDir, Thumbs.db …"""
    parts = PurePosixPath(name).parts if "/" in name else (name,)
    return any(part.startswith(".") or part.lower() in SYSTEM_FILES for part in parts)


def walk(folder: Path, left_out: LeftOut) -> Iterator[str]:
    """The files below a folder, sorted, whatever they hold, and the empty folders.

    Links are followed, but no folder is entered twice. Raises OSError for a folder that can't be read.
    """
    entered: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        status = os.stat(root)  # noqa: PTH116  # no Path of each file: they would take half of the time
        if (status.st_dev, status.st_ino) in entered:
            left_out.add(root, "a link to a folder that is read already")
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        hidden = {name for name in (*folders, *files) if is_systems(name)}
        for name in sorted(hidden):
            left_out.add(os.path.join(root, name), "hidden, or a system's")  # noqa: PTH118
        folders[:] = sorted(name for name in folders if name not in hidden)
        taken = sorted(name for name in files if name not in hidden)
        if not folders and not taken:
            yield root
        for name in taken:
            yield os.path.join(root, name)  # noqa: PTH118


def _raise(error: OSError) -> None:
    raise error


def find_pictures(names: list[str], left_out: LeftOut) -> Iterator[str | UserError]:
    """The files among `names`, with each folder replaced by the pictures in and below it; "-" is standard input.

    Adds what else is in the folders to `left_out`. What cannot be classified is given as an error, so that the rest
    still can.
    """
    for name in names:
        path = Path(name)
        is_empty = True
        try:
            if name == "-" or not path.is_dir():
                yield name
                continue
            for file in walk(path, left_out):
                if reason := why_not_file(Path(file)):
                    left_out.add(file, reason)
                else:
                    is_empty = False
                    yield file
        except OSError as error:
            yield UserError(f"{error.filename or name}: {error.strerror}")
            continue
        if is_empty:
            yield UserError(f"{name}: no picture in this folder; {EXPECTED}")


def why_not_file(path: Path) -> str | None:
    """Why this file is no picture that can be read; None if it is. Raises OSError if the file can't be read."""
    if not path.is_file():  # a pipe may never end
        return "an empty folder" if path.is_dir() else "not a regular file"
    with path.open("rb", buffering=0) as file:
        return why_no_picture(file.read(HEAD_BYTES))
