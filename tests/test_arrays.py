import io
import json
import os
import random
import re
import signal
import stat
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from disks import small_disk
from PIL import Image
from pydantic import ValidationError

from frugalnet.data.arrays import Dataset, NormaliseConfig, decode, load, normalise
from frugalnet.data.sample import CLASSES, write_sample
from frugalnet.errors import UserError

ROOT = "tiny-imagenet-200/"
IDS = [class_id for class_id, _, _ in CLASSES[:3]]
Members = dict[str, bytes]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "sample.zip"
    write_sample(path)
    return path


@pytest.fixture
def small(sample: Path) -> Members:
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


def pack(path: Path, members: Members | Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    """A zip of these parts; names are taken relative to the archive's folder unless they come as a ZipInfo."""
    pairs = members.items() if isinstance(members, dict) else members
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
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
        "max_unpacked_bytes": 10_000_000,
    }
    return NormaliseConfig.model_validate(defaults | changes)


def made(archive: Path, workers: int = 1, **changes: object) -> Dataset:
    folder = archive.parent / f"arrays-{workers}"
    normalise(archive, folder, config(**changes), is_sample=True, workers=workers)
    return load(folder)


def refused(archive: Path, **changes: object) -> str:
    """The one line with which an archive is refused, leaving nothing behind."""
    with pytest.raises(UserError) as error:
        made(archive, **changes)
    assert [path.name for path in archive.parent.iterdir() if path != archive] == []
    assert "\n" not in str(error.value)
    return str(error.value)


def jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def claiming(side: int) -> bytes:
    """A small PNG whose header claims so many pixels a side."""
    png = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


# What comes out


def test_labels_follow_wnids_txt_and_images_are_their_members(small: Members, tmp_path: Path) -> None:
    data = made(pack(tmp_path / "a.zip", small))
    assert data.class_ids == IDS
    assert data.class_names == ["red disc", "square frame", "yellow star"]
    assert (data.name, data.is_sample, data.validated_on) == ("tiny", True, "validation split")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    expected = [small[f"train/{k}/images/{k}_{n}.JPEG"] for k in IDS for n in (2, 9, 10, 11)]
    labelled = [line.split("\t")[:2] for line in small["val/val_annotations.txt"].decode().splitlines()]
    for image, file in zip(data.train.images, expected, strict=True):
        assert_same_picture(image, file)
    assert data.validation.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for image, label in zip(data.validation.images, data.validation.labels, strict=True):
        files = [small[f"val/images/{name}"] for name, class_id in labelled if class_id == IDS[label]]
        assert any(difference(image, file) < 4 for file in files)


def difference(image: np.ndarray, file: bytes) -> float:
    pillow = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), np.int64)
    return float(np.abs(image - pillow).mean())


def assert_same_picture(image: np.ndarray, file: bytes) -> None:
    assert difference(image, file) < 4  # two decoders round chroma differently; two pictures differ by 40


def test_statistics_are_the_training_splits(sample: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.symlink_to(sample)
    data = made(archive, workers=2)
    pixels = np.asarray(data.train.images, np.float64)
    np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std(axis=(0, 1, 2)), rtol=1e-12)
    assert data.train.images.shape == (1000, 64, 64, 3)
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int64
    assert np.bincount(data.validation.labels).tolist() == [20] * 10


def test_neither_workers_nor_the_order_of_members_change_a_byte(
    small: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frugalnet.data.arrays.CHUNK", 2)
    ones = made(pack(tmp_path / "a.zip", small), workers=1)
    shuffled = dict(random.Random(1).sample(sorted(small.items()), len(small)))
    threes = made(pack(tmp_path / "b.zip", shuffled), workers=3)
    files = [(tmp_path / f"arrays-{workers}" / "dataset.json").read_bytes() for workers in (1, 3)]
    assert files[0] == files[1]
    assert ones.sha256.keys() == {f"{s}_{p}.npy" for s in ("train", "validation") for p in ("images", "labels")}
    np.testing.assert_array_equal(ones.train.images, threes.train.images)


def test_a_subset_keeps_the_first_classes_and_images(small: Members, tmp_path: Path) -> None:
    data = made(pack(tmp_path / "a.zip", small), classes=2, train_per_class=2)
    assert data.class_ids == IDS[:2]
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert_same_picture(data.train.images[1], small[f"train/{IDS[0]}/images/{IDS[0]}_9.JPEG"])  # 2, 9, then 10
    assert data.validation.labels.tolist() == [0, 0, 1, 1]


def test_a_holdout_takes_as_many_of_each_class_away_from_training(small: Members, tmp_path: Path) -> None:
    data = made(pack(tmp_path / "a.zip", small), holdout=6, train_per_class=1)
    assert data.validated_on == "hold-out of the training split"
    assert data.train.labels.tolist() == [0, 1, 2]
    assert data.validation.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert_same_picture(data.validation.images[5], small[f"train/{IDS[2]}/images/{IDS[2]}_11.JPEG"])


def test_arrays_are_mapped_read_only(small: Members, tmp_path: Path) -> None:
    data = made(pack(tmp_path / "a.zip", small))
    assert isinstance(data.train.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        data.train.images[0] = 0


def test_test_images_and_other_files_are_left_alone(small: Members, tmp_path: Path) -> None:
    data = made(pack(tmp_path / "a.zip", small | {"test/images/test_0.JPEG": b"?", "README": b"?"}))
    assert len(data.train.labels) == 12


def as_file(mode: str, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), (204, 51, 51), np.uint8)).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("RGB", "JPEG", (204, 51, 51)),
        ("L", "JPEG", (97, 97, 97)),
        ("CMYK", "JPEG", (204, 51, 51)),
        ("P", "PNG", (204, 51, 51)),
        ("P", "GIF", (204, 51, 51)),
        ("L", "PNG", (97, 97, 97)),
        ("RGBA", "PNG", (204, 51, 51)),
    ],
)
def test_grey_cmyk_and_palette_images_become_rgb(mode: str, kind: str, expected: tuple[int, int, int]) -> None:
    image = decode(as_file(mode, kind), "a member")
    assert np.abs(image.astype(int) - expected).max() <= 2


