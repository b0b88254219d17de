"""Where a person's pictures lie: files of a folder, of a zip or of a tar, read alike."""

import os
import posixpath
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Self

from frugalnet.data.members import DAMAGED, natural, open_archive, read_member
from frugalnet.errors import UserError
from frugalnet.files import naming
from frugalnet.picture_files import LeftOut, is_systems, walk
from frugalnet.pictures import HEAD_BYTES, MAX_BYTES, why_no_picture

TABLES = (".csv", ".jsonl", ".tsv")  # what a file that names pictures is called
UNPACKED = "unpacked.partial."  # how the file is called that a tar is unpacked to
_READ_WHOLE = (b"L", b"K", b"x", b"g", b"X")  # a tar's long names and extended headers
_MAX_HEADER_BYTES = 2**20
_SPARSE = "holds a sparse file; pack it without --sparse"


@dataclass(frozen=True)
class File:
    """A file, or with `member` one of the zip at `path`. Any process can read it."""

    path: str | Path
    member: str | None
    size_bytes: int

    def read(self, most_bytes: int = MAX_BYTES) -> bytes:
        """Its first so many bytes. Raises OSError, or UserError for a damaged member."""
        if self.member is None:
            with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123  # Path.open takes as long again
                return file.read() if most_bytes >= self.size_bytes else file.read(most_bytes)
        return read_member(_opened(self.path), self.member, most_bytes)

    def why_no_picture(self) -> str | None:
        """Why its first bytes are no picture's, or None if they are. Raises as `read` does."""
        return why_no_picture(self.read(HEAD_BYTES))


@lru_cache(maxsize=1)
def _opened(path: str | Path) -> zipfile.ZipFile:
    return open_archive(Path(path))


@dataclass(frozen=True)
class Container:
    """The files by their names, which are relative, have "/", and are in natural order.

    `empty_folders`: their names, each with a final "/".
    `table`: the name of the file that `data.path` names, if it names a table; then files are looked up where it says.
    """

    path: Path
    files: dict[str, File]
    empty_folders: list[str] = field(default_factory=list)
    table: str | None = None
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def names(self) -> list[str]:
        """Of the files and of the empty folders."""
        return [*self.files, *self.empty_folders]

    def find(self, name: str) -> File | None:
        """The file of this name, in any form of Unicode, if it is there."""
        if self.table is None:
            return self.files.get(name) or self.files.get(_plain(name))
        path = beside(self.path, name)
        return File(path, None, path.stat().st_size) if path.is_file() else None


@contextmanager
def open_container(path: Path, max_unpacked_bytes: int, scratch: Path) -> Iterator[Container]:
    """The files below a folder or in an archive, or, for a table, those that it names; hidden ones are left out.

    `scratch`: a folder for what a tar unpacks to. Raises UserError if `path` is none of these, or is damaged.
    """
    for leftover in scratch.glob(f"{UNPACKED}*"):
        leftover.unlink()
    try:
        if path.is_dir():
            yield _folder(path)
        elif not path.is_file():
            raise UserError(f"data.path {path}: no such folder or file")
        elif path.suffix.lower() in TABLES:
            yield Container(path, {path.name: File(path, None, path.stat().st_size)}, table=path.name)
        elif zipfile.is_zipfile(path):
            yield _zip(Container(path, {}), path, max_unpacked_bytes)
        elif _is_tar(path):
            with tempfile.NamedTemporaryFile(dir=scratch, prefix=UNPACKED) as unpacked, naming(scratch):
                container = Container(path, {})
                _unpack(container, unpacked, max_unpacked_bytes)
                yield _zip(container, Path(unpacked.name), max_unpacked_bytes)
        else:
            raise UserError(f"data.path {path}: expected a folder, a zip, a tar, or a table {', '.join(TABLES)}")
    finally:
        _opened.cache_clear()


def beside(table: Path, name: str) -> Path:
    """Where the file is that a table names, which may have been written on Windows or macOS."""
    path = table.parent / name
    return path if path.exists() else table.parent / _plain(name)


def _plain(name: str) -> str:
    """The form of a name in which names are compared: macOS composes letters with accents otherwise."""
    return unicodedata.normalize("NFC", posixpath.normpath(name.replace("\\", "/")))


