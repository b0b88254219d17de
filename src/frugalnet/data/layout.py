"""The archive's members, checked: which images there are, of which class, in which order."""

import errno
import lzma
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from frugalnet.data import ROOT
from frugalnet.errors import UserError

READ_BYTES = 4096  # decompressed at a time: of DEFLATE they inflate to at most 4 MB, of LZMA to 30
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


@dataclass(frozen=True)
class Layout:
    """The members of each class's images, in the order of the classes, each list in the images' numeric order."""

    class_ids: list[str]
    class_names: list[str]
    train: list[list[str]]
    validation: list[list[str]]


def read_layout(archive: Path, max_unpacked_bytes: int) -> Layout:
    """Check all members before any image is read.

    The files that macOS and Windows add to folders are passed over. Raises UserError, naming the member.
    """
    with open_archive(archive) as zip_file:
        members = zip_file.infolist()
        _check_members(members, max_unpacked_bytes)
        files = [member.filename for member in members if not member.is_dir() and not _added_by_system(member.filename)]
        _check_top_folder(files)
        class_ids = ["\t".join(row) for row in _rows(zip_file, "wnids.txt")]
        names = _class_names(class_ids, _rows(zip_file, "words.txt"))
        annotations = _annotations(class_ids, _rows(zip_file, "val/val_annotations.txt"))
    return Layout(
        class_ids, names, _train_members(class_ids, files), _validation_members(class_ids, annotations, files)
    )


def choose_images(layout: Layout, classes: int | None, train_per_class: int | None, holdout: int) -> Layout:
    """The first `classes` classes, and the first `train_per_class` training images of each; None means all.

    A `holdout` above 0 replaces the validation images by so many training images: the last ones of each class, the same
    whatever `train_per_class` is. Raises UserError if the archive has fewer.
    """
    classes = classes or len(layout.class_ids)
    if classes > len(layout.class_ids):
        raise UserError(f"data.classes is {classes}, the archive has {len(layout.class_ids)}")
    per_class, remainder = divmod(holdout, classes)
    if remainder:
        raise UserError(f"data.holdout {holdout} is not a multiple of the {classes} classes: it is stratified")
    train = layout.train[:classes]
    validation = layout.validation[:classes]
    for class_id, images in zip(layout.class_ids, train, strict=False):
        wanted = (train_per_class or 1) + per_class
        if wanted > len(images):
            raise UserError(
                f"class {class_id} has {len(images)} training images, "
                f"data.train_per_class and data.holdout ask for {wanted}"
            )
    if per_class:
        validation = [images[-per_class:] for images in train]
        train = [images[:-per_class] for images in train]
    train = [images[:train_per_class] for images in train]
    return Layout(layout.class_ids[:classes], layout.class_names[:classes], train, validation)


def open_archive(archive: Path) -> zipfile.ZipFile:
    """Open a zip archive to read. Raises UserError if it is missing or damaged."""
    try:
        return zipfile.ZipFile(archive)
    except FileNotFoundError:
        raise UserError(f"{archive} is missing; make it: dvc repro download") from None
    except DAMAGED as error:
        raise UserError(f"{archive} is not a readable zip archive ({error}); download it again") from error


def read_member(zip_file: zipfile.ZipFile, name: str) -> bytes:
    """A member's bytes, never more than it declares. Raises UserError, naming the member, if it is damaged.

    Read in small pieces: `ZipFile.read` would inflate all that the member holds before it compares sizes.
    """
    try:
        with zip_file.open(name) as file:
            return b"".join(iter(lambda: file.read(READ_BYTES), b""))
    except KeyError:
        raise UserError(f"{name} is missing from the archive") from None
    except (*DAMAGED, OSError) as error:
        # EINVAL: the archive says that the member begins before the file does.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = str(error) or type(error).__name__
        raise UserError(f"{name} doesn't unpack to what the archive declares ({reason})") from error


def _rows(zip_file: zipfile.ZipFile, file: str) -> list[list[str]]:
    """The lines of a text file, split at tabs; blank lines, and blanks around the fields, are dropped."""
    try:
        text = read_member(zip_file, f"{ROOT}/{file}").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{ROOT}/{file} is not UTF-8 text: {error}") from error
    return [[field.strip() for field in line.strip().split("\t")] for line in text.splitlines() if line.strip()]


def _added_by_system(file: str) -> bool:
    name = file.rpartition("/")[2]
    return file.startswith("__MACOSX/") or name.startswith("._") or name in (".DS_Store", "Thumbs.db")


