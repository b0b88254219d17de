import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import FIRST, IDS, ROOT, Members, config, made, pack, refused
from disks import small_disk
from dvc.utils.hydra import compose_and_dump
from PIL import Image
from pydantic import ValidationError

from frugalnet.config import read_params
from frugalnet.data.arrays import FILES, Dataset, read_dataset
from frugalnet.data.normalise import normalise
from frugalnet.errors import UserError
from frugalnet.files import sha256, write_json
from frugalnet.pictures import read_picture
from frugalnet.training.batches import Examples, Normaliser
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.loop import fit
from frugalnet.training.trainer import Trainer

PROJECT = Path(__file__).parents[1]


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


def test_statistics_are_the_training_splits(sample_archive: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.symlink_to(sample_archive)
    data = made(archive, processes=2)
    pixels = np.asarray(data.train.images, np.float64)
    np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std(axis=(0, 1, 2)), rtol=1e-12)
    assert data.train.images.shape == (1000, 64, 64, 3)
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int64
    assert np.bincount(data.validation.labels).tolist() == [20] * 10


def test_a_channel_of_one_value_is_centred_and_a_network_trains_on_it(small: Members, tmp_path: Path) -> None:
    members = {name: without_blue(data) if name.endswith("JPEG") else data for name, data in small.items()}
    data = made(pack(tmp_path / "a.zip", members))
    assert data.mean[2] == 30
    assert data.std[2] == 1
    assert min(data.std[:2]) > 10
    changes = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01}
    recipe = read_params(PROJECT / "params.yaml").train.model_copy(update=changes)
    normaliser = Normaliser(data.mean, data.std, torch.device("cpu"))
    trainer = Trainer("depthwise", 0, len(data.class_ids), len(data.train.labels), normaliser, recipe)
    images = np.array(data.train.images)
    examples = Examples(lambda _: images, np.array(data.train.labels))
    fit(trainer, examples, data.validation, Checkpoints(tmp_path / "checkpoints"))
    losses = [row["train_loss"] for row in trainer.history.rows]
    assert len(losses) == 2
    assert np.isfinite(losses).all()


def without_blue(file: bytes) -> bytes:
    """The picture as PNG, which keeps every value, with 30 in its whole blue channel."""
    red, green, blue = Image.open(io.BytesIO(file)).convert("RGB").split()
    png = io.BytesIO()
    Image.merge("RGB", (red, green, blue.point([30] * 256))).save(png, "PNG")
    return png.getvalue()


