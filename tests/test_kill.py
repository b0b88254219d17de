"""The real training process, killed: what it leaves, and what comes of running it again."""

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import augmentation
from disks import read_only, small_disk
from dvc.utils.hydra import compose_and_dump

from frugalnet.data.augment import write_views
from frugalnet.data.config import NormaliseConfig
from frugalnet.data.normalise import normalise
from frugalnet.mlflow_store import connect

ROOT = Path(__file__).parents[1]
RESULTS = [
    "models/depthwise-0.safetensors",
    "results/train/depthwise-0/history.csv",
    "results/train/depthwise-0/run.json",
]


def compose(folder: Path, *overrides: str) -> None:
    small = ["data=sample", "train=demo", "train.epochs=4", "model=depthwise", "compute.threads=1"]
    # A checkpoint after every step: every moment is near the writing of one.
    every_step = "compute.checkpoint_minutes=1e-9"
    compose_and_dump(folder / "params.yaml", str(ROOT / "conf"), None, "config", "", [*small, every_step, *overrides])


@pytest.fixture(scope="module")
def data(tmp_path_factory, sample_archive) -> Path:
    folder = tmp_path_factory.mktemp("data")
    config = NormaliseConfig(
        name="sample", classes=None, train_per_class=20, holdout=0, side=64, max_unpacked_bytes=10**9
    )
    normalise(sample_archive, folder / "arrays", config, is_sample=True, processes=1)
    write_views(folder / "arrays" / "train_images.npy", folder / "views", augmentation(views=2), processes=1)
    connect(folder)  # an empty database, that each project gets a copy of: making one takes seconds
    del os.environ["MLFLOW_TRACKING_URI"]  # which mlflow sets
    return folder


@pytest.fixture
def project(tmp_path, data) -> Path:
    prepare(tmp_path, data)
    return tmp_path


def prepare(folder: Path, data: Path) -> None:
    (folder / "data").symlink_to(data)
    shutil.copytree(data / "mlruns", folder / "mlruns")
    compose(folder)


def start(project: Path, stage: str = "train") -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "DVC_ROOT": str(project)}
    return subprocess.Popen(
        [sys.executable, "-m", f"pipeline.{stage}", "depthwise", "0"],
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(project: Path, code: int = 0) -> str:
    """Run the stage to its end; what it said."""
    process = start(project)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == code, said
    return said


def results(project: Path) -> dict[str, bytes]:
    return {name: (project / name).read_bytes() for name in RESULTS}


def checkpoints(project: Path) -> list[Path]:
    return sorted(project.glob(".checkpoints/train/*/*.ckpt"))


def wait_for_checkpoint(project: Path, process: subprocess.Popen, newer_than: str = "") -> None:
    while not (found := checkpoints(project)) or found[-1].stem <= newer_than:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data) -> Path:
    """A project whose run has ended without interruption; its last checkpoint waits for the evaluation."""
    folder = tmp_path_factory.mktemp("finished")
    prepare(folder, data)
    train(folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(finished) -> dict[str, bytes]:
    return results(finished)


def assert_one_run_with_the_whole_curve(project: Path) -> None:
    client, experiment_id = connect(project)
    (run,) = client.search_runs([experiment_id])
    assert run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "curves/validation_top1")] == [1, 2, 3, 4]


def assert_resumed(said: str, reached: str) -> None:
    """Nothing that the checkpoint `reached` holds is done again."""
    if reached:
        assert f"epoch {int(reached[:5]) + 1}, step {int(reached[6:14]) + 1}" in said


def kill(project: Path, kills: int, seed: int) -> None:
    """Start the run and kill it, so many times."""
    moments, reached = random.Random(seed), ""
    for number in range(kills):
        process = start(project)
        if number % 2:  # at the writing of a checkpoint; else wherever the time leads
            wait_for_checkpoint(project, process, reached)
            while not list(project.glob(".checkpoints/train/*/*.partial")) and process.poll() is None:
                pass
        else:
            wait_for_checkpoint(project, process, reached)
            time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, f"it ended before kill {number + 1} of {kills}"
        assert_resumed(said, reached)
        reached = checkpoints(project)[-1].stem


