"""The benchmarks, run small; the model of epoch time with many workers, on cases that can be worked out by hand."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import trained
from dvc.utils.hydra import compose_and_dump

from benchmarks import distributed, sureness
from benchmarks.distributed import Costs, Exchange, epoch_seconds, stops_scaling
from benchmarks.rivals import wait_for_workers
from frugalnet import config
from frugalnet.data.augment import write_views
from frugalnet.data.normalise import normalise
from frugalnet.errors import UserError
from frugalnet.files import write_json
from frugalnet.use import weights
from frugalnet.use.server.api import sure_from

ROOT = Path(__file__).parents[1]
GIGABIT = 1e9 / 8  # bytes
SPREAD = r"[\d,.]+ \([\d,.]+–[\d,.]+\)"


def test_an_all_reduce_crosses_each_link_with_almost_twice_its_bytes_in_two_rounds_for_each_doubling():
    assert Exchange(GIGABIT, 1).seconds(workers=1, gigabits=1) == 0
    assert Exchange(GIGABIT, 0).seconds(workers=2, gigabits=1) == 1
    assert Exchange(GIGABIT, 0).seconds(workers=4, gigabits=10) == pytest.approx(0.15)
    assert Exchange(0, 3).seconds(workers=8, gigabits=1) == pytest.approx(3 * 2 * 3 * 5e-5)


def test_an_epoch_is_the_share_of_its_images_and_what_is_said():
    costs = Costs(1000, 100, 0.1, step=Exchange(GIGABIT / 100, 0), exchange=Exchange(GIGABIT, 0))
    seconds = epoch_seconds(costs, gigabits=1)
    together, each = seconds["DDP, 100 images a step together"], seconds["DDP, 100 images a step each"]
    assert together[1] == each[1] == 100
    assert together[2] == pytest.approx(50 + 10 * 0.01)
    assert each[2] == pytest.approx(50 + 5 * 0.01)
    assert max(together) == 32  # two images each: no more than 50 workers
    assert seconds["global network, T = 1"][4] == pytest.approx(25 + 1.5)
    assert seconds["global network, T = 5"][4] == pytest.approx(25 + 1.5 / 5)


def test_scaling_stops_where_workers_are_used_less_than_half():
    assert stops_scaling({1: 8.0, 2: 4.0, 4: 3.0, 8: 3.0}) == 4


def record(folder: Path, *epochs: dict[str, float]) -> Path:
    """A run of 1,000 images in batches of 100, 100 seconds an epoch, with what each epoch exchanged."""
    write_json(folder / "run.json", {"n_train": 1000, "train": {"batch_size": 100}})
    write_json(folder / "timing.json", {"epoch_seconds": [90, 110]} | ({"exchange": epochs} if epochs else {}))
    return folder


def test_scaling_is_extrapolated_from_the_last_epochs_of_three_runs(tmp_path, monkeypatch, capsys):
    warm_up = {"payload_bytes": 8e6, "all_reduces": 24}
    ddp = record(tmp_path / "ddp", {"payload_bytes": 5e6, "all_reduces": 20})
    averaged = record(tmp_path / "averaged", warm_up, {"payload_bytes": 1e6, "all_reduces": 3})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["distributed", str(record(tmp_path / "single")), str(ddp), str(averaged)])
    distributed.main()
    scaling = json.loads((tmp_path / "results/scaling.json").read_text())
    assert (scaling["images"], scaling["batch_size"], scaling["image_seconds"]) == (1000, 100, 0.1)
    assert scaling["step"] == {"payload_bytes": 5e5, "all_reduces": 2}  # of ten steps
    assert scaling["exchange"] == {"payload_bytes": 1e6, "all_reduces": 3}
    assert re.search(r"^10 Gbit/s: .*\n +\d+ workers, DDP, 100 images a step together$", capsys.readouterr().out, re.M)


def test_a_run_without_workers_is_named(tmp_path):
    alone = record(tmp_path / "alone")
    with pytest.raises(UserError, match=r"alone: expected a run with workers"):
        distributed.read_costs(alone, alone, alone)


def test_nothing_is_measured_before_the_loaders_workers_rest(tmp_path):
    busy = "import sys, time\nwhile time.process_time() < 1.5: pass\nopen(sys.argv[1], 'w')\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", busy, str(tmp_path / "rests")]) as worker:
        while not psutil.Process(worker.pid).cpu_times().user:
            pass
        wait_for_workers()
        assert (tmp_path / "rests").exists()
        worker.kill()


def measure(folder: Path, module: str, *words: str) -> str:
    """What a benchmark prints that runs in `folder`."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", f"benchmarks.{module}", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_network_is_sure_where_its_best_class_has_at_least_the_threshold():
    logits = np.log(np.array([[0.6, 0.4], [0.6, 0.4], [0.5, 0.5], [0.1, 0.9]], np.float32))
    labels = np.array([0, 1, 1, 1])
    found = {threshold: sureness.shares(logits, labels, threshold) for threshold in (0.5, 0.55, 0.91)}
    expected = {0.5: ["100.0 %", "50.0 %", "–"], 0.55: ["75.0 %", "66.7 %", "0.0 %"], 0.91: ["0.0 %", "–", "50.0 %"]}
    assert {key: [cell.replace("\u00a0", " ") for cell in cells] for key, cells in found.items()} == expected


