"""Archives to read, small ones and bad ones, for the tests of the data."""

import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from frugalnet.data.arrays import Dataset, read_dataset
from frugalnet.data.config import NormaliseConfig
from frugalnet.data.normalise import normalise
from frugalnet.data.sample import CLASSES
from frugalnet.errors import UserError

ROOT = "tiny-imagenet-200/"
IDS = [class_id for class_id, _, _ in CLASSES[:3]]
FIRST = f"train/{IDS[0]}/images/{IDS[0]}_2.JPEG"
Members = dict[str, bytes]


def small_members(sample: Path) -> Members:
    """The parts of a right archive of three classes, with four training and two validation images each."""
    with zipfile.ZipFile(sample) as archive:
        parts = {name.removeprefix(ROOT): archive.read(name) for name in archive.namelist()}
    rows = [line for line in parts["val/val_annotations.txt"].decode().splitlines(True) if line.split("\t")[1] in IDS]
    rows = [row for k in IDS for row in [row for row in rows if row.split("\t")[1] == k][:2]]
    kept = {f"train/{k}/images/{k}_{n}.JPEG" for k in IDS for n in (2, 9, 10, 11)} | {"words.txt"}
    kept |= {f"train/{k}/{k}_boxes.txt" for k in IDS} | {f"val/images/{row.split()[0]}" for row in rows}
    return {name: data for name, data in parts.items() if name in kept} | {
        "wnids.txt": "\n".join(IDS).encode(),
        "val/val_annotations.txt": "".join(rows).encode(),
    }


def pack(
    path: Path,
    members: Members | Iterable[tuple[str | zipfile.ZipInfo, bytes]],
    compression: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """A zip of these parts; names are taken relative to the archive's folder unless they come as a ZipInfo."""
    pairs = members.items() if isinstance(members, dict) else members
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # duplicates are meant
        for name, data in pairs:
            archive.writestr(ROOT + name if isinstance(name, str) else name, data)
    return path


def config(**changes: object) -> NormaliseConfig:
    defaults = {
        "name": "tiny",
        "classes": None,
        "train_per_class": None,
        "holdout": 0,
        "side": 64,
        "max_unpacked_bytes": 10_000_000,
    }
    return NormaliseConfig.model_validate(defaults | changes)


def made(archive: Path, processes: int = 1, **changes: object) -> Dataset:
    folder = archive.parent / f"arrays-{processes}"
    normalise(archive, folder, config(**changes), is_sample=True, processes=processes)
    return read_dataset(folder)


def refused(archive: Path, **changes: object) -> str:
    """The one line with which an archive is refused, leaving nothing behind."""
    with pytest.raises(UserError) as error:
        made(archive, **changes)
    assert [path.name for path in archive.parent.iterdir() if path != archive] == []
    assert "\n" not in str(error.value)
    return str(error.value)


def replaced(archive: Path, name: str, change: dict[int, bytes]) -> Path:
    """Overwrite bytes of a member's entry in the directory, by their offset in it."""
    data = bytearray(archive.read_bytes())
    entry = data.rindex(ROOT.encode() + name.encode()) - 46
    assert data[entry : entry + 4] == b"PK\1\2"
    for offset, value in change.items():
        data[entry + offset : entry + offset + len(value)] = value
    archive.write_bytes(data)
    return archive