def _check_members(members: Sequence[zipfile.ZipInfo], max_unpacked_bytes: int) -> None:
    for member in members:
        name = member.orig_filename
        kind = stat.S_IFMT(member.external_attr >> 16)
        # Nothing is extracted, but an archive with such members is not the one that is expected.
        if re.search(r"^/|^[A-Za-z]:|[\\\0]|(^|/)\.\.(/|$)", name) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{name!r} is a link, a device or a path that leads outside of the archive's folder")
    _refuse_repeated([member.orig_filename for member in members], "the archive")
    unpacked_bytes = sum(member.file_size for member in members)
    if unpacked_bytes > max_unpacked_bytes:
        largest = max(members, key=lambda member: member.file_size)
        raise UserError(
            f"the archive unpacks to {unpacked_bytes:,} bytes, the bound data.max_unpacked_bytes is "
            f"{max_unpacked_bytes:,}; its largest member is {largest.filename} with {largest.file_size:,}"
        )


def _check_top_folder(files: Sequence[str]) -> None:
    folders = sorted({file.partition("/")[0] for file in files})
    if ROOT not in folders:
        names = ", ".join(map(repr, folders[:3])) + (", …" if len(folders) > 3 else "")
        raise UserError(f"the archive's top folder is {names or 'missing: it is empty'}; expected '{ROOT}'")


def _class_names(class_ids: Sequence[str], words: Iterable[Sequence[str]]) -> list[str]:
    """The first name of each class in the rows of words.txt."""
    if not class_ids:
        raise UserError(f"{ROOT}/wnids.txt names no class")
    _refuse_repeated(class_ids, f"{ROOT}/wnids.txt")
    names = {row[0]: row[1].split(",")[0].strip() for row in words if len(row) > 1}
    for class_id in class_ids:
        if not names.get(class_id):
            raise UserError(f"class {class_id} of wnids.txt has no name in {ROOT}/words.txt")
    return [names[class_id] for class_id in class_ids]


def _annotations(class_ids: Iterable[str], rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """The class of each validation image, by file name."""
    classes = set(class_ids)
    for row in rows:
        if len(row) < 2:
            raise UserError(f"{ROOT}/val/val_annotations.txt: expected a file, a tab and a class, found {row[0]!r}")
        if row[1] not in classes:
            raise UserError(f"{ROOT}/val/val_annotations.txt gives {row[0]} the class {row[1]}, not in wnids.txt")
    _refuse_repeated([row[0] for row in rows], f"{ROOT}/val/val_annotations.txt")
    return {row[0]: row[1] for row in rows}


def _train_members(class_ids: Sequence[str], files: Iterable[str]) -> list[list[str]]:
    members: dict[str, list[str]] = {class_id: [] for class_id in class_ids}
    for file in files:
        match PurePosixPath(file).parts:
            case (_, "train", class_id, *rest) if file.startswith(f"{ROOT}/") and rest:
                if class_id not in members:
                    raise UserError(f"{file} is of class {class_id}, not in {ROOT}/wnids.txt")
                if len(rest) == 2 and rest[0] == "images":
                    members[class_id].append(file)
                elif rest != [f"{class_id}_boxes.txt"]:
                    raise UserError(f"{file} is unexpected, images lie in {ROOT}/train/{class_id}/images/")
    if not any(members.values()):
        raise UserError(f"the training split is empty: no image under {ROOT}/train/")
    for class_id, images in members.items():
        if not images:
            raise UserError(f"class {class_id} of wnids.txt has no image under {ROOT}/train/{class_id}/images/")
    return [sorted(images, key=_natural) for images in members.values()]


def _validation_members(class_ids: Sequence[str], annotations: dict[str, str], files: Iterable[str]) -> list[list[str]]:
    prefix = f"{ROOT}/val/images/"
    images = {file.removeprefix(prefix) for file in files if file.startswith(prefix)}
    if not images:
        raise UserError(f"the validation split is empty: no image under {prefix}")
    if unannotated := images - annotations.keys():
        raise UserError(f"{prefix}{min(unannotated, key=_natural)} has no line in {ROOT}/val/val_annotations.txt")
    if missing := annotations.keys() - images:
        raise UserError(f"{prefix}{min(missing, key=_natural)} is missing, {ROOT}/val/val_annotations.txt names it")
    members: dict[str, list[str]] = {class_id: [] for class_id in class_ids}
    for image in sorted(images, key=_natural):
        members[annotations[image]].append(prefix + image)
    for class_id, of_class in members.items():
        if not of_class:
            raise UserError(f"class {class_id} of wnids.txt has no line in {ROOT}/val/val_annotations.txt")
    return list(members.values())


def _refuse_repeated(values: Sequence[str], where: str) -> None:
    value, count = Counter(values).most_common(1)[0] if values else ("", 0)
    if count > 1:
        raise UserError(f"{where} names {value} twice")


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Orders val_2 before val_10. A number is compared by its digits: `int` refuses more than 4,300 of them."""
    parts = re.split(r"([0-9]+)", name)
    numbers = [part.lstrip("0") for part in parts[1::2]]
    parts[1::2] = numbers
    return [(len(part) if i % 2 else 0, part) for i, part in enumerate(parts)], name
