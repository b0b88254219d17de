"""How pictures are arranged in a container: class folders, split folders with class folders, or a table."""

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from frugalnet.data.container import TABLES, Container, File
from frugalnet.data.members import natural
from frugalnet.data.table import MAX_TABLE_BYTES, has_columns, read_table
from frugalnet.errors import UserError

Split = Literal["train", "val", "test"]
SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
EXPECTED = (
    "expected a folder for each class; or train and val (or test) with a folder for each class; or metadata.csv or "
    "metadata.jsonl with the columns file and label"
)
CLASS_FOLDERS = "class folders"
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Labelled:
    """A picture's name in its container, its class, its name in that, its file, and its split and group if given.

    `sha256`: of the file's bytes, in hexadecimal, when it has been read.
    """

    name: str
    label: str
    inner: str
    file: File
    split: Split | None = None
    group: str | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Arrangement:
    """`layout`: in words. `pictures`: in natural order; those of a given test split only where they are validated on.

    `validated_on`: as the report says it.
    """

    layout: str
    pictures: list[Labelled]
    validated_on: str = "hold-out of the training split"

    @property
    def is_drawn(self) -> bool:
        """Whether nobody has said which pictures validate."""
        return all(picture.split is None for picture in self.pictures)


def arrange(container: Container) -> Arrangement:
    """What the container's folders or its table say of its files, not all of which need be pictures.

    Adds what is in no folder of a class to the container's `left_out`. Raises UserError, naming the place, for a table
    that contradicts itself or names files that are not there.
    """
    if container.table:
        return Arrangement(f"table {container.table}", list(_of_table(container, container.table, "", None)))
    prefix = _top(container)
    folders = _folders(container, prefix)
    splits = {folder: SPLITS[folder.lower()] for folder in folders if folder.lower() in SPLITS}
    if table := _table(container, prefix):
        return Arrangement(f"table {table}", list(_of_table(container, table, prefix, None)))
    tables = {folder: table for folder in splits if (table := _table(container, f"{prefix}{folder}/"))}
    if tables:
        found = [_of_table(container, table, f"{prefix}{folder}/", splits[folder]) for folder, table in tables.items()]
        return Arrangement("a table in each split folder", [picture for of_split in found for picture in of_split])
    if _are_splits(container, prefix, folders, splits):
        return Arrangement("split folders", list(_of_folders(container, prefix, splits)))
    return Arrangement(CLASS_FOLDERS, list(_of_folders(container, prefix, None)))


def choose_splits(container: Container, arrangement: Arrangement) -> Arrangement:
    """The arrangement with the splits "train" and "val" alone, or with none, to be drawn.

    Adds a test split beside a validation split to `left_out`. Raises UserError where there is no picture to train on.
    """
    given = {picture.split for picture in arrangement.pictures}
    if not given:
        raise UserError(f"data.path {container.path}: no picture in a folder of a class or in a table; {EXPECTED}")
    if given == {None}:
        return arrangement
    if "train" not in given:
        only = ", ".join(sorted(split for split in given if split))
        raise UserError(f"data.path {container.path}: no picture in train, only in {only}; {EXPECTED}")
    pictures = arrangement.pictures
    if "val" in given:
        for picture in pictures:
            if picture.split == "test":
                container.left_out.add(picture.name, "in test, beside val")
        kept = [picture for picture in pictures if picture.split != "test"]
        return replace(arrangement, pictures=kept, validated_on="validation split")
    if "test" in given:
        tested = [replace(picture, split="val") if picture.split == "test" else picture for picture in pictures]
        return replace(arrangement, pictures=tested, validated_on="test split")
    return replace(arrangement, pictures=[replace(picture, split=None) for picture in pictures])


def inner_classes(arrangement: Arrangement) -> list[str]:
    """What to say where classes hold folders of the same names, as seg_train and seg_test do: they may be splits."""
    inner: dict[str, set[str]] = {}
    for picture in arrangement.pictures if arrangement.layout == CLASS_FOLDERS else ():
        if folder := posixpath.basename(posixpath.dirname(picture.inner)):
            inner.setdefault(picture.label, set()).add(folder)
    alike = Counter(tuple(sorted(folders, key=natural)) for folders in inner.values() if len(folders) > 1)
    folders, count = alike.most_common(1)[0] if alike else ((), 0)
    if count < 2:
        return []
    named = ", ".join(folders[:SHOWN]) + (", …" if len(folders) > SHOWN else "")
    return [
        f"{count:,} classes hold folders of the same names ({named}): if these are the classes, name the folders "
        "around them train and val"
    ]


