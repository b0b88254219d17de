"""The model of epoch time with many workers, on cases that can be worked out by hand; the GPU benchmark, on the CPU."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from dvc.utils.hydra import compose_and_dump

from benchmarks import benchmark, settings
from benchmarks.distributed import Exchange, all_reduce_seconds, epoch_seconds, stops_scaling
from frugalnet import config
from frugalnet.data.augment import write_views
from frugalnet.data.normalise import normalise
from frugalnet.errors import UserError
from frugalnet.files import write_json

ROOT = Path(__file__).parents[1]
GIGABIT = 1e9 / 8  # bytes


def test_an_all_reduce_crosses_each_link_with_almost_twice_its_bytes_in_two_rounds_for_each_doubling():
    assert all_reduce_seconds(GIGABIT, 1, workers=1, gigabits=1, latency=1) == 0
    assert all_reduce_seconds(GIGABIT, 0, workers=2, gigabits=1, latency=1) == 1
    assert all_reduce_seconds(GIGABIT, 0, workers=4, gigabits=10, latency=1) == pytest.approx(0.15)
    assert all_reduce_seconds(0, 3, workers=8, gigabits=1, latency=0.5) == 3 * 2 * 3 * 0.5


def test_an_epoch_is_the_share_of_its_images_and_what_is_said():
    step, exchange = Exchange(GIGABIT / 100, 0), Exchange(GIGABIT, 0)
    seconds = epoch_seconds(1000, 100, 0.1, step, exchange, gigabits=1, latency=0)
    together, each = seconds["DDP, 100 images a step together"], seconds["DDP, 100 images a step each"]
    assert together[1] == each[1] == 100
    assert together[2] == pytest.approx(50 + 10 * 0.01)
    assert each[2] == pytest.approx(50 + 5 * 0.01)
    assert max(together) == 32  # two images each: no more than 50 workers
    assert seconds["global network, T = 1"][4] == pytest.approx(25 + 1.5)
    assert seconds["global network, T = 5"][4] == pytest.approx(25 + 1.5 / 5)


def test_scaling_stops_where_workers_are_used_less_than_half():
    assert stops_scaling({1: 8.0, 2: 4.0, 4: 3.0, 8: 3.0}) == 4


def test_nothing_is_measured_before_the_loaders_workers_rest(tmp_path):
    busy = "import sys, time\nwhile time.process_time() < 1.5: pass\nopen(sys.argv[1], 'w')\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", busy, str(tmp_path / "rests")]) as worker:
        while not psutil.Process(worker.pid).cpu_times().user:
            pass
        benchmark.wait_for_workers()
        assert (tmp_path / "rests").exists()
        worker.kill()


@pytest.mark.slow
def test_the_gpu_benchmark_measures_steps_and_epochs_of_each_network(tmp_path, sample_archive):
    params = config.load(ROOT / "params.yaml")
    few = params.data.model_copy(update={"train_per_class": 20})
    (tmp_path / "data").mkdir()
    shutil.copy(sample_archive, tmp_path / "data/archive.zip")
    normalise(sample_archive, tmp_path / "data/arrays", few, is_sample=True, processes=1)
    once = params.augment.model_copy(update={"views": 1})
    write_views(tmp_path / "data/arrays/train_images.npy", tmp_path / "data/views", once, processes=1)
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", ["model=depthwise"])
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--ways", "eager"]
    command += ["--rounds", "2", "--steps", "1", "--epochs", "1"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    (case,) = json.loads((tmp_path / "results/benchmark_gpu.json").read_text())
    assert (case["model"], case["way"], len(case["rounds"])) == ("depthwise", "eager", 2)
    for one in case["rounds"]:
        assert one["epoch_seconds"] * one["epoch"] == pytest.approx(20 * 10)
        assert one["step"] > 0
        assert one["machine"]["device"] == "cpu"
    assert re.search(r"^depthwise +eager +\d+ \(\d+–\d+\)", found.stdout, re.MULTILINE)


def test_without_a_gpu_the_benchmark_says_so_in_one_line():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu"]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "bench-gpu: PyTorch finds no CUDA GPU: nothing was measured\n"


@pytest.fixture
def project(tmp_path, monkeypatch) -> SimpleNamespace:
    """The stages that settings `ran`, on images with these `hashes`; each `train` leaves the record of a run."""
    found = SimpleNamespace(ran=[], hashes={"train_images": "a"})

    def stage(folder: Path, name: str, *words: str) -> None:
        found.ran.append(name)
        if name == "train":
            write_json(folder / "results/train/residual-0/run.json", {})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "_stage", stage)
    monkeypatch.setattr(settings.arrays, "load", lambda folder: SimpleNamespace(sha256=found.hashes))
    return found


def test_a_setting_runs_again_only_with_other_parameters_or_images(project, tmp_path):
    def train(*overrides: str) -> list[str]:
        project.ran.clear()
        settings.train("a setting", overrides, tmp_path / "out", "residual")
        return [*project.ran]

    assert train("train.epochs=2") == ["train"]
    assert train("train.epochs=2") == []
    assert train("train.epochs=3") == ["train"]
    project.hashes["train_images"] = "b"
    assert train("train.epochs=3") == ["train"]
    assert train("train.epochs=3", "augment.views=1") == ["augment", "train"]
    assert train("train.epochs=3") == ["train"]
    assert (tmp_path / "out/data").is_symlink()


@pytest.mark.parametrize("place", ["the images", "the stage"])
def test_an_interrupted_setting_is_not_taken_for_one_of_other_parameters(project, tmp_path, monkeypatch, place):
    def train(epochs: int) -> None:
        settings.train("a setting", [f"train.epochs={epochs}"], tmp_path / "out", "residual")

    train(2)
    with monkeypatch.context() as patch:
        where, name = (settings.arrays, "load") if place == "the images" else (settings, "_stage")
        patch.setattr(where, name, lambda *_: sys.exit(130))
        with pytest.raises(SystemExit):
            train(3)
    project.ran.clear()
    train(3)
    assert project.ran == ["train"]


def test_an_override_that_hydra_refuses_is_one_line(project, tmp_path):
    with pytest.raises(UserError, match=r"^model=nope: .*nope"):
        settings.train("a setting", ["model=nope"], tmp_path / "out", "residual")
