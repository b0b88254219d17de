import random
import re
import stat
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import FIRST, IDS, ROOT, Members, pack, refused, replaced

from frugalnet.data.layout import Layout, choose_images, read_layout
from frugalnet.data.members import open_archive, read_member


def read(archive: Path) -> Layout:
    return read_layout(archive, max_unpacked_bytes=10_000_000)


def test_images_are_sorted_by_number_however_long(small: Members, tmp_path: Path) -> None:
    names = [f"train/{IDS[0]}/images/{IDS[0]}_{n}.JPEG" for n in ("2", "010", "9" * 5000, "1" + "0" * 5000)]
    members = {name: data for name, data in small.items() if not name.startswith(f"train/{IDS[0]}/images/")}
    members |= dict.fromkeys(reversed(names), b"")
    assert read(pack(tmp_path / "a.zip", members)).train[0] == [ROOT + name for name in names]


def test_a_hold_out_is_the_same_whatever_the_number_of_training_images() -> None:
    images = [[f"{k}_{n}" for n in range(9)] for k in "ab"]
    layout = Layout(["a", "b"], ["A", "B"], images, [["v"], ["w"]])
    chosen = [choose_images(layout, None, per_class, holdout=4) for per_class in (None, 2)]
    assert chosen[0].validation == chosen[1].validation == [["a_7", "a_8"], ["b_7", "b_8"]]
    assert chosen[1].train == [["a_0", "a_1"], ["b_0", "b_1"]]


def test_files_that_systems_add_are_passed_over(small: Members, tmp_path: Path) -> None:
    added = [".DS_Store", "Thumbs.db", "._n1_0.JPEG"]
    members = small | {
        f"{folder}{name}": b"?" for name in added for folder in ("", f"train/{IDS[0]}/images/", "val/images/")
    }
    others = [(zipfile.ZipInfo(f"__MACOSX/{ROOT}train/{IDS[0]}/._x"), b"?"), (zipfile.ZipInfo(".DS_Store"), b"?")]
    assert read(pack(tmp_path / "a.zip", [*members.items(), *others])) == read(pack(tmp_path / "b.zip", small))


def test_blanks_around_the_fields_of_text_files_are_ignored(small: Members, tmp_path: Path) -> None:
    spaced = {
        name: b"\xef\xbb\xbf" + b" \r\n".join(small[name].replace(b"\t", b" \t ").splitlines()) + b" \r\n \t \r\n"
        for name in ("wnids.txt", "words.txt", NOTES)
    }
    assert read(pack(tmp_path / "a.zip", small | spaced)) == read(pack(tmp_path / "b.zip", small))


@pytest.mark.parametrize(
    ("prefix", "found"),
    [("tiny-imagenet-200 (1)/", "'tiny-imagenet-200 (1)'"), ("data/" + ROOT, "'data'"), (None, "missing: it is empty")],
)
def test_another_top_folder_is_named(prefix: str | None, found: str, small: Members, tmp_path: Path) -> None:
    members = [(zipfile.ZipInfo(prefix + name), data) for name, data in small.items() if prefix]
    message = refused(pack(tmp_path / "a.zip", members))
    assert message == f"the archive's top folder is {found}; expected 'tiny-imagenet-200'"


# What is refused


def without(pattern: str) -> Callable[[Members], Members]:
    return lambda parts: {name: data for name, data in parts.items() if not re.search(pattern, name)}


def lines(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Members], Members]:
    return lambda parts: parts | {name: "".join(change(parts[name].decode().splitlines(True))).encode()}


def adding(name: str, data: bytes = b"") -> Callable[[Members], Members]:
    return lambda parts: parts | {name: data}