def interrupt(project: Path, number: signal.Signals) -> None:
    """Stop the run with a signal after its next checkpoint."""
    reached = found[-1].stem if (found := checkpoints(project)) else ""
    process = start(project)
    wait_for_checkpoint(project, process, reached)
    sent = time.monotonic()
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert time.monotonic() - sent < 10
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}; a checkpoint is written" in said
    assert_resumed(said, reached)
    client, experiment_id = connect(project)
    assert client.search_runs([experiment_id])[0].info.status == "KILLED"


def test_killed_and_then_stopped_a_run_ends_with_the_same_bits_in_one_mlflow_run(project, uninterrupted):
    kill(project, kills=1, seed=0)
    interrupt(project, signal.SIGINT)
    train(project)
    assert results(project) == uninterrupted
    assert_one_run_with_the_whole_curve(project)


@pytest.mark.slow
def test_killed_at_ten_moments_a_run_ends_with_the_same_bits_in_one_mlflow_run(project, uninterrupted):
    kill(project, kills=10, seed=1)
    train(project)
    assert results(project) == uninterrupted
    assert_one_run_with_the_whole_curve(project)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_a_checkpoint_and_a_code_that_means_failure(project, uninterrupted, number):
    interrupt(project, number)
    train(project)
    assert results(project) == uninterrupted
    assert_one_run_with_the_whole_curve(project)


@pytest.mark.slow  # test_batches.py corrupts one by default
def test_a_corrupted_view_is_refused_by_name(project, data):
    (project / "data").unlink()
    shutil.copytree(data, project / "data")
    view = project / "data" / "views" / "view_1.npy"
    content = bytearray(view.read_bytes())
    content[-1000] ^= 1
    view.write_bytes(content)
    said = train(project, code=1)
    assert "data/views/view_1.npy: missing or damaged" in said
    assert "Traceback" not in said
    assert not (project / "models").exists()


@pytest.fixture(scope="module")
def untracked(tmp_path_factory, finished, data) -> tuple[Path, str]:
    """A run without a server, beside the checkpoints of one with other parameters; and what it said."""
    folder = tmp_path_factory.mktemp("untracked")
    prepare(folder, data)
    shutil.copytree(finished / ".checkpoints", folder / ".checkpoints")
    compose(folder, "train.momentum=0.8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port: nobody listens
        return folder, train(folder)


def test_checkpoints_of_other_parameters_are_not_used(untracked):
    project, said = untracked
    assert "resuming" not in said
    assert "checkpoints of depthwise-0 with other parameters, data, code or machine are not used" in said
    assert np.isfinite(np.loadtxt(project / RESULTS[1], delimiter=",", skiprows=1)).all()


def test_a_training_without_a_server_and_an_evaluation_with_one_make_the_complete_run(untracked, data):
    project, said = untracked
    (data / "contact_sheet.png").touch()
    (line,) = [line for line in said.splitlines() if line.startswith("tracking: ")]
    assert "its curves could not be logged" in line
    evaluation = start(project, "evaluate")
    said = evaluation.communicate(timeout=600)[1]
    assert evaluation.returncode == 0, said
    assert "tracking: " not in said
    assert_one_run_with_the_whole_curve(project)
    client, experiment_id = connect(project)
    (run,) = client.search_runs([experiment_id])
    trained = json.loads((project / RESULTS[2]).read_text())
    assert {key: run.data.tags[key] for key in ("fingerprint", "weights_sha256")} == {
        key: trained[key] for key in ("fingerprint", "weights_sha256")
    }
    assert run.data.params["train.epochs"] == "4"
    assert int(run.data.params["train_macs"]) > 0
    assert run.data.metrics["final/top1"] > 0
    files = {file.path for file in client.list_artifacts(run.info.run_id, "depthwise-0")}
    assert {"depthwise-0/history.csv", "depthwise-0/run.json", "depthwise-0/metrics.json"} <= files


@pytest.mark.slow  # MLflow itself waits half a minute; a server that is away is tested by default
def test_a_locked_database_costs_no_training(project, uninterrupted):
    process = start(project)
    wait_for_checkpoint(project, process)
    lock = sqlite3.connect(project / "mlruns" / "mlflow.db")
    lock.execute("BEGIN EXCLUSIVE")
    said = process.communicate(timeout=600)[1]
    lock.rollback()
    assert process.returncode == 0, said
    assert results(project) == uninterrupted


@pytest.mark.slow  # files and data stages on a full disk are tested by default
@pytest.mark.parametrize(("place", "kilobytes"), [(".checkpoints", 1100), ("models", 4)])
def test_a_full_disk_is_said_and_costs_only_what_it_could_not_hold(project, uninterrupted, place, kilobytes):
    with small_disk(project / place, kilobytes):
        said = train(project, code=1)
        assert "train: No space left on device" in said
        assert "Traceback" not in said
        assert not list((project / place).rglob("*.partial"))
        kept = checkpoints(project)
        shutil.copytree(project / ".checkpoints", project / "kept")
    if place == ".checkpoints":  # what the small disk held is moved to a larger one
        shutil.copytree(project / "kept", project / ".checkpoints", dirs_exist_ok=True)
    assert len(kept) == 2
    said = train(project)
    assert f"resuming from the checkpoint: epoch {int(kept[-1].stem[:5]) + 1}" in said
    assert results(project) == uninterrupted
    assert_one_run_with_the_whole_curve(project)


@pytest.mark.slow
def test_a_read_only_folder_is_said_and_costs_no_training(project, uninterrupted):
    with small_disk(project / "models", 4, read_only=True):
        said = train(project, code=1)
        assert "train: Read-only file system: " in said
        assert "Traceback" not in said
    assert "resuming from the checkpoint: epoch 5" in train(project)
    assert results(project) == uninterrupted


@pytest.mark.slow
def test_data_are_only_read(project, uninterrupted):
    with read_only(project / "data"):
        train(project)
    assert results(project) == uninterrupted


@pytest.mark.slow
def test_two_hundred_epochs_take_no_more_memory_and_files_than_twenty(project):
    compose(project, "train.epochs=200", "compute.checkpoint_minutes=5.0")
    process = start(project)
    used = {}
    for line in process.stderr:
        if found := re.search(r"epoch (20|200)/200: loss", line):
            status = Path(f"/proc/{process.pid}/status").read_text()
            used[found[1]] = (
                int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]),
                len(list(Path(f"/proc/{process.pid}/fd").iterdir())),
            )
    assert process.wait() == 0
    (memory_20, files_20), (memory_200, files_200) = used["20"], used["200"]
    assert memory_200 < 1.02 * memory_20
    assert files_200 == files_20


