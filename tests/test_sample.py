import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from frugalnet.data.sample import CLASSES


@pytest.fixture(scope="module")
def members(sample_archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(sample_archive) as archive:
        return {name.removeprefix("tiny-imagenet-200/"): archive.read(name) for name in archive.namelist()}


def lines(members: dict[str, bytes], name: str) -> list[list[str]]:
    return [line.split("\t") for line in members[name].decode().splitlines()]


def test_another_process_with_another_hash_seed_and_threads_writes_the_same_bytes_in_15_seconds(
    sample_archive: Path, tmp_path: Path
) -> None:
    code = (
        "import cv2; from pathlib import Path; from frugalnet.data.sample import write_sample\n"
        "cv2.setNumThreads(1); write_sample(Path('again.zip'))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=15)
    assert (
        hashlib.sha256((tmp_path / "again.zip").read_bytes()).digest()
        == hashlib.sha256(sample_archive.read_bytes()).digest()
    )


def test_no_member_holds_the_time_or_depends_on_a_version_of_zlib(sample_archive: Path) -> None:
    with zipfile.ZipFile(sample_archive) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}


def test_its_layout_is_the_originals(members: dict[str, bytes]) -> None:
    class_ids = members["wnids.txt"].decode().split()
    assert class_ids != sorted(class_ids)
    assert len(set(class_ids)) == len(CLASSES) == 10
    words = dict(lines(members, "words.txt"))
    assert len(words) > len(class_ids)
    assert all("," in words[class_id] for class_id in class_ids)
    assert not any(name.startswith("test/") for name in members)
    for class_id in class_ids:
        images = {name.rpartition("/")[2] for name in members if name.startswith(f"train/{class_id}/images/")}
        assert images == {f"{class_id}_{k}.JPEG" for k in range(100)}
        assert {box[0] for box in lines(members, f"train/{class_id}/{class_id}_boxes.txt")} == images
    annotations = lines(members, "val/val_annotations.txt")
    assert [row[0] for row in annotations] == [f"val_{k}.JPEG" for k in range(200)]
    assert {f"val/images/{row[0]}" for row in annotations} == {n for n in members if n.startswith("val/images/")}
    assert all([row[1] for row in annotations].count(class_id) == 20 for class_id in class_ids)
    assert all(0 <= int(row[2]) < int(row[4]) < 64 and 0 <= int(row[3]) < int(row[5]) < 64 for row in annotations)


def test_its_images_are_real_jpegs_of_64_by_64_pixels_some_grey_and_no_two_alike(members: dict[str, bytes]) -> None:
    files = [data for name, data in members.items() if name.endswith(".JPEG")]
    assert len(set(files)) == len(files) == 1200
    images = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) for data in files]
    assert all(data.startswith(b"\xff\xd8") for data in files)
    assert {image.shape for image in images} == {(64, 64), (64, 64, 3)}
    assert 0.02 < np.mean([image.ndim == 2 for image in images]) < 0.04