NOTES = "val/val_annotations.txt"
BAD: dict[str, tuple[Callable[[Members], Members], str]] = {
    "missing class": (without(f"train/{IDS[1]}/images"), f"class {IDS[1]} .* has no image under {ROOT}train/{IDS[1]}"),
    "extra class": (adding("train/n123/images/n123_0.JPEG"), f"{ROOT}train/n123/images/n123_0.JPEG .* not in .*wnids"),
    "class without validation": (
        lambda parts: lines(NOTES, lambda rows: rows[2:])(
            without("val/images/(" + "|".join(row.split()[0] for row in parts[NOTES].decode().splitlines()[:2]) + ")")(
                parts
            )
        ),
        f"class {IDS[0]} .* no line in .*val_annotations",
    ),
    "class without name": (
        lines("words.txt", lambda rows: [r for r in rows if IDS[2] not in r]),
        f"class {IDS[2]} .*no name",
    ),
    "class twice": (adding("wnids.txt", "\n".join([*IDS, IDS[0]]).encode()), f"wnids.txt names {IDS[0]} twice"),
    "no class": (adding("wnids.txt"), "wnids.txt names no class"),
    "no wnids.txt": (without("wnids.txt"), "wnids.txt is missing from the archive"),
    "no words.txt": (without("words.txt"), "words.txt is missing from the archive"),
    "no annotations": (without("val_annotations"), "val_annotations.txt is missing from the archive"),
    "text in another encoding": (adding("words.txt", "n1\tcafé".encode("latin-1")), "words.txt is not UTF-8"),
    "file without annotation": (
        adding("val/images/val_999.JPEG"),
        "val/images/val_999.JPEG has no line in .*annotations",
    ),
    "annotation without file": (
        lines(NOTES, lambda rows: [*rows, f"val_998.JPEG\t{IDS[0]}\t0\t0\t1\t1\n"]),
        "val/images/val_998.JPEG is missing",
    ),
    "annotation twice": (lines(NOTES, lambda rows: [*rows, rows[0]]), r"names val_\d+.JPEG twice"),
    "annotation cut off": (lines(NOTES, lambda rows: [*rows, "val_1"]), "found 'val_1'"),
    "annotation of an unknown class": (
        lines(NOTES, lambda rows: ["val_7.JPEG\tn555\t0\t0\t1\t1\n", *rows]),
        "gives val_7.JPEG the class n555, not in wnids.txt",
    ),
    "empty training split": (without("train/.*/images"), "training split is empty"),
    "empty validation split": (without("val/images"), "validation split is empty"),
    "misplaced file": (adding(f"train/{IDS[0]}/a.JPEG"), f"{ROOT}train/{IDS[0]}/a.JPEG is unexpected"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_archive_is_refused_by_name(case: str, small: Members, tmp_path: Path) -> None:
    spoil, said = BAD[case]
    assert re.search(said, refused(pack(tmp_path / "a.zip", spoil(small))))


@pytest.mark.parametrize("name", ["/etc/x", "../x", f"{ROOT}train/../../x", "a\\..\\x", "C:/x", "link"])
def test_links_and_paths_that_lead_outside_are_refused(name: str, small: Members, tmp_path: Path) -> None:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, ((stat.S_IFLNK if name == "link" else 0) | 0o777) << 16
    message = refused(pack(tmp_path / "a.zip", [*small.items(), (member, b"/etc/passwd")]))
    assert f"{name!r} is a link, a device or a path that leads outside" in message


def test_a_member_that_is_there_twice_is_refused(small: Members, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", [*small.items(), (FIRST, b"another")])
    assert refused(archive) == f"the archive names {ROOT}{FIRST} twice"


def test_an_archive_beyond_the_bound_is_refused_unread(small: Members, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", small | {"test/bomb": bytes(20_000_000)})
    assert archive.stat().st_size < 200_000
    message = refused(archive)
    assert "data.max_unpacked_bytes is 10,000,000" in message
    assert f"{ROOT}test/bomb with 20,000,000" in message


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_is_read(compression: int, small: Members, tmp_path: Path) -> None:
    with open_archive(pack(tmp_path / "a.zip", small, compression)) as archive:
        assert {name: read_member(archive, ROOT + name) for name in small} == small


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("at", [0, 5, 12, 100])
def test_a_damaged_member_is_refused_by_name(compression: int, at: int, small: Members, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", small, compression)
    data = bytearray(archive.read_bytes())
    start = data.index(ROOT.encode() + b"words.txt") + len(ROOT + "words.txt")
    data[start + at : start + at + 20] = bytes(20)
    archive.write_bytes(data)
    assert f"{ROOT}words.txt doesn't unpack to what the archive declares" in refused(archive)


def test_an_archive_without_its_first_bytes_is_refused_by_the_member_that_they_held(
    small: Members, tmp_path: Path
) -> None:
    archive = pack(tmp_path / "a.zip", small)  # words.txt comes first: its place is now before the file's beginning
    archive.write_bytes(archive.read_bytes()[10:])
    assert f"{ROOT}words.txt doesn't unpack to what the archive declares" in refused(archive)


def test_a_member_that_inflates_beyond_its_declared_size_is_refused_in_bounded_memory(
    small: Members, tmp_path: Path
) -> None:
    declared_at = 24
    archive = pack(tmp_path / "a.zip", small | {"words.txt": bytes(20_000_000)})
    replaced(archive, "words.txt", {declared_at: (100).to_bytes(4, "little")})
    tracemalloc.start()
    try:
        assert f"{ROOT}words.txt doesn't unpack to what the archive declares" in refused(archive)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>", b"PK\3\4" + bytes(100)])
def test_a_file_that_is_no_zip_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert f"{tmp_path / 'a.zip'} is not a readable zip archive" in refused(tmp_path / "a.zip")


def test_an_archive_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "a.zip is missing; make it: dvc repro download" in refused(tmp_path / "a.zip")


def test_damage_anywhere_in_the_directory_is_a_clear_refusal(small: Members, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", small)
    whole, rng = archive.read_bytes(), random.Random(0)
    directory = whole.index(b"PK\1\2")
    messages = []
    for _ in range(300):
        data = bytearray(whole)
        data[rng.randrange(directory, len(data))] ^= 1 << rng.randrange(8)
        archive.write_bytes(data)
        # At the latest the hold-out, not a multiple of the classes, is refused: nothing is decoded.
        messages.append(refused(archive, holdout=1))
    assert len(set(messages)) > 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": 4}, "data.classes is 4, the archive has 3"),
        ({"train_per_class": 5}, f"class {IDS[0]} has 4 training images, .* ask for 5"),
        ({"holdout": 12}, f"class {IDS[0]} has 4 training images, .* ask for 5"),
        ({"holdout": 4}, "data.holdout 4 is not a multiple of the 3 classes"),
    ],
)
def test_more_than_the_archive_has_is_refused(
    changes: dict[str, int], said: str, small: Members, tmp_path: Path
) -> None:
    assert re.search(said, refused(pack(tmp_path / "a.zip", small), **changes))


# Neighbours of what was seen


@pytest.mark.parametrize("form", ["{}//images/{}", "{}/./images/{}", "./{}/images/{}"])
def test_a_member_that_is_there_twice_in_two_forms_is_refused(form: str, small: Members, tmp_path: Path) -> None:
    folder, _, name = f"{ROOT}{FIRST}".replace("/images", "").rpartition("/")
    member = zipfile.ZipInfo(form.format(folder, name))
    archive = pack(tmp_path / "a.zip", [*small.items(), (member, small[FIRST])])
    assert refused(archive) == f"the archive names {ROOT}{FIRST} twice"


@pytest.mark.parametrize("name", ["words.txt", "wnids.txt", NOTES])
def test_a_text_file_that_is_a_bomb_is_refused_in_bounded_memory(name: str, small: Members, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", small | {name: b"\n" * 20_000_000})
    tracemalloc.start()
    try:
        message = refused(archive, max_unpacked_bytes=100_000_000)
        assert f"{ROOT}{name} has 20,000,000 bytes of text, more than 16,777,216" in message
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_five_million_classes_are_refused_when_there_are_more_than_files(small: Members, tmp_path: Path) -> None:
    ids = "".join(f"{number}\n" for number in range(2_000_000)).encode()
    archive = pack(tmp_path / "a.zip", small | {"wnids.txt": ids})
    files = len(small)
    tracemalloc.start()
    try:
        message = refused(archive, max_unpacked_bytes=100_000_000)
        assert message == f"{ROOT}wnids.txt has more lines than the archive has files, {files}"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_an_image_of_900_megabytes_is_refused_unread(small: Members, tmp_path: Path) -> None:
    size_at = 24
    archive = pack(tmp_path / "a.zip", small)
    replaced(archive, FIRST, {size_at: (900_000_000).to_bytes(4, "little")})
    message = refused(archive, max_unpacked_bytes=1_000_000_000)
    assert f"{ROOT}{FIRST}: larger than 128 MiB, which no picture may be" in message


def test_backslashes_for_folders_are_named(small: Members, tmp_path: Path) -> None:
    members = [(zipfile.ZipInfo(f"{ROOT}{name}".replace("/", "\\")), data) for name, data in small.items()]
    assert "has backslashes for folders, against the zip format; pack it with another program" in refused(
        pack(tmp_path / "a.zip", members)
    )