def wait_for_host(project: Path, process: subprocess.Popen) -> None:
    while not list(project.glob(".checkpoints/train/*/host-0/*.ckpt")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.slow
def test_a_second_identical_run_waits_for_the_first_ones_workers_however_long_they_take(project):
    two = ["distributed=global_net", "distributed.workers=2", "launch.restarts=0"]
    compose(project, *two)
    first = start(project)
    wait_for_host(project, first)
    first.send_signal(signal.SIGSTOP)
    compose(project, *two, "launch.timeout_minutes=0.1")  # in which its workers must have found one another
    second = start(project)
    waiting = ": waiting for process "
    assert any(waiting in line for line in second.stderr)
    time.sleep(10)
    first.send_signal(signal.SIGCONT)
    said = second.communicate(timeout=600)[1]
    assert first.wait(timeout=600) == 0
    assert second.returncode == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["global_net", "ddp"])
def test_workers_killed_end_with_the_same_bits_in_one_mlflow_run(project, kind):
    compose(project, f"distributed={kind}", "distributed.workers=2")
    train(project)
    undisturbed = results(project)
    shutil.rmtree(project / ".checkpoints")
    shutil.rmtree(project / "mlruns")
    process = start(project)
    wait_for_host(project, process)
    children = (Path("/proc") / str(process.pid) / "task" / str(process.pid) / "children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    assert "resuming from the checkpoint" in said
    assert results(project) == undisturbed
    assert_one_run_with_the_whole_curve(project)
    client, experiment_id = connect(project)
    (run,) = client.search_runs([experiment_id])
    assert {"distributed.kind", "distributed.workers"} <= run.data.params.keys()
    curves = {f"sub_models/validation_top1_{rank}" for rank in range(2)}
    assert run.data.metrics.keys() & curves == (curves if kind == "global_net" else set())