# What is refused


def without(pattern: str) -> Callable[[Members], Members]:
    return lambda parts: {name: data for name, data in parts.items() if not re.search(pattern, name)}


def lines(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Members], Members]:
    return lambda parts: parts | {name: "".join(change(parts[name].decode().splitlines(True))).encode()}


def adding(name: str, data: bytes = b"") -> Callable[[Members], Members]:
    return lambda parts: parts | {name: data}


def replacing(name: str, change: Callable[[bytes], bytes]) -> Callable[[Members], Members]:
    return lambda parts: parts | {name: change(parts[name])}


FIRST = f"train/{IDS[0]}/images/{IDS[0]}_2.JPEG"
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


@pytest.mark.parametrize("cut_bytes", [2, 100, 600])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_truncated_jpeg_never_passes(mode: str, cut_bytes: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, "JPEG")
    assert decode(file.getvalue(), "a member").shape == (64, 64, 3)
    with pytest.raises(UserError, match="a member is a truncated JPEG"):
        decode(file.getvalue()[:-cut_bytes], "a member")


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


@pytest.mark.parametrize("key", ["classes", "train_per_class", "holdout", "max_unpacked_bytes", "name"])
def test_impossible_values_are_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        config(**{key: "" if key == "name" else -1})


# What is killed, full or damaged


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_run_never_leaves_a_folder_that_looks_whole(sample: Path, tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    code = (
        "import sys; from pathlib import Path; from frugalnet.data.arrays import NormaliseConfig, normalise\n"
        "if __name__ == '__main__': normalise(Path(sys.argv[1]), Path(sys.argv[2]), "
        f"NormaliseConfig(**{config().model_dump()}), is_sample=True, workers=2)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    rng, killed = random.Random(0), 0
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", code, sample, folder],
            env=environment,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while child.poll() is None and not list(tmp_path.glob("arrays.*.partial")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 1))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        if folder.exists():
            assert len(load(folder).train.labels) == 1000
        while group_lives(child.pid):  # its workers end with it
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert killed
    normalise(sample, folder, config(), is_sample=True, workers=2)
    normalise(sample, tmp_path / "uninterrupted", config(), is_sample=True, workers=1)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "uninterrupted" / path.name).read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_is_said_and_leaves_nothing(sample: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", kilobytes=5000) as disk:
        with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
            normalise(sample, disk / "arrays", config(), is_sample=True, workers=2)
        assert list(disk.iterdir()) == []


def test_a_read_only_folder_is_named(sample: Path, tmp_path: Path) -> None:
    said = f"cannot write {tmp_path}/sealed/arrays: Read-only file system"
    with small_disk(tmp_path / "sealed", kilobytes=5000, read_only=True) as disk, pytest.raises(UserError, match=said):
        normalise(sample, disk / "arrays", config(), is_sample=True, workers=2)


@pytest.mark.parametrize("damage", ["missing", "no description", "short", "another count"])
def test_a_folder_that_is_not_whole_is_not_loaded(damage: str, small: Members, tmp_path: Path) -> None:
    made(pack(tmp_path / "a.zip", small))
    folder = tmp_path / "arrays-1"
    match damage:
        case "missing":
            (folder / "train_images.npy").unlink()
        case "no description":
            (folder / "dataset.json").write_text(json.dumps({"name": "tiny"}))
        case "short":
            os.truncate(folder / "train_images.npy", 1000)
        case "another count":
            np.save(folder / "train_labels.npy", np.zeros(3, np.int64))
    with pytest.raises(UserError, match=f"{folder} holds no whole data set .*dvc repro -f normalise"):
        load(folder)