def test_what_not_sure_is_worth_is_measured_of_each_network_and_threshold(
    tmp_path, sample_archive, monkeypatch, capsys
):
    folder = trained.project(tmp_path, sample_archive)
    stored = weights.of_run(folder, "depthwise-0")
    weights.write_weights(folder / "weights", [stored])
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["sureness", "--weights", "weights"])
    sureness.main()
    _, _, *rows = capsys.readouterr().out.splitlines()
    thresholds = sorted([*sureness.THRESHOLDS, sure_from(len(stored.classes.ids))])
    assert [row.split(" | ")[:2] for row in rows] == [["| `depthwise-0`", f"{value:.0%}"] for value in thresholds]
    monkeypatch.setattr(sys, "argv", ["sureness"])
    with pytest.raises(UserError, match=r"data/arrays: sample, whose classes are not those of "):
        sureness.main()


@pytest.fixture
def prepared(tmp_path, sample_archive) -> Path:
    """A folder with params.yaml, and `data/` of 200 images and two views."""
    names = ["model=depthwise", "augment.views=2", "compute.threads=1"]
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", names)
    params = config.read_params(tmp_path / "params.yaml")
    few = params.data.model_copy(update={"train_per_class": 20})
    (tmp_path / "data").mkdir()
    shutil.copy(sample_archive, tmp_path / "data/archive.zip")
    normalise(sample_archive, tmp_path / "data/arrays", few, is_sample=True, processes=1)
    write_views(tmp_path / "data/arrays/train_images.npy", tmp_path / "data/views", params.augment, processes=1)
    return tmp_path


@pytest.mark.slow
def test_the_training_benchmark_measures_all_contestants_and_the_memory_of_each_network(prepared):
    printed = measure(prepared, "training", "--rounds", "1", "--steps", "1")
    assert re.search(rf"^depthwise +({SPREAD} +){{5}}$", printed, re.MULTILINE)  # images a second
    assert re.search(rf"^depthwise +({SPREAD} +){{3}}$", printed, re.MULTILINE)  # ratios
    network = json.loads((prepared / "results/benchmark.json").read_text())["networks"]["depthwise"]
    (rates,) = network["rounds"]
    assert rates["ours"] > rates["ours_all"] > 0
    assert min(rates["limit"], rates["plain"], rates["torchvision"]) > 0
    first, last = network["peak_bytes"]
    assert 10**8 < first <= last < 10**10
    assert not (prepared / "mlruns").exists()


@pytest.mark.slow
def test_the_gpu_benchmark_measures_steps_and_epochs_of_each_network(prepared):
    words = ["--device", "cpu", "--ways", "eager", "--rounds", "2", "--steps", "1", "--epochs", "1"]
    printed = measure(prepared, "gpu", *words)
    assert "'device': 'cpu'" in printed
    assert re.search(rf"^depthwise +eager +{SPREAD} +{SPREAD} ", printed, re.MULTILINE)


@pytest.mark.slow
def test_the_benchmark_of_photographs_compares_with_opencv(tmp_path):
    printed = measure(tmp_path, "pictures", "--count", "1", "--side", "32")
    assert re.search(r"^ratio: \d+\.\d\d; at least 0.8 is wanted$", printed, re.MULTILINE)


@pytest.mark.slow
def test_the_benchmark_of_serving_measures_both_servers_and_compares_them(tmp_path):
    printed = measure(tmp_path, "serving", "--model", "depthwise", "--rounds", "2", "--seconds", "0.5")
    for name in ("mlflow models serve", "frugalnet serve"):
        for clients in (1, 8, 32):
            assert re.search(rf"^\| {name} \| {clients} \| \d+ \(\d+ to \d+\) \|", printed, re.MULTILINE)
    assert re.search(r"^\d+\.\d times the requests per second at 8 clients", printed, re.MULTILINE)


def test_without_a_gpu_the_benchmark_says_so_in_one_line():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "bench-gpu: PyTorch finds no CUDA GPU: nothing was measured\n"
