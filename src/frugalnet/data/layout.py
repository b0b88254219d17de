"""The archive's members, checked: which images there are, of which class, in which order."""

import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from frugalnet.data import DESCRIPTION, ROOT
from frugalnet.data.members import check_members, natural, open_archive, read_member, read_rows, refuse_repeated
from frugalnet.errors import UserError


@dataclass(frozen=True)
class Layout:
    """The members of each class's images, in the order of the classes, each list in the images' numeric order.

    `validated_on`: what the validation images are. `is_packed`: by `pack`, from a person's own pictures.
    """

    class_ids: list[str]
    class_names: list[str]
    train: list[list[str]]
    validation: list[list[str]]
    validated_on: str = "validation split"
    is_packed: bool = False


def read_layout(archive: Path, max_unpacked_bytes: int) -> Layout:
    """Check all members before any image is read: of Tiny ImageNet's archive, or of one that `pack` has written.

    The files that macOS and Windows add to folders are passed over. Raises UserError, naming the member.
    """
    with open_archive(archive) as zip_file:
        files = check_members(zip_file.infolist(), max_unpacked_bytes)
        if DESCRIPTION in files:
            return _packed_layout(zip_file, files)
        _check_top_folder(files)
        # Each class and each validation image has a file: a list with more of them is wrong, and need not be read on.
        class_ids = ["\t".join(row) for row in _at_most(len(files), zip_file, "wnids.txt")]
        names = _class_names(class_ids, read_rows(zip_file, f"{ROOT}/words.txt"))
        annotations = _annotations(class_ids, _at_most(len(files), zip_file, "val/val_annotations.txt"))
    return Layout(
        class_ids, names, _train_members(class_ids, files), _validation_members(class_ids, annotations, files)
    )


def _at_most(count: int, zip_file: zipfile.ZipFile, file: str) -> list[list[str]]:
    rows = list(islice(read_rows(zip_file, f"{ROOT}/{file}"), count + 1))
    if len(rows) > count:
        raise UserError(f"{ROOT}/{file} has more lines than the archive has files, {count:,}")
    return rows


def _packed_layout(zip_file: zipfile.ZipFile, files: Iterable[str]) -> Layout:
    """`train/<class>/<file>` and `val/<class>/<file>`, each part `quoted`."""
    members: dict[str, dict[str, list[str]]] = {"train": {}, "val": {}}
    for file in sorted(files, key=natural):
        split, _, inner = file.partition("/")
        label, _, name = inner.partition("/")
        if split in members and label and name:
            members[split].setdefault(unquote(label), []).append(file)
        elif file != DESCRIPTION:
            raise UserError(f"{file} is unexpected beside {DESCRIPTION}: images lie in train/<class>/ and val/<class>/")
    if odd := members["train"].keys() ^ members["val"].keys():
        raise UserError(f"class {min(odd)} has images in one of train/ and val/ only")
    labels = sorted(members["train"], key=natural)
    train, validation = ([of_split[label] for label in labels] for of_split in members.values())
    return Layout(labels, labels, train, validation, _validated_on(zip_file), is_packed=True)


def _validated_on(zip_file: zipfile.ZipFile) -> str:
    try:
        validated_on = json.loads(read_member(zip_file, DESCRIPTION))["validated_on"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{DESCRIPTION} does not say what the validation images are; pack them again") from error
    return str(validated_on)


def quoted(part: str) -> str:
    """A class's or a file's name as a part of a member's path: what has a meaning in paths is percent-encoded."""
    return re.sub(r"[%/\\\x00-\x1f\x7f]|^\.+", lambda match: quote(match[0], safe="").replace(".", "%2E"), part)


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
    return replace(
        layout,
        class_ids=layout.class_ids[:classes],
        class_names=layout.class_names[:classes],
        train=train,
        validation=validation,
        validated_on="hold-out of the training split" if per_class else layout.validated_on,
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
    refuse_repeated(class_ids, f"{ROOT}/wnids.txt")
    wanted = set(class_ids)
    names = {row[0]: row[1].split(",")[0].strip() for row in words if len(row) > 1 and row[0] in wanted}
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
    refuse_repeated([row[0] for row in rows], f"{ROOT}/val/val_annotations.txt")
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
    return [sorted(images, key=natural) for images in members.values()]


def _validation_members(class_ids: Sequence[str], annotations: dict[str, str], files: Iterable[str]) -> list[list[str]]:
    prefix = f"{ROOT}/val/images/"
    images = {file.removeprefix(prefix) for file in files if file.startswith(prefix)}
    if not images:
        raise UserError(f"the validation split is empty: no image under {prefix}")
    if unannotated := images - annotations.keys():
        raise UserError(f"{prefix}{min(unannotated, key=natural)} has no line in {ROOT}/val/val_annotations.txt")
    if missing := annotations.keys() - images:
        raise UserError(f"{prefix}{min(missing, key=natural)} is missing, {ROOT}/val/val_annotations.txt names it")
    members: dict[str, list[str]] = {class_id: [] for class_id in class_ids}
    for image in sorted(images, key=natural):
        members[annotations[image]].append(prefix + image)
    for class_id, of_class in members.items():
        if not of_class:
            raise UserError(f"class {class_id} of wnids.txt has no line in {ROOT}/val/val_annotations.txt")
    return list(members.values())