def _folder(path: Path) -> Container:
    container = Container(path, {})
    found: dict[str, File] = {}
    for file in walk(path, container.left_out):
        if file == str(path):
            continue  # itself empty
        name = unicodedata.normalize("NFC", file[len(str(path)) + 1 :])
        if not name.isascii() and os.fsencode(name).decode(errors="replace") != name:
            raise UserError(f"data.path {file}: the name is not UTF-8; rename the file or folder")
        status = _status(file)
        if stat.S_ISDIR(status.st_mode):
            container.empty_folders.append(f"{name}/")
        elif not stat.S_ISREG(status.st_mode):
            container.left_out.add(name, "a pipe, a device or a broken link")
        elif name in found:
            raise UserError(f"data.path {path}: {name} is there twice, its accents in two forms; rename one")
        else:
            found[name] = File(file, None, status.st_size)
    first = container.left_out.first
    first.update((reason, name.removeprefix(f"{path}/")) for reason, name in first.items())
    for name in sorted(found, key=natural):
        container.files[name] = found[name]
    return container


def _status(file: str) -> os.stat_result:
    """Of what a link leads to; of the link itself if that is nothing."""
    try:
        return os.stat(file)  # noqa: PTH116
    except OSError:
        return os.lstat(file)


def _zip(container: Container, zip_path: Path, max_unpacked_bytes: int) -> Container:
    """The container with the files of a zip: that at its own path, or what a tar there was unpacked to."""
    path = container.path
    members: dict[str, zipfile.ZipInfo] = {}
    unpacked_bytes = 0
    for member in _opened(zip_path).infolist():
        name = _plain(_decoded(member))
        if member.filename.endswith(("/", "\\")):
            container.empty_folders.append(f"{name}/")
        elif is_systems(name) or name.startswith("/"):  # is_systems: also what begins with ".."
            container.left_out.add(name, "hidden, a system's, or outside of the archive's folder")
            container.empty_folders.append(f"{posixpath.dirname(name)}/")
        elif members.setdefault(name, member) is not member:
            raise UserError(f"data.path {path}: names {name} twice")
        else:
            unpacked_bytes += member.file_size
    _bound(path, unpacked_bytes, max_unpacked_bytes)
    full = {folder for name in members for folder in _folders_of(name)}
    container.empty_folders[:] = [
        name for name in container.empty_folders if name not in full and name.strip("/") and not is_systems(name)
    ]
    for name in sorted(members, key=natural):
        container.files[name] = File(zip_path, members[name].filename, members[name].file_size)
    return container


def _folders_of(name: str) -> Iterator[str]:
    """The folders that a file lies in, each with a final "/"."""
    for position, letter in enumerate(name):
        if letter == "/":
            yield name[: position + 1]


def _decoded(member: zipfile.ZipInfo) -> str:
    """A member's name: macOS writes UTF-8 without saying so, which zipfile then takes for cp437."""
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename


def _bound(path: Path, unpacked_bytes: int, max_unpacked_bytes: int) -> None:
    if unpacked_bytes > max_unpacked_bytes:
        raise UserError(
            f"data.path {path}: unpacks to {unpacked_bytes:,} bytes, the bound data.max_unpacked_bytes is "
            f"{max_unpacked_bytes:,}"
        )


class _Header(tarfile.TarInfo):
    """A header in a tar. Alone, tarfile takes a damaged one for the end, and reads a long one of any size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf == bytes(tarfile.BLOCKSIZE):  # the end mark
                raise
            raise tarfile.ReadError(f"{error}, and no end mark") from error
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(_SPARSE)
        if header.type in _READ_WHOLE and header.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a name or header of {header.size:,} bytes")
        return header

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError(_SPARSE)


def _is_tar(path: Path) -> bool:
    try:
        tarfile.open(path, tarinfo=_Header).close()
    except (tarfile.TarError, *DAMAGED, OSError):
        return False
    return True


def _unpack(container: Container, unpacked: IO[bytes], max_unpacked_bytes: int) -> None:
    """Write a tar's files into a zip: a compressed tar can be read in its own order only."""
    path = container.path
    unpacked_bytes = 0
    try:
        with tarfile.open(path, tarinfo=_Header) as tar, zipfile.ZipFile(unpacked, "w") as target:
            for member in tar:
                unpacked_bytes += tarfile.BLOCKSIZE + member.size
                _bound(path, unpacked_bytes, max_unpacked_bytes)
                file = tar.extractfile(member) if member.isreg() or member.islnk() else None
                if file is None:
                    if not member.isdir():
                        container.left_out.add(member.name, "a link or a device in the archive")
                    continue
                with target.open(zipfile.ZipInfo(member.name), "w", force_zip64=True) as copy:
                    while piece := file.read(1 << 20):
                        copy.write(piece)
    except (*DAMAGED, tarfile.TarError, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise UserError(f"data.path {path}: damaged or truncated tar ({error})") from error
