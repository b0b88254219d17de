import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from disks import small_disk
from PIL import Image
from pydantic import ValidationError

from frugalnet.data.arrays import load, normalise
from frugalnet.data.sample import CLASSES
from frugalnet.errors import UserError

ROOT = "tiny-imagenet-200/"
IDS = [class_id for class_id, _, _ in CLASSES[:3]]
Members = dict[str, bytes]


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
    data = made(archive, processes=2)
    pixels = np.asarray(data.train.images, np.float64)
    np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std(axis=(0, 1, 2)), rtol=1e-12)
    assert data.train.images.shape == (1000, 64, 64, 3)
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int64
    assert np.bincount(data.validation.labels).tolist() == [20] * 10


def test_neither_processes_nor_the_order_of_members_change_a_byte(
    small: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frugalnet.data.arrays.CHUNK", 2)
    ones = made(pack(tmp_path / "a.zip", small), processes=1)
    shuffled = dict(random.Random(1).sample(sorted(small.items()), len(small)))
    threes = made(pack(tmp_path / "b.zip", shuffled), processes=3)
    files = [(tmp_path / f"arrays-{processes}" / "dataset.json").read_bytes() for processes in (1, 3)]
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
        f"NormaliseConfig(**{config().model_dump()}), is_sample=True, processes=2)"
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
        while child.poll() is None and not (tmp_path / "arrays.partial").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 1))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        if folder.exists():
            assert len(load(folder).train.labels) == 1000
        while group_lives(child.pid):  # its processes end with it
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert killed
    normalise(sample, folder, config(), is_sample=True, processes=2)
    normalise(sample, tmp_path / "uninterrupted", config(), is_sample=True, processes=1)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "uninterrupted" / path.name).read_bytes()
    assert not (tmp_path / "arrays.partial").exists()


def test_a_full_disk_is_said_and_leaves_nothing(sample: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", kilobytes=5000) as disk:
        with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
            normalise(sample, disk / "arrays", config(), is_sample=True, processes=2)
        assert list(disk.iterdir()) == []


def test_a_read_only_folder_is_named(sample: Path, tmp_path: Path) -> None:
    said = f"cannot write {tmp_path}/sealed/arrays.partial: Read-only file system"
    with small_disk(tmp_path / "sealed", kilobytes=5000, read_only=True) as disk, pytest.raises(UserError, match=said):
        normalise(sample, disk / "arrays", config(), is_sample=True, processes=2)


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
