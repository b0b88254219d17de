"""Anyone's pictures, in every layout and with every known trap, as the archive that the pipeline reads."""

import csv
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tracemalloc
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from archives import config
from PIL import Image

from frugalnet.config import DataConfig
from frugalnet.data import examine
from frugalnet.data.arrays import Dataset, read_dataset
from frugalnet.data.config import FolderConfig
from frugalnet.data.copies import NearCopies, NearCopy, copies_between, near_copies
from frugalnet.data.layout import Layout, read_layout
from frugalnet.data.normalise import normalise
from frugalnet.data.pack import pack
from frugalnet.data.watch import state
from frugalnet.errors import UserError
from frugalnet.files import read_record
from frugalnet.pictures import open_file

FOLDER = {"path": "x", "holdout_share": 0.2, "leaks": "error", "watched": ["folder"], "known_by": "watched"}
CLASSES = ("bolt", "nut")
COLOURS = {"bolt": (200, 40, 40), "nut": (40, 40, 200)}
Files = dict[str, bytes]
BOUND = 10_000_000  # bytes, unpacked


def picture(label: str, number: int, kind: str = "PNG", size: tuple[int, int] = (64, 64), **options: object) -> bytes:
    """A small picture of a class's colour, another for each number."""
    image = np.full((*size[::-1], 3), COLOURS.get(label, (90, 160, 90)), np.uint8)
    image[: 8 + number % 40, : 8 + number // 40] = 255
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def class_folders(count: int = 10, labels: tuple[str, ...] = CLASSES) -> Files:
    return {f"{label}/{number}.png": picture(label, number) for label in labels for number in range(count)}


def split_folders(validation: str = "val", count: int = 10) -> Files:
    return {
        f"{split}/{label}/{number}.png": picture(label, number)
        for label in CLASSES
        for number in range(count)
        for split in ["train" if number < 0.8 * count else validation]
    }


def table(rows: list[dict[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def write(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: Files) -> Path:
    with tarfile.open(path, f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w") as archive:
        for name, data in reversed(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def packed(path: Path, processes: int = 1, **changes: object) -> Path:
    archive = path.parent / f"{path.name}.packed"
    pack(FolderConfig.model_validate(FOLDER | changes), BOUND, path, archive, processes)
    return archive


def layout(path: Path, processes: int = 1, **changes: object) -> Layout:
    return read_layout(packed(path, processes, **changes), BOUND)


def contents(archive: Path) -> Files:
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


def counts(found: Layout) -> dict[str, tuple[int, int]]:
    splits = zip(found.class_ids, found.train, found.validation, strict=True)
    return {label: (len(train), len(validation)) for label, train, validation in splits}


def refused(path: Path, **changes: object) -> str:
    """The one line with which pictures are refused, leaving nothing behind."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(UserError) as error:
        packed(path, **changes)
    assert sorted(path.parent.iterdir()) == before
    assert "\n" not in str(error.value)
    return str(error.value)


# Layouts


def rows_of(files: Files, **columns: Callable[[str], object]) -> list[dict[str, object]]:
    return [{name: column(file) for name, column in columns.items()} for file in files]


def label_of(name: str) -> str:
    return next(part for part in name.split("/") if part in CLASSES)


FLAT = {name.replace("/", "_"): data for name, data in class_folders().items()}
LABELS = table([{"file": name, "label": name.split("_")[0]} for name in FLAT])
LINES = "".join(json.dumps({"file_name": name, "label": name.split("_")[0]}) + "\n" for name in FLAT).encode()
DRAWN: dict[str, Files] = {
    "class folders": class_folders(),
    "class folders with subfolders": {name.replace("/", "/2024/a/"): data for name, data in class_folders().items()},
    "in a folder": {f"parts/v1/{name}": data for name, data in class_folders().items()} | {"parts/README.md": b"Parts"},
    "a train folder only": {f"train/{name}": data for name, data in class_folders().items()},
    "metadata.csv": FLAT | {"metadata.csv": LABELS},
    "metadata.jsonl": FLAT | {"metadata.jsonl": LINES},
    "a table in a folder": {f"set/{name}": data for name, data in (FLAT | {"labels.csv": LABELS}).items()},
}
GIVEN: dict[str, Files] = {
    **{f"train and {name}": split_folders(name) for name in ("val", "valid", "validation", "Test")},
    "capitals": {name.title().replace("Png", "PNG"): data for name, data in split_folders().items()},
    "with a test split": split_folders() | {f"test/{label}/t.png": picture(label, 77) for label in CLASSES},
    "with an unlabelled test split": split_folders() | {"test/t.png": picture("", 77)},
    "a split column": {name.replace("/", "_"): data for name, data in split_folders().items()}
    | {
        "metadata.csv": table(
            [
                {"file_name": name.replace("/", "_"), "label": label_of(name), "split": name.split("/")[0].title()}
                for name in split_folders("valid")
            ]
        ).replace(b"valid_", b"val_")
    },
    "a table in each split": {
        name.replace("/b", "/x/b").replace("/n", "/x/n"): d for name, d in split_folders().items()
    }
    | {
        f"{split}/metadata.csv": table(
            [
                {"file_name": "x/" + name.split("/", 1)[1], "label": label_of(name)}
                for name in split_folders()
                if name.startswith(split)
            ]
        )
        for split in ("train", "val")
    },
}


@pytest.mark.parametrize("case", DRAWN)
def test_of_pictures_without_splits_some_of_each_class_are_held_out(case: str, tmp_path: Path) -> None:
    found = layout(write(tmp_path / "mine", DRAWN[case]))
    assert found.class_ids == found.class_names == [*CLASSES]
    assert found.validated_on == "hold-out of the training split"
    for train, validation in counts(found).values():
        assert train + validation == 10
        assert 1 <= validation <= 5
    # The same pictures, whatever the layout.
    files = contents(tmp_path / "mine.packed")
    held = {data for name, data in files.items() if name.startswith("val/")}
    plain = contents(packed(write(tmp_path / "plain", class_folders())))
    assert held == {data for name, data in plain.items() if name.startswith("val/")}


@pytest.mark.parametrize("case", GIVEN)
def test_given_splits_are_kept(case: str, tmp_path: Path) -> None:
    found = layout(write(tmp_path / "mine", GIVEN[case]))
    assert [label.lower() for label in found.class_ids] == [*CLASSES]
    assert list(counts(found).values()) == [(8, 2), (8, 2)]
    assert found.validated_on == ("test split" if case == "train and Test" else "validation split")


@pytest.mark.parametrize("case", [*DRAWN, *GIVEN])
def test_an_archive_of_the_same_files_gives_the_same_bytes(case: str, tmp_path: Path) -> None:
    files = (DRAWN | GIVEN)[case]
    expected = packed(write(tmp_path / "mine", files)).read_bytes()
    assert packed(zipped(tmp_path / "mine.zip", files)).read_bytes() == expected
    assert packed(tarred(tmp_path / "mine.tar.gz", files)).read_bytes() == expected
    assert packed(
        zipped(tmp_path / "wrapped.zip", {f"a/{name}": data for name, data in files.items()})
    ).read_bytes() == (expected)


def test_a_table_is_read_where_it_lies(tmp_path: Path) -> None:
    write(tmp_path, {f"photos/{name}": data for name, data in FLAT.items()} | {"photos/unlisted.png": picture("", 50)})
    rows = [{"file": f"photos/{name}", "label": name.split("_")[0]} for name in FLAT]
    (tmp_path / "labels.csv").write_bytes(table(rows))
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "german.csv").write_bytes(
        b"\xef\xbb\xbf" + table(rows).replace(b",", b";").replace(b"label", b"Label ")
    )
    (tmp_path / "windows.csv").write_bytes(table(rows).replace(b"photos/", b"photos\\"))
    for name in ("labels.csv", "labels.jsonl", "german.csv", "windows.csv"):
        assert sum(sum(pair) for pair in counts(layout(tmp_path / name)).values()) == len(FLAT)


def test_the_archive_holds_the_files_own_bytes_sorted_and_without_times(tmp_path: Path) -> None:
    files = class_folders() | {"bolt/photo.JPG": picture("bolt", 11, "JPEG")}
    archive = packed(write(tmp_path / "mine", files))
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
    names = [member.filename for member in members][1:]
    assert names == sorted(names)
    assert {name.split("/", 1)[1]: data for name, data in contents(archive).items() if "/" in name} == files
    os.utime(tmp_path / "mine/bolt/photo.JPG", (1, 1))
    assert packed(tmp_path / "mine").read_bytes() == archive.read_bytes()


# The hold-out


def test_adding_pictures_moves_none(tmp_path: Path) -> None:
    few = contents(packed(write(tmp_path / "few", class_folders(40))))
    many = contents(packed(write(tmp_path / "many", class_folders(400))))
    assert few.keys() <= many.keys()
    for label in CLASSES:
        held = sum(name.startswith(f"val/{label}/") for name in many)
        assert 50 < held < 110  # a fifth of 400, and four standard deviations


def test_small_classes_have_a_picture_in_each_split(tmp_path: Path) -> None:
    labels = tuple(f"class {number}" for number in range(60))
    files = {f"{label}/{n}.png": picture(label, 3 * k + n) for k, label in enumerate(labels) for n in range(3)}
    found = layout(write(tmp_path / "mine", files))
    assert found.class_ids == [*labels]  # 2 before 10
    assert all(train >= 1 and validation >= 1 for train, validation in counts(found).values())


def test_a_group_is_held_out_as_a_whole_and_stays_where_it_is(tmp_path: Path) -> None:
    def split_of_groups(count: int, name: str) -> dict[str, set[str]]:
        files = {name.replace("/", "_"): data for name, data in class_folders(count).items()}
        rows = [
            {"file": f, "label": f.split("_")[0], "group": f"{f[0]}{int(f.split('_')[1][:-4]) % 20}"} for f in files
        ]
        archive = packed(write(tmp_path / name, files | {"metadata.csv": table(rows)}))
        groups: dict[str, set[str]] = {}
        for member in contents(archive):
            for row in rows:
                if member.endswith(f"/{row['file']}"):
                    groups.setdefault(str(row["group"]), set()).add(member.split("/")[0])
        return groups

    few, many = split_of_groups(40, "few"), split_of_groups(80, "many")
    assert few == many
    assert set(map(len, few.values())) == {1}
    assert {split for splits in few.values() for split in splits} == {"train", "val"}


# Leaks


def leaking() -> Files:
    return split_folders() | {"val/bolt/again.png": picture("bolt", 3)}


def test_equal_pictures_in_both_splits_are_refused_by_name(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "mine", leaking()))
    assert "1 training pictures have the bytes or the group" in message
    assert "train/bolt/3.png and val/bolt/again.png" in message
    assert "-S data.leaks=drop" in message


def test_or_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert counts(layout(write(tmp_path / "mine", leaking()), leaks="keep")) == {"bolt": (8, 3), "nut": (8, 2)}
    assert "  1 training pictures have the bytes" in capsys.readouterr().out


def test_several_processes_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "CHUNK", 5)
    files = class_folders() | {"nut/cut.jpg": picture("nut", 1, "JPEG")[:-20]}
    expected = packed(write(tmp_path / "mine", files)).read_bytes()
    assert packed(tarred(tmp_path / "a.tar.xz", files), processes=2).read_bytes() == expected


def test_or_left_out_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = layout(write(tmp_path / "mine", leaking()), leaks="drop")
    assert counts(found) == {"bolt": (7, 3), "nut": (8, 2)}
    assert "left out of training: 1 training pictures" in capsys.readouterr().out


def test_a_group_in_both_given_splits_is_refused(tmp_path: Path) -> None:
    rows = [
        {"file": name, "label": label_of(name), "split": name.split("/")[0], "group": name.split("/")[2]}
        for name in split_folders()
    ]
    rows[0]["group"] = rows[-1]["group"]
    message = refused(write(tmp_path / "mine", split_folders() | {"metadata.csv": table(rows)}))
    assert "have the bytes or the group of a validation picture: train/bolt/0.png and val/nut/9.png" in message


def test_equal_pictures_in_two_classes_and_in_one_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"nut/same.png": picture("bolt", 3), "nut/twice.png": picture("nut", 4)}
    packed(write(tmp_path / "mine", class_folders() | more))
    said = capsys.readouterr().out
    assert "1 pictures stand in several classes, as bolt/3.png and nut/same.png" in said
    assert "1 pictures are there more than once in their class, as nut/4.png and nut/twice.png" in said


# Traps


def test_what_was_found_is_printed_with_what_is_left_out_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = split_folders() | {
        "train/bolt/notes.txt": b"notes",
        "train/bolt/list.txt": b"list",
        "train/nut/small.png": picture("nut", 1, size=(4, 4)),
        "train/nut/cut.jpg": picture("nut", 1, "JPEG")[:-20],
        "train/nut/photo.heic": b"\0\0\0\x18ftypheic" + bytes(20),
        "train/loose.png": picture("", 60),
        "train/nut/.hidden/x.png": picture("", 61),
        "train/bolt/._0.png": b"\0\5\x16\7",
        "test/nut/t.png": picture("", 62),
    }
    packed(write(tmp_path / "mine", files))
    said = capsys.readouterr().out
    assert f"{tmp_path / 'mine'}: split folders, 2 classes, 16 pictures to train on and 4 to validate on" in said
    assert re.search(r"bolt +8 +2\n", said)
    for reason in (
        "2 files: not a picture (train/bolt/list.txt, …)",
        "1 file: 4×4 pixels are too few; expected at least 8 a side (train/nut/small.png)",
        "1 file: truncated JPEG picture (train/nut/cut.jpg)",
        "1 file: a picture in no folder of a class (train/loose.png)",
        "1 file: in test, beside val (test/nut/t.png)",
        "2 files: hidden, or a system's (",
        " HEIC picture" if not has_heif() else "photo.heic",
    ):
        assert reason in said


def has_heif() -> bool:
    from importlib.util import find_spec

    return find_spec("pi_heif") is not None


@pytest.mark.parametrize(
    "name",
    [
        "__MACOSX/bolt/._1.png",
        ".git/x.png",
        "@eaDir/bolt/1.png",
        "desktop.ini",
        "Thumbs.db",
        ".DS_Store",
        "bolt/._1.png",
    ],
)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_what_systems_add_is_neither_a_class_nor_a_picture(name: str, form: str, tmp_path: Path) -> None:
    files = class_folders() | {name: picture("", 70)}
    path = write(tmp_path / "mine", files) if form == "folder" else zipped(tmp_path / "mine.zip", files)
    assert packed(path).read_bytes() == packed(write(tmp_path / "clean", class_folders())).read_bytes()


def test_pictures_are_known_by_content_whatever_their_suffix(tmp_path: Path) -> None:
    kinds = {
        "a.jfif": "JPEG",
        "b.jpe": "JPEG",
        "c.JPG": "JPEG",
        "d.avif": "AVIF",
        "e.webp": "WEBP",
        "f": "PNG",
        "g.dat": "BMP",
    }
    kinds |= {"h.ppm": "PPM", "i.TIF": "TIFF", "j.gif": "GIF"}
    more = {f"bolt/{name}": picture("bolt", 20 + k, kind) for k, (name, kind) in enumerate(kinds.items())}
    names = {name.rpartition("/")[2] for name in contents(packed(write(tmp_path / "mine", class_folders() | more)))}
    assert kinds.keys() <= names


def odd_pictures() -> Files:
    """Of each kind that needs more than decoding, one of the arrays' size and one larger."""
    turned = Image.Exif()
    turned[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    files: Files = {}
    for side in (64, 150):
        image = Image.fromarray(pixels).resize((side, side))
        deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        made: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
            "animated.gif": (image, "GIF", {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}),
            "animated.webp": (image, "WEBP", {"save_all": True, "append_images": [image.rotate(90)]}),
            "cmyk.jpg": (image.convert("CMYK"), "JPEG", {}),
            "deep.png": (deep, "PNG", {}),
            "deep.tif": (deep, "TIFF", {}),
            "grey.jpg": (image.convert("L"), "JPEG", {}),
            "turned.jpg": (image, "JPEG", {"exif": turned}),
            "turned.png": (image, "PNG", {"exif": turned}),
            "pages.tif": (image, "TIFF", {"save_all": True, "append_images": [image.rotate(90)]}),
        }
        for name, (picture, kind, options) in made.items():
            file = io.BytesIO()
            picture.save(file, kind, **options)
            files[f"{side} {name}"] = file.getvalue()
    return files


def test_odd_pictures_become_the_arrays_that_predict_sees(tmp_path: Path) -> None:
    files = odd_pictures()
    given = {f"train/{label}/{name}": data for label in CLASSES for name, data in files.items()}
    given |= {f"val/{label}/0.png": picture(label, 0) for label in CLASSES}
    archive = packed(write(tmp_path / "mine", given))
    normalise(archive, tmp_path / "arrays", config(), is_sample=False, processes=1)
    images = read_dataset(tmp_path / "arrays").train.images
    names = [member.rpartition("/")[2] for of_class in read_layout(archive, BOUND).train for member in of_class]
    for name, image in zip(names, images, strict=True):
        assert np.array_equal(image, open_file(str(tmp_path / "mine/train/bolt" / name)).pixels), name
    taken = {name: image.astype(int) for name, image in zip(names, images, strict=True)}
    plain = taken["64 pages.tif"]
    assert np.array_equal(taken["64 turned.png"], np.rot90(plain, -1))
    for name in ("animated.gif", "animated.webp", "cmyk.jpg"):
        assert np.abs(taken[f"64 {name}"] - plain).mean() < 10, name


def test_1200_classes_are_packed_and_the_printed_table_stays_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        f"kind {k}/{n}.png": picture("", 2 * k + n, size=(9, 8)) + bytes([n, k % 256, k // 256])
        for k in range(1200)
        for n in range(2)
    }
    found = layout(zipped(tmp_path / "mine.zip", files))
    assert found.class_ids == [f"kind {k}" for k in range(1200)]
    assert set(counts(found).values()) == {(1, 1)}
    said = capsys.readouterr().out.splitlines()
    assert len(said) < 50
    assert "… 1,160 more classes; of all, 1 to 1 to train on, median 1" in said[-1]


def test_splits_under_other_names_are_classes_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"seg_train/{name}": data for name, data in class_folders(8).items()}
    files |= {
        f"seg_test/{name.replace('/', '/t')}": picture(label_of(name), 50 + n)
        for n, name in enumerate(class_folders(3))
    }
    found = layout(write(tmp_path / "mine", files | {f"seg_pred/{n}.png": picture("", 90 + n) for n in range(3)}))
    assert found.class_ids == ["seg_pred", "seg_test", "seg_train"]
    said = (
        "2 classes hold folders of the same names (bolt, nut): if these are the classes, name the folders around them "
        "train and val"
    )
    assert said in capsys.readouterr().out
    packed(write(tmp_path / "clear", {name.replace("/", "/images/"): data for name, data in class_folders().items()}))
    assert "of the same names" not in capsys.readouterr().out


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    found = layout(write(tmp_path / "mine", class_folders(labels=("car", "train", "test"))))
    assert found.class_ids == ["car", "test", "train"]


SCRIPTS = ("гайка", "ボルト", "écrou", "a & b; rm -rf ~", "50%", "con:", "back\\slash", "-S", "…")


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_names_in_any_script_are_kept(form: str, tmp_path: Path) -> None:
    labels = SCRIPTS if form == "folder" else tuple(name for name in SCRIPTS if "\\" not in name)
    files = {f"{label}/ß {n}.png": picture(label, 10 * k + n) for k, label in enumerate(labels) for n in range(3)}
    path = {
        "folder": lambda: write(tmp_path / "mine", files),
        "zip": lambda: zipped(tmp_path / "mine.zip", files),
        "tar": lambda: tarred(tmp_path / "mine.tar", files),
    }[form]()
    assert sorted(layout(path).class_ids) == sorted(unicodedata.normalize("NFC", label) for label in labels)


def test_a_table_may_hold_any_label(tmp_path: Path) -> None:
    labels = ("a/b", "..", ".hidden", "C:", "x\ty", "日本", "7")
    files = {f"{k}_{n}.png": picture("", 10 * k + n) for k in range(len(labels)) for n in range(3)}
    rows = [{"file": name, "label": labels[int(name[0])]} for name in files]
    found = layout(write(tmp_path / "mine", files | {"metadata.csv": table(rows)}))
    assert sorted(found.class_ids) == sorted(labels)


def test_accents_composed_in_two_ways_are_the_same(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "écrou") for form in ("NFC", "NFD"))
    files = {f"train/{composed}/{n}.png": picture("", n) for n in range(4)} | {f"val/{apart}/9.png": picture("", 9)}
    found = layout(write(tmp_path / "mine", split_folders() | files))
    assert composed in found.class_ids
    flat = {apart + ".png": picture("", 50), **FLAT}
    rows = [{"file": name, "label": "bolt" if name[0] == "b" else "nut"} for name in FLAT]
    listed = table([*rows, {"file": f"{composed}.png", "label": "nut"}])
    assert layout(zipped(tmp_path / "a.zip", flat | {"metadata.csv": listed})).class_ids == [*CLASSES]


def test_a_macs_zip_that_does_not_say_that_its_names_are_utf8_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {f"гайка/{n}.png": picture("", n) for n in range(5)} | class_folders())
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for match in re.finditer(re.escape(signature), bytes(data)):
            data[match.start() + offset + 1] &= ~0x08
    path.write_bytes(data)
    assert "гайка" in layout(path).class_ids


def test_a_zip_with_backslashes_is_read(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "a.zip", {f"parts\\{name.replace('/', chr(92))}": d for name, d in class_folders().items()}
    )
    assert packed(path).read_bytes() == packed(write(tmp_path / "mine", class_folders())).read_bytes()


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "elsewhere", {f"{n}.png": picture("", n) for n in range(5)})
    mine = write(tmp_path / "mine", class_folders())
    (mine / "linked").symlink_to(tmp_path / "elsewhere")
    (mine / "bolt/loop").symlink_to(mine)
    (mine / "bolt/gone.png").symlink_to("nowhere")
    (mine / "bolt/zero.png").symlink_to("/dev/zero")
    (mine / "bolt/secret.png").symlink_to("/etc/passwd")
    os.mkfifo(mine / "nut/pipe.png")
    found = layout(mine)
    assert {label: sum(pair) for label, pair in counts(found).items()} == {"bolt": 10, "linked": 5, "nut": 10}
    said = capsys.readouterr().out
    assert "3 files: a pipe, a device or a broken link" in said
    assert "a link to a folder that is read already" in said


def test_links_in_archives_are_no_pictures(tmp_path: Path) -> None:
    zip_path, tar_path = zipped(tmp_path / "a.zip", class_folders()), tarred(tmp_path / "a.tar", class_folders())
    with zipfile.ZipFile(zip_path, "a") as archive:
        link = zipfile.ZipInfo("bolt/link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../outside.png", picture("", 90))
        archive.writestr("/absolute.png", picture("", 91))
    with tarfile.open(tar_path, "a") as tar:
        member = tarfile.TarInfo("bolt/link.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    plain = packed(write(tmp_path / "mine", class_folders())).read_bytes()
    assert packed(zip_path).read_bytes() == packed(tar_path).read_bytes() == plain


def test_the_same_file_name_in_two_classes_is_two_pictures(tmp_path: Path) -> None:
    found = layout(write(tmp_path / "mine", class_folders()))
    names = [name.rpartition("/")[2] for of_class in (*found.train, *found.validation) for name in of_class]
    assert set(Counter(names).values()) == {2}


BAD: dict[str, tuple[Files, str]] = {
    "one class": (class_folders(labels=("bolt",)), "at least two classes, found only 'bolt'"),
    "an empty class": (class_folders() | {"empty/.keep": b""}, "class 'empty' has no picture"),
    "a class of other files": (
        class_folders() | {"docs/a.txt": b"a"},
        "class 'docs' has no picture .*1 file: not a pic",
    ),
    "one picture": (class_folders() | {"rare/0.png": picture("", 9)}, "class 'rare' has a single picture"),
    "a class in train only": (
        split_folders() | {"train/rare/0.png": picture("", 9)},
        "class 'rare' has no validation picture; add some or remove it",
    ),
    "a class in val only": (
        split_folders() | {"val/rare/0.png": picture("", 9)},
        "class 'rare' has no training picture; add some or remove it",
    ),
    "no train": (
        {name.replace("train", "test"): d for name, d in split_folders().items()},
        "no picture in train, only in",
    ),
    "pictures in no folder": (
        FLAT,
        "no picture in a folder of a class or in a table; expected a folder for each class",
    ),
    "flat splits": ({"train/0.png": picture("", 0), "test/1.png": picture("", 1)}, "no picture in a folder of a class"),
    "nothing": ({}, "no picture in a folder of a class"),
    "two tables": (FLAT | {"a.csv": LABELS, "b.csv": LABELS}, r"several tables \(a.csv, b.csv\); name one"),
    "a missing file": (
        {"metadata.csv": table([{"file": "gone.png", "label": "x"}])} | FLAT,
        r"metadata.csv names files that are not there: gone.png \(line 2\)",
    ),
    "two labels": (
        FLAT | {"metadata.csv": LABELS + b"bolt_0.png,nut\r\n"},
        "line 22: bolt_0.png is 'bolt' in another line and 'nut' here",
    ),
    "no label": (FLAT | {"metadata.csv": LABELS + b"bolt_0.png,\r\n"}, "metadata.csv, line 22: no label"),
    "a long row": (FLAT | {"metadata.csv": LABELS + b"bolt_0.png,bolt,1\r\n"}, "line 22 has more values than columns"),
    "an odd split": (
        {"metadata.csv": b"file,label,split\nbolt_0.png,bolt,maybe\n"} | FLAT,
        "line 2: the split is 'maybe'; expected one of: train",
    ),
    "one group": (
        FLAT | {"metadata.csv": table([{"file": n, "label": n.split("_")[0], "group": "g"} for n in FLAT])},
        "class 'bolt' has a single group",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_what_is_no_study_is_one_line(case: str, form: str, tmp_path: Path) -> None:
    files, said = BAD[case]
    (tmp_path / "mine").mkdir()
    path = write(tmp_path / "mine", files) if form == "folder" else zipped(tmp_path / "mine.zip", files)
    assert re.search(said, refused(path))


def test_an_empty_folder_is_an_empty_class(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", class_folders())
    (mine / "empty").mkdir()
    assert "class 'empty' has no picture" in refused(mine)


def test_a_table_with_other_columns_or_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image,class\na.png,x\n")
    assert "labels.csv, line 2: expected the columns file (or file_name) and label, found: image, class" in refused(
        path
    )
    path.write_bytes("file,label\na.png,écrou\n".encode("utf-16"))
    assert "labels.csv: not readable as a table in UTF-8" in refused(path)
    (tmp_path / "labels.jsonl").write_text('{"file": "a.png", "label": [1]}\n')
    assert "labels.jsonl, line 1: label is [1]; expected text or a whole number" in refused(tmp_path / "labels.jsonl")


def test_a_path_that_is_nothing_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone") == f"data.path {tmp_path / 'gone'}: no such folder or file"
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    assert "expected a folder, a zip, a tar, or a table .csv, .jsonl, .tsv" in refused(tmp_path / "a.pdf")
    tarred(tmp_path / "cut.tar.gz", class_folders()).write_bytes((tmp_path / "cut.tar.gz").read_bytes()[:-500])
    assert "damaged or truncated tar" in refused(tmp_path / "cut.tar.gz")


def test_a_bomb_is_refused_unread(tmp_path: Path) -> None:
    files = class_folders() | {"bolt/bomb.png": bytes(BOUND)}
    for path in (zipped(tmp_path / "a.zip", files), tarred(tmp_path / "a.tar.gz", files)):
        assert "the bound data.max_unpacked_bytes is 10,000,000" in refused(path)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_table_in_an_archive_that_is_a_bomb_is_refused_in_bounded_memory(name: str, tmp_path: Path) -> None:
    line = b"x,y\n" if name.endswith("csv") else b'{"file": "x", "label": "y"}\n'
    table = (b"file,label\n" if name.endswith("csv") else b"") + line * (8_000_000 // len(line))
    path = zipped(tmp_path / "a.zip", FLAT | {name: table})
    tracemalloc.start()
    assert f"{name}, line 1043: more lines than there are files, 21" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(table)
    tracemalloc.stop()


def test_a_tar_that_was_cut_or_has_a_damaged_header_is_refused_wherever_that_is(tmp_path: Path) -> None:
    whole = tarred(tmp_path / "a.tar", class_folders())
    data = whole.read_bytes()
    with tarfile.open(whole) as tar:
        headers = [member.offset for member in tar]
        end = tar.offset
    assert sum(map(sum, counts(layout(whole)).values())) == 20
    cuts = [data[:size] for size in range(tarfile.BLOCKSIZE, end + 1, tarfile.BLOCKSIZE)]
    flips = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in headers[1:]]
    (tmp_path / "damaged").mkdir()
    for damaged in (*cuts, *flips):
        (tmp_path / "damaged/a.tar").write_bytes(damaged)
        assert "damaged or truncated tar (" in refused(tmp_path / "damaged/a.tar")


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_tar_whose_headers_are_a_bomb_is_refused_in_bounded_memory(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
        bomb = tarfile.TarInfo("bomb")
        bomb.type, bomb.size = kind, 50_000_000
        archive.addfile(bomb, io.BytesIO(bytes(bomb.size)))
    tracemalloc.start()
    assert "damaged or truncated tar (a name or header of 50,000,000 bytes)" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_tar_with_a_sparse_file_whose_map_may_be_a_bomb_is_refused(kind: bytes, tmp_path: Path) -> None:
    sparse = tarfile.TarInfo("bolt/sparse.png")
    sparse.type = kind
    if kind == tarfile.REGTYPE:
        sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "512"}
    sparse.size = 1024
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("empty"))
        archive.addfile(sparse, io.BytesIO(b"1\n0\n512\n".ljust(1024, b"\0")))
    assert "holds a sparse file" in refused(tmp_path / "a.tar")


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", class_folders())
    (mine / os.fsdecode(b"caf\xe9")).mkdir()
    (mine / os.fsdecode(b"caf\xe9/1.png")).write_bytes(picture("", 1))
    assert "the name is not UTF-8; rename the file or folder" in refused(mine)


# What follows


def test_arrays_are_made_of_the_packed_pictures(tmp_path: Path) -> None:
    archive = packed(write(tmp_path / "mine", split_folders()))
    normalise(archive, tmp_path / "arrays", config(), is_sample=False, processes=1)
    data: Dataset = read_dataset(tmp_path / "arrays")
    assert (data.class_ids, data.validated_on) == ([*CLASSES], "validation split")
    assert data.train.labels.tolist() == [0] * 8 + [1] * 8
    middles = data.train.images[:, 60, 60].tolist()
    assert middles == [list(COLOURS[label]) for label in CLASSES for _ in range(8)]


def test_a_changed_picture_changes_the_state(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", class_folders())
    (tmp_path / "labels.csv").write_bytes(table([{"file": "mine/bolt/1.png", "label": "bolt"}]))
    (tmp_path / "windows.csv").write_bytes(table([{"file": "mine\\bolt\\1.png", "label": "bolt"}]))
    for path in (mine, tmp_path / "labels.csv", tmp_path / "windows.csv", zipped(tmp_path / "a.zip", class_folders())):
        before = state(path)
        assert state(path) == before
        changed = mine / "bolt/1.png" if path.suffix != ".zip" else path
        data = changed.read_bytes()
        os.utime(changed, (1, 1))
        assert state(path) != before
        changed.write_bytes(data)
        assert state(path) != before
    shutil.rmtree(mine)
    with pytest.raises(UserError, match="no such folder or file"):
        state(mine)


def test_the_data_set_is_called_as_its_folder_and_never_as_another() -> None:
    values = {
        **FOLDER,
        "source": "folder",
        "url": None,
        "size_bytes": None,
        "md5": None,
        "name": None,
        "classes": None,
        "train_per_class": None,
        "side": 64,
        "holdout": 0,
        "max_unpacked_bytes": 1,
    }
    names = {
        "/pictures/parts": "parts",
        "my birds.zip": "my-birds",
        "labels.csv": "labels",
        "/x/tiny-imagenet-200": "my-tiny-imagenet-200",
        "weights": "my-weights",
        "鳥": "my",
    }
    for path, name in names.items():
        assert DataConfig.model_validate_json(json.dumps(values | {"path": path})).name == name


# Very many, and very large


@pytest.mark.slow
def test_100_000_files_are_packed_and_watched(tmp_path: Path) -> None:
    small = picture("", 0, size=(8, 8))
    for label in range(100):
        folder = tmp_path / f"mine/kind {label}"
        folder.mkdir(parents=True)
        for number in range(1000):
            (folder / f"{number}.png").write_bytes(small + f"{label} {number}".encode())
    before = state(tmp_path / "mine")
    found = layout(tmp_path / "mine", processes=0)
    assert len(found.class_ids) == 100
    assert sum(map(sum, counts(found).values())) == 100_000
    assert 19_000 < sum(validation for _, validation in counts(found).values()) < 21_000
    assert state(tmp_path / "mine") == before


PEAK = """
import resource, sys
from pathlib import Path
from archives import config
from frugalnet.data.normalise import normalise
from frugalnet.processes import peak_bytes
from test_pack import packed

archive = packed(Path(sys.argv[1]), processes=2)
normalise(archive, archive.with_suffix(".arrays"), config(max_unpacked_bytes=10**12), is_sample=False, processes=2)
print(max(peak_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_photographs(tmp_path: Path) -> None:
    """Of 12 megapixels, 36 MB decoded in full, as PNG files are."""
    coarse = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    photograph = Image.fromarray(coarse).resize((4000, 3000), Image.Resampling.BICUBIC)
    jpeg, png = io.BytesIO(), io.BytesIO()
    photograph.save(jpeg, "JPEG", quality=90)
    photograph.save(png, "PNG", compress_level=1)
    peaks = []
    for count in (8, 80):
        files = {
            f"{label}/{n}": (png if n % 4 == 0 else jpeg).getvalue() + f"{label} {n}".encode()
            for label in CLASSES
            for n in range(count // 2)
        }
        path = write(tmp_path / f"mine {count}", files)
        command = [sys.executable, "-c", PEAK, str(path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] - peaks[0] < 2 * 3 * 4000 * 3000
    assert peaks[1] < 1_000_000_000


# Near copies


def noise(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 64)))


def saved(pixels: np.ndarray, kind: str, side: int = 64, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(file, kind, **options)
    return file.getvalue()


def test_near_copies_in_both_splits_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        f"train/{label}/{n}.png": saved(noise(10 * k + n), "PNG") for k, label in enumerate("ab") for n in range(5)
    }
    files |= {
        f"val/{label}/{n}.png": saved(noise(100 + 10 * k + n), "PNG") for k, label in enumerate("ab") for n in (0, 1)
    }
    files |= {"val/b/copy.jpg": saved(noise(3), "JPEG", quality=80), "val/a/same.bmp": saved(noise(12), "BMP")}
    normalise(packed(write(tmp_path / "mine", files)), tmp_path / "arrays", config(), is_sample=False, processes=1)
    copies = read_record(tmp_path / "arrays/near_copies.json", NearCopies)
    assert copies
    same, compressed = copies.pairs
    assert same == NearCopy(validation="val/a/same.bmp", train="train/b/2.png", difference=0.0)
    assert (compressed.validation, compressed.train) == ("val/b/copy.jpg", "train/a/3.png")
    assert 0 < compressed.difference < 0.15
    assert "2 validation pictures look like a training picture, as val/a/same.bmp" in capsys.readouterr().out


@pytest.mark.parametrize("side", [48, 64, 96])
def test_no_near_copy_is_missed_by_the_coarse_comparison(side: int) -> None:
    """Against `near_copies`, which compares all pairs in full."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (300, 1, 1, 3)) + rng.normal(0, 20, (300, 4, 4, 3)).repeat(side // 4, 1).repeat(
        side // 4, 2
    )
    pixels[150:] = pixels[:150] + rng.uniform(0, 6, (150, 1, 1, 1)) * rng.normal(0, 1, (150, side, side, 3))
    images = pixels.clip(0, 255).astype(np.uint8)
    pairs = {(i, j - 150) for i, j in near_copies(images) if i < 150 <= j}
    assert len(pairs) > 50
    found = {(i, j) for i, j, _ in copies_between(images[:150], images[150:])}
    assert {i for i, _ in found} == {i for i, _ in pairs}
    assert found <= pairs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train/x.png": b"x"}, "train/x.png is unexpected beside pictures.json: images lie in train/<class>/"),
        ({"train//x.png": b"x"}, "train//x.png is unexpected beside pictures.json"),
        ({"other/nut/x.png": b"x"}, "other/nut/x.png is unexpected beside pictures.json"),
        ({"x.png": b"x"}, "x.png is unexpected beside pictures.json"),
        ({"train/washer/x.png": b"x"}, "class washer has images in one of train/ and val/ only"),
        ({"val/washer/x.png": b"x"}, "class washer has images in one of train/ and val/ only"),
        ({"pictures.json": b"{"}, "pictures.json does not say what the validation images are"),
        ({"pictures.json": b"[]"}, "pictures.json does not say what the validation images are"),
        ({"pictures.json": b"[" * 100_000}, "pictures.json does not say what the validation images are"),
    ],
    ids=range(9),
)
def test_an_archive_of_packed_pictures_that_somebody_has_changed_is_refused(
    changes: Files, message: str, tmp_path: Path
) -> None:
    files = contents(packed(write(tmp_path / "pictures", split_folders())))
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        read_layout(zipped(tmp_path / "changed.zip", files | changes), BOUND)