def test_neither_processes_nor_the_order_of_members_change_a_byte(
    small: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frugalnet.data.decode.CHUNK_PIXELS", 2 * 64**2)
    ones = made(pack(tmp_path / "a.zip", small), processes=1)
    shuffled = dict(random.Random(1).sample(sorted(small.items()), len(small)))
    threes = made(pack(tmp_path / "b.zip", shuffled), processes=3)
    files = [(tmp_path / f"arrays-{processes}" / "dataset.json").read_bytes() for processes in (1, 3)]
    assert files[0] == files[1]
    assert ones.sha256.keys() == {f"{s}_{p}.npy" for s in ("train", "validation") for p in ("images", "labels")}
    np.testing.assert_array_equal(ones.train.images, threes.train.images)


def photograph(width: int, height: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(width).integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    Image.fromarray(noise).resize((width, height)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("side", [32, 96])
def test_pictures_of_any_size_are_scaled_as_predict_does_whatever_the_tasks(
    side: int, small: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frugalnet.data.decode.CHUNK_PIXELS", 5 * side**2)
    small[FIRST] = photograph(2000, 1300)
    data = made(pack(tmp_path / "a.zip", small), side=side)
    assert data.side == side
    assert data.train.images.shape == (12, side, side, 3)
    assert data.validation.images.shape == (6, side, side, 3)
    assert np.array_equal(data.train.images[0], read_picture(small[FIRST], FIRST, side).pixels)
    pixels = np.asarray(data.train.images).reshape(-1, 3)
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0))
    np.testing.assert_allclose(data.std, pixels.std(axis=0))


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
    assert data.sha256 == made(pack(tmp_path / "b.zip", small)).sha256  # so dvc.lock serves both archives


@pytest.mark.parametrize("key", ["classes", "train_per_class", "holdout", "max_unpacked_bytes", "name"])
def test_impossible_values_are_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        config(**{key: "" if key == "name" else -1})


@pytest.mark.parametrize("side", [31, 257])
def test_a_side_that_no_network_is_made_for_is_refused(side: int) -> None:
    with pytest.raises(ValidationError, match="side"):
        config(side=side)


def test_an_image_that_cannot_be_decoded_is_named_and_leaves_nothing(small: Members, tmp_path: Path) -> None:
    assert f"{ROOT}{FIRST} is a truncated JPEG" in refused(
        pack(tmp_path / "a.zip", small | {FIRST: small[FIRST][:-300]})
    )


# What is killed, full or damaged


@pytest.fixture
def project(sample_archive: Path, tmp_path: Path) -> Path:
    """A project folder with the sample archive and a parameter file."""
    compose_and_dump(tmp_path / "params.yaml", str(PROJECT / "conf"), None, "config", "", ["data=sample"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data/archive.zip").symlink_to(sample_archive)
    return tmp_path


STAGE = ("-m", "pipeline.normalise")
# The same work without the stage's check of all parameters, which imports torch.
WORK = (
    "-c",
    "from pathlib import Path; from frugalnet.data.config import NormaliseConfig; "
    "from frugalnet.data.normalise import normalise\n"
    "if __name__ == '__main__': normalise(Path('data/archive.zip'), Path('data/arrays'), "
    f"NormaliseConfig(**{config(name='sample').model_dump()}), is_sample=True, processes=2)",
)


def start(project: Path, *what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *what],
        cwd=project,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_partial(project: Path, process: subprocess.Popen[str]) -> None:
    while not list((project / "data").glob("arrays.*.partial/train_images.npy")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


def assert_whole(project: Path, expected: dict[str, str]) -> None:
    data = read_dataset(project / "data/arrays")
    assert data.sha256 == expected == {name: sha256(project / "data/arrays" / name) for name in data.sha256}
    assert {path.name for path in (project / "data").iterdir()} == {"archive.zip", "arrays"}


@pytest.fixture(scope="module")
def whole(sample_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The sample's data set, made without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "arrays"
    normalise(sample_archive, folder, config(max_unpacked_bytes=10**9), is_sample=True, processes=2)
    return read_dataset(folder)


def test_two_at_the_same_time_leave_one_whole_folder_and_the_second_says_that_it_waits(
    project: Path, whole: Dataset
) -> None:
    first = start(project, *STAGE)
    wait_for_partial(project, first)
    os.kill(first.pid, signal.SIGSTOP)  # until the second has come as far
    second = start(project, *WORK)
    assert second.stderr is not None
    assert second.stderr.readline() == f"data/arrays: waiting for process {first.pid}, which is writing it\n"
    os.kill(first.pid, signal.SIGCONT)
    for process in (first, second):
        assert (process.communicate()[1], process.returncode) == ("", 0)
    assert_whole(project, whole.sha256)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_killed_and_run_again_it_ends_with_the_same_bytes(project: Path, whole: Dataset) -> None:
    killed = start(project, *WORK)
    wait_for_partial(project, killed)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (project / "data/arrays").exists()
    deadline = time.monotonic() + 20
    while group_lives(killed.pid):  # its decoding processes end with it
        assert time.monotonic() < deadline
        time.sleep(0.01)
    again = start(project, *WORK)
    assert (again.communicate()[1], again.returncode) == ("", 0)
    assert_whole(project, whole.sha256)


@pytest.mark.parametrize("lost", [*FILES, "dataset.json"])
def test_what_is_not_whole_never_takes_the_folders_name(
    lost: str, small: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_lose(path: Path, value: object) -> None:
        write_json(path, value)
        (path.parent / lost).unlink()

    monkeypatch.setattr("frugalnet.data.normalise.write_json", write_and_lose)
    monkeypatch.setattr("frugalnet.data.normalise.decode_members", decode_here)
    assert f"{lost}'" in refused(pack(tmp_path / "a.zip", small))


def decode_here(archive: Path, members: dict[Path, list[str]], side: int, processes: int) -> dict[Path, np.ndarray]:
    """Black images of the right number, without processes."""
    for path, names in members.items():
        np.save(path, np.zeros((len(names), side, side, 3), np.uint8))
    return dict.fromkeys(members, np.eye(3, 256, dtype=np.int64))


def test_a_full_disk_is_said_and_leaves_nothing(sample_archive: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", kilobytes=5000) as disk:
        with pytest.raises(OSError, match=f"No space left on device: '{disk}/arrays") as error:
            normalise(sample_archive, disk / "arrays", config(), is_sample=True, processes=2)
        assert error.value.errno == errno.ENOSPC
        assert list(disk.iterdir()) == []


def test_a_read_only_folder_is_named(sample_archive: Path, tmp_path: Path) -> None:
    said = f"Read-only file system: '{tmp_path}/sealed/arrays'"
    with small_disk(tmp_path / "sealed", kilobytes=5000, read_only=True) as disk, pytest.raises(OSError, match=said):
        normalise(sample_archive, disk / "arrays", config(), is_sample=True, processes=2)


@pytest.fixture(scope="module")
def small_arrays(_small: Members, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    made(pack(folder / "a.zip", _small))
    return folder / "arrays-1"


@pytest.mark.parametrize(
    "damage", ["missing", "no description", "hollow", "no hashes", "short", "empty", "another count"]
)
def test_a_folder_that_is_not_whole_is_not_loaded(damage: str, small_arrays: Path, tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    shutil.copytree(small_arrays, folder)
    description = json.loads((folder / "dataset.json").read_text())
    match damage:
        case "missing":
            (folder / "train_images.npy").unlink()
        case "no description":
            (folder / "dataset.json").write_text(json.dumps({"name": "tiny"}))
        case "hollow" | "no hashes":
            (folder / "dataset.json").write_text(json.dumps(description | {"sha256": {}}))
            for path in folder.glob("*.npy") if damage == "hollow" else []:
                path.unlink()
        case "short":
            os.truncate(folder / "train_images.npy", 1000)
        case "empty":
            os.truncate(folder / "train_labels.npy", 0)
        case "another count":
            np.save(folder / "train_labels.npy", np.zeros(3, np.int64))
    said = rf"{folder} holds no complete data set .*; make it again: rm -rf \.dvc/cache/runs && dvc repro --force"
    with pytest.raises(UserError, match=said):
        read_dataset(folder)


# With DVC


def dvc(project: Path) -> dict[str, str]:
    """Make the project one of DVC's with this stage alone; the environment to run it in."""
    (project / "dvc.yaml").write_text(
        "stages: {normalise: {cmd: python -m pipeline.normalise, deps: [data/archive.zip], outs: [data/arrays]}}"
    )
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)]),
        "DVC_NO_ANALYTICS": "true",
    }
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=project, env=environment, check=True)
    return environment


@pytest.mark.slow
def test_what_the_reader_advises_heals_a_hollow_folder_that_the_run_cache_of_dvc_holds(
    project: Path, whole: Dataset
) -> None:
    environment, folder = dvc(project), project / "data/arrays"

    def shell(command: str) -> None:
        subprocess.run(command, cwd=project, env=environment, shell=True, check=True)  # noqa: S602  # as a user does

    shell("dvc repro -q normalise")
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "dataset.json").write_text('{"sha256": {}}')
    shell("dvc commit -q -f normalise")  # as if the stage had ended so
    start_over = "rm -rf data/arrays dvc.lock && dvc repro -q normalise"
    shell(start_over)
    with pytest.raises(UserError, match="holds no complete data set") as error:
        read_dataset(folder)  # the run cache has given it back
    shell(str(error.value).split("make it again: ")[1])
    assert_whole(project, whole.sha256)
    shell(start_over)
    assert_whole(project, whole.sha256)


@pytest.mark.slow
def test_a_killed_dvc_takes_the_stage_with_it_and_run_again_it_ends_with_the_same_bytes(
    project: Path, whole: Dataset
) -> None:
    environment = dvc(project)
    killed = subprocess.Popen(
        ["dvc", "repro"], cwd=project, env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    wait_for_partial(project, killed)
    killed.kill()
    killed.communicate()  # which waits until the stage has closed the pipe, too
    assert not (project / "data/arrays").exists()
    subprocess.run(["dvc", "repro", "-q"], cwd=project, env=environment, check=True)
    assert_whole(project, whole.sha256)
