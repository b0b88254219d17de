"""The members of a zip archive, checked, and read in bounded memory."""

import errno
import io
import lzma
import posixpath
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from frugalnet.errors import UserError
from frugalnet.picture_files import is_systems
from frugalnet.pictures import MAX_BYTES

READ_BYTES = 4096  # decompressed at a time: of DEFLATE they inflate to at most 4 MB, of LZMA to 30
STORED_BYTES = 1 << 20  # read at a time of a member that is not compressed, as photographs are packed
MAX_TEXT_BYTES = 2**24  # of a text file; the official archive's largest has 2.6 MB
# What zipfile and its decompressors raise on damaged bytes; so does OSError without a number (bz2).
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    MemoryError,
    OverflowError,
)


def open_archive(archive: Path) -> zipfile.ZipFile:
    """Open a zip archive to read. Raises UserError if it is missing or damaged."""
    try:
        return zipfile.ZipFile(archive)
    except FileNotFoundError:
        raise UserError(f"{archive} is missing; make it: dvc repro download") from None
    except DAMAGED as error:
        raise UserError(f"{archive} is not a readable zip archive ({error}); download it again") from error


def check_members(members: Sequence[zipfile.ZipInfo], max_unpacked_bytes: int) -> list[str]:
    """The names of the files, without those that systems add. Raises UserError, naming the member, if it is odd."""
    for member in members:
        name = member.orig_filename
        kind = stat.S_IFMT(member.external_attr >> 16)
        # Nothing is extracted, but an archive with such members is not the one that is expected.
        if re.search(r"^/|^[A-Za-z]:|\0|(^|[/\\])\.\.([/\\]|$)", name) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{name!r} is a link, a device or a path that leads outside of the archive's folder")
        if "\\" in name:
            raise UserError(
                f"{name!r} has backslashes for folders, against the zip format; pack it with another program"
            )
    refuse_repeated([posixpath.normpath(member.orig_filename) for member in members], "the archive")
    unpacked_bytes = sum(member.file_size for member in members)
    if unpacked_bytes > max_unpacked_bytes:
        largest = max(members, key=lambda member: member.file_size)
        raise UserError(
            f"the archive unpacks to {unpacked_bytes:,} bytes, the bound data.max_unpacked_bytes is "
            f"{max_unpacked_bytes:,}; its largest member is {largest.filename} with {largest.file_size:,}"
        )
    return [member.filename for member in members if not member.is_dir() and not is_systems(member.filename)]


def read_member(zip_file: zipfile.ZipFile, name: str, most_bytes: int = MAX_BYTES) -> bytes:
    """A member's first bytes, never more than it declares: all of it, where `most_bytes` is left out.

    Raises UserError, naming the member, if it is damaged, or if all is asked for and it is larger than any picture.
    Read in small pieces: `ZipFile.read` would inflate all that the member holds before it compares sizes.
    """
    with _reading(name):
        member = zip_file.getinfo(name)
        if most_bytes == MAX_BYTES and member.file_size > MAX_BYTES:
            raise UserError(f"{name}: larger than {MAX_BYTES // 2**20} MiB, which no picture may be")
        piece_bytes = STORED_BYTES if member.compress_type == zipfile.ZIP_STORED else READ_BYTES
        with zip_file.open(name) as file:
            return b"".join(_pieces(file, most_bytes, piece_bytes))


def _pieces(file: IO[bytes], most_bytes: int, piece_bytes: int) -> Iterator[bytes]:
    while most_bytes > 0 and (piece := file.read(min(piece_bytes, most_bytes))):
        most_bytes -= len(piece)
        yield piece


def read_rows(zip_file: zipfile.ZipFile, name: str) -> Iterator[list[str]]:
    """The lines of a text file, one at a time, split at tabs; blank lines, and blanks around the fields, are dropped.

    Raises UserError, naming the file, if it is missing, damaged, no UTF-8 text or larger than 16 MiB.
    """
    with _reading(name):
        size_bytes = zip_file.getinfo(name).file_size
        if size_bytes > MAX_TEXT_BYTES:
            raise UserError(f"{name} has {size_bytes:,} bytes of text, more than {MAX_TEXT_BYTES:,}")
        with zip_file.open(name) as file, io.TextIOWrapper(file, "utf-8-sig") as text:
            for line in text:
                if line.strip():
                    yield [field.strip() for field in line.strip().split("\t")]


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except KeyError:
        raise UserError(f"{name} is missing from the archive") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text: {error}") from error
    except (*DAMAGED, OSError) as error:
        # EINVAL: the archive says that the member begins before the file does.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = str(error) or type(error).__name__
        raise UserError(f"{name} doesn't unpack to what the archive declares ({reason})") from error


def refuse_repeated(values: Sequence[str], where: str) -> None:
    value, count = Counter(values).most_common(1)[0] if values else ("", 0)
    if count > 1:
        raise UserError(f"{where} names {value} twice")


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Orders val_2 before val_10. A number is compared by its digits: `int` refuses more than 4,300 of them."""
    parts = re.split(r"([0-9]+)", name)
    numbers = [part.lstrip("0") for part in parts[1::2]]
    parts[1::2] = numbers
    return [(len(part) if i % 2 else 0, part) for i, part in enumerate(parts)], name
