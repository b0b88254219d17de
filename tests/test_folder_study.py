"""A study on a folder of photographs, through every stage: two classes of unequal size, fine-tuned, at 96×96 pixels."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stages import PREPARED, in_turn, study

from frugalnet.files import read_json
from frugalnet.mlflow_store import connect
from frugalnet.registry import promote
from frugalnet.use import weights

SMALL = [
    *("data=folder", "data.path=pictures"),
    *("robustness.pictures=1", "robustness.candidates=5", "robustness.generations=1", "robustness.corrupted=4"),
]


def photograph(path: Path, kind: int, number: int, size: tuple[int, int] = (180, 140)) -> None:
    """A disc or stripes of any colour on a ground of any colour."""
    generator = np.random.default_rng([kind, number])
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    middle = generator.uniform(0.4, 0.6, 2) * size
    shape = (x - middle[0]) ** 2 + (y - middle[1]) ** 2 < 2000 if kind == 0 else (x + y) // 12 % 2 == 0
    colours = generator.integers(0, 256, (2, 3))
    pixels = colours[shape.astype(int)] + generator.integers(-9, 10, (*shape.shape, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for name, kind, count in (("disc", 0, 30), ("stripes", 1, 12)):
        for number in range(count):
            photograph(folder / f"pictures/{name}/{number}.jpg", kind, number)
    stages = [*PREPARED, *in_turn(["depthwise"], "train"), ("measure",), *in_turn(["depthwise"], "evaluate", "export")]
    stages += [("robustness",), ("adapt", "depthwise", "seen"), ("compare",)]
    recipe = ("train=finetune", "train.epochs=2", "train.batch_size=8", "train.balance=sampling", "model=depthwise")
    (folder / "said.txt").write_text(study(folder, stages, *SMALL, *recipe, "data.side=96"))
    return folder


@pytest.fixture(scope="module")
def run(project: Path) -> dict[str, Any]:
    described: dict[str, Any] = read_json(project / "results/train/depthwise-0/run.json")
    return described


def test_the_run_says_its_size_its_start_and_its_balance(project: Path, run: dict[str, Any]) -> None:
    assert run["side"] == 96
    assert (run["data"], run["is_sample"], run["num_classes"]) == ("pictures", False, 2)
    stored = weights.choose_network("depthwise")
    assert run["start"] == {"file": stored.path.name, "sha256": stored.entry.sha256, "data": "tiny-imagenet"}
    assert (run["train"]["start"], run["train"]["balance"]) == ("committed", "sampling")
    assert (
        "depthwise-0 starts from depthwise-0.safetensors, trained on tiny-imagenet"
        in (project / "said.txt").read_text()
    )


def test_the_network_is_counted_and_timed_at_that_size(project: Path) -> None:
    metrics = read_json(project / "results/evaluate/depthwise-0/metrics.json")
    cost = read_json(project / "results/cost.json")["depthwise"]
    assert metrics["macs"] == pytest.approx(8_450_000, rel=0.01)
    assert cost["machine"]["input_shape"] == "3×96×96"


def test_the_report_is_of_these_data(project: Path) -> None:
    report = (project / "results/compare/report.md").read_text(encoding="utf-8")
    images = read_json(project / "results/evaluate/depthwise-0/metrics.json")["n"]
    assert f"on pictures: 2 classes, {images} images (96×96 pixels) of the hold-out of the training split." in report
    assert "The classes differ in size, from 12 to 30 images, so networks are ranked by macro accuracy" in report
    assert "start weights trained on tiny-imagenet" in report
    assert (
        "Training on the device: not measured, as the data do not suffice: 3 draws of 10 classes each are too many"
        in report
    )
    assert "## Robustness" in report
    for word in ("paper", "Top-5", "Tiny ImageNet"):
        assert word not in report


def test_mlflow_holds_the_run_and_a_model_of_these_data(project: Path, run: dict[str, Any]) -> None:
    client, experiment = connect(project)
    (tracked,) = client.search_runs([experiment], f"tags.fingerprint = '{run['fingerprint']}'")
    assert "final/top1" in tracked.data.metrics
    assert not [name for name in tracked.data.metrics if name.endswith("top5")]
    (version,) = client.search_model_versions("name = 'frugalnet-pictures-depthwise'")
    assert version.run_id == tracked.info.run_id
    metrics = read_json(project / "results/evaluate/depthwise-0/metrics.json")
    ranked_by = f"mean macro accuracy {metrics['macro_accuracy']:.2%} over 1 seed"  # as in the report
    assert [ranked_by in line for line in promote(project)] == [True, True]


def test_predict_names_its_classes_at_its_size(project: Path, tmp_path: Path) -> None:
    photograph(tmp_path / "new.png", 1, 99, (400, 300))
    words = [
        "predict",
        "--json",
        "--weights",
        str(project / "models/depthwise-0.safetensors"),
        str(tmp_path / "new.png"),
    ]
    command = [sys.executable, "-m", "frugalnet.use.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (answer,) = json.loads(done.stdout)
    assert answer["changes"] == ["centre-cropped and scaled from 400×300 to 96×96"]
    assert {guess["name"] for guess in answer["top"]} == {"disc", "stripes"}


@pytest.mark.slow
def test_300_classes_of_three_pictures_at_32_pixels(tmp_path: Path) -> None:
    for label in range(300):
        for number in range(3):
            photograph(tmp_path / f"pictures/kind {label}/{number}.png", label % 2, 1000 * label + number, (50, 40))
    stages = [*PREPARED, *in_turn(["depthwise"], "train"), ("measure",), *in_turn(["depthwise"], "evaluate")]
    stages += [("adapt", "depthwise", "seen"), ("robustness",), ("compare",)]
    quick = ("model=depthwise", "train.epochs=1", "robustness=none", "data.side=32")
    study(tmp_path, stages, *SMALL, *quick)
    report = (tmp_path / "results/compare/report.md").read_text(encoding="utf-8")
    assert re.search(r"300 classes, \d+ images \(32×32 pixels\) of the hold-out", report)
    assert "differ in size" not in report
    assert (
        "not measured, as the data do not suffice: 50 pictures of each class to train on, but one has only 1" in report
    )
    assert (tmp_path / "results/compare/report.html").stat().st_size < 4_000_000