def _top(container: Container) -> str:
    """The folder, "" or with a final "/", that holds classes, splits or table: archives wrap them in others."""
    prefix = ""
    while True:
        folders = _folders(container, prefix)
        if len(folders) != 1 or folders[0].lower() in SPLITS or _table(container, prefix):
            return prefix
        inner = f"{prefix}{folders[0]}/"
        if not _folders(container, inner) and not _table(container, inner):
            return prefix  # a single class
        prefix = inner


def _folders(container: Container, prefix: str) -> list[str]:
    """The folders directly below `prefix`, in the order of the files."""
    inner = (name[len(prefix) :] for name in container.names if name.startswith(prefix))
    return list(dict.fromkeys(name.partition("/")[0] for name in inner if "/" in name))


def _table(container: Container, prefix: str) -> str | None:
    """The table directly below `prefix`, if there is one. Raises UserError if there are several."""
    tables = [
        name
        for name, file in container.files.items()
        if name.startswith(prefix)
        and "/" not in name[len(prefix) :]
        and name.lower().endswith(TABLES)
        and has_columns(name, file.read(1 << 16))
    ]
    if len(tables) > 1:
        raise UserError(f"data.path {container.path}: several tables ({', '.join(tables[:SHOWN])}); name one of them")
    return tables[0] if tables else None


def _are_splits(container: Container, prefix: str, folders: Sequence[str], splits: dict[str, Split]) -> bool:
    """Whether folders called train and val hold folders of classes: `train` may also be a class, beside `car`."""
    train = [folder for folder, split in splits.items() if split == "train"]
    return len(splits) == len(folders) or any(_folders(container, f"{prefix}{folder}/") for folder in train)


def _of_folders(container: Container, prefix: str, splits: dict[str, Split] | None) -> Iterator[Labelled]:
    depth = 1 if splits is None else 2  # of the folders of classes
    for name in container.names:
        parts = name.removeprefix(prefix).split("/") if name.startswith(prefix) else []
        is_inside = len(parts) > depth and (splits is None or parts[0] in splits)
        file = container.files.get(name)
        if is_inside and file:
            split = splits[parts[0]] if splits else None
            yield Labelled(name, parts[depth - 1], "/".join(parts[depth:]), file, split)
        elif is_inside and len(parts) == depth + 1:  # its last part is empty
            raise UserError(f"data.path {container.path}: class {parts[depth - 1]!r} has no picture: an empty folder")
        else:
            reason = file.why_no_picture() if file else "an empty folder"
            container.left_out.add(name, reason or "a picture in no folder of a class")


def _of_table(container: Container, table: str, prefix: str, split: Split | None) -> Iterator[Labelled]:
    file = container.files[table]
    labels: dict[str, str] = {}
    missing: list[str] = []
    for row in read_table(table, file.read(MAX_TABLE_BYTES + 1)):
        where = f"{table}, line {row.number}"
        if not container.table and row.number > 1000 + 2 * len(container.files):
            raise UserError(f"{where}: more lines than there are files, {len(container.files):,}")
        name = row.file if container.table else f"{prefix}{row.file}"
        label = unicodedata.normalize("NFC", row.label)
        if name in labels:
            if labels[name] != label:
                raise UserError(f"{where}: {row.file} is {labels[name]!r} in another line and {label!r} here")
            container.left_out.add(name, "named in several lines")
            continue
        labels[name] = label
        listed = container.find(name)
        if listed is None:
            missing.append(f"{row.file} (line {row.number})")
            continue
        if row.split is not None and row.split.lower() not in SPLITS:
            raise UserError(f"{where}: the split is {row.split!r}; expected one of: {', '.join(SPLITS)}")
        given = SPLITS[row.split.lower()] if row.split is not None else split
        yield Labelled(name, label, row.file, listed, given, row.group)
    if missing:
        more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
        raise UserError(f"{table} names files that are not there: {', '.join(missing[:SHOWN])}{more}")
