import random
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import FIRST, IDS, ROOT, Members, pack, refused


def without(pattern: str) -> Callable[[Members], Members]:
    return lambda parts: {name: data for name, data in parts.items() if not re.search(pattern, name)}


def lines(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Members], Members]:
    return lambda parts: parts | {name: "".join(change(parts[name].decode().splitlines(True))).encode()}


def adding(name: str, data: bytes = b"") -> Callable[[Members], Members]:
    return lambda parts: parts | {name: data}


def replacing(name: str, change: Callable[[bytes], bytes]) -> Callable[[Members], Members]:
    return lambda parts: parts | {name: change(parts[name])}


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
    "another size": (adding(FIRST, jpeg(np.zeros((64, 32, 3), np.uint8))), f"{FIRST}: expected .*64×64.*found 32×64"),
    "far too large": (adding(FIRST, claiming(5000)), f"{FIRST} can't be decoded: .*CV_IO_MAX_IMAGE_PIXELS"),
    "truncated": (replacing(FIRST, lambda data: data[:-300]), f"{FIRST} is a truncated JPEG"),
    "not an image": (adding(FIRST, b"<html>"), f"{FIRST} can't be decoded"),
    "empty image": (adding(FIRST), f"{FIRST} can't be decoded"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_archive_is_refused_by_name(case: str, small: Members, tmp_path: Path) -> None:
    spoil, said = BAD[case]
    assert re.search(said, refused(pack(tmp_path / "a.zip", spoil(small))))


@pytest.mark.parametrize("name", ["/etc/x", "../x", f"{ROOT}train/../../x", "a\\..\\x", "C:/x", f"{ROOT}test/../../x"])
def test_a_member_that_would_land_outside_is_refused(name: str, small: Members, tmp_path: Path) -> None:
    members = [*small.items(), (zipfile.ZipInfo(name), b"")]
    message = refused(pack(tmp_path / "a.zip", members))
    assert name in message.replace("\\\\", "\\")
    assert "outside" in message


def test_a_symbolic_link_is_refused(small: Members, tmp_path: Path) -> None:
    link = zipfile.ZipInfo(f"{ROOT}link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    assert f"{ROOT}link is a link" in refused(pack(tmp_path / "a.zip", [*small.items(), (link, b"/etc/passwd")]))


def test_a_member_that_is_there_twice_is_refused(small: Members, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", [*small.items(), (FIRST, b"another")])
    assert refused(archive) == f"{ROOT}{FIRST} is in the archive twice"


def test_an_archive_beyond_the_bound_is_refused_unread(small: Members, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", small | {"test/bomb": bytes(20_000_000)})
    assert archive.stat().st_size < 200_000
    message = refused(archive)
    assert "data.max_unpacked_bytes is 10,000,000" in message
    assert f"{ROOT}test/bomb with 20,000,000" in message


@pytest.mark.parametrize("part", [FIRST, "words.txt"])
def test_a_member_larger_than_it_declares_is_refused(part: str, small: Members, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", small | {part: small[part] + bytes(9_000_000)})
    data = bytearray(archive.read_bytes())
    central = data.rindex(ROOT.encode() + part.encode()) - 46
    assert data[central : central + 4] == b"PK\1\2"
    data[central + 24 : central + 28] = len(small[part]).to_bytes(4, "little")
    archive.write_bytes(data)
    assert f"{ROOT}{part} doesn't unpack to what the archive declares" in refused(archive)


def test_a_damaged_member_is_refused(small: Members, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", small)
    data = bytearray(archive.read_bytes())
    start = data.index(ROOT.encode() + FIRST.encode()) + len(ROOT + FIRST)
    data[start + 200] ^= 1
    archive.write_bytes(data)
    assert f"{ROOT}{FIRST} doesn't unpack" in refused(archive)


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>", b"PK\3\4" + bytes(100)])
def test_a_file_that_is_no_zip_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert f"{tmp_path / 'a.zip'} is no readable zip archive" in refused(tmp_path / "a.zip")


def test_an_archive_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "a.zip isn't there; make it: dvc repro download" in refused(tmp_path / "a.zip")


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
