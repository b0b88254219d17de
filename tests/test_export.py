"""The files for other runtimes: the network's own classes, the same bytes, a gate, and real measurements."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trained
from PIL import Image

from frugalnet import models, pictures
from frugalnet.data import arrays
from frugalnet.data.arrays import Dataset, Split
from frugalnet.errors import UserError
from frugalnet.export import formats, onnx_files, runtimes
from frugalnet.export.config import ExportConfig
from frugalnet.export.description import Description
from frugalnet.export.formats import Format
from frugalnet.export.measure import measure_accuracy, measure_costs
from frugalnet.export.result import ExportCosts, ExportResult
from frugalnet.export.runtimes import Runnable
from frugalnet.files import read_record, write_json
from frugalnet.metrics.config import MeasureConfig
from frugalnet.use import exported, weights

CONFIG = ExportConfig(calibration_images=50, max_loss_points=2.0)
needs_executorch = pytest.mark.skipif(not runtimes.has_executorch(), reason="the extra `device` is not installed")


@pytest.fixture(scope="module")
def project(tmp_path_factory, sample_archive) -> Path:
    folder = trained.project(tmp_path_factory.mktemp("trained"), sample_archive, ("depthwise-0", "depthwise-1"))
    for name in ("depthwise-0", "depthwise-1"):
        (folder / "results/export" / name).mkdir(parents=True)
        written(folder, name)
    return folder


def written(project: Path, name: str, data: Dataset | None = None, out: Path | None = None) -> Path:
    out = out or project / "results/export" / name
    data = data or arrays.read_dataset(project / "data/arrays")
    exported.write_stored(weights.of_run(project, name), data.train.images, CONFIG, out)
    return out


def runnables(project: Path, name: str = "depthwise-0") -> dict[Format, Runnable]:
    return exported.runnables(weights.of_run(project, name), project / "results/export" / name)


def test_the_onnx_file_gives_pytorchs_logits_for_any_number_of_images(project):
    images = np.array(arrays.read_dataset(project / "data/arrays").validation.images)
    expected = runnables(project)["pytorch"].open()(images)
    run = runnables(project)["onnx"].open()
    for count in (1, 3, 200):
        assert np.allclose(run(images[:count]), expected[:count], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", models.available())
def test_every_architecture_leaves_pytorch(project, model):
    data, name = arrays.read_dataset(project / "data/arrays"), f"{model}-7"
    trained.finish(project, data, name)
    (project / "results/export" / name).mkdir()
    written(project, name)
    images = np.array(data.validation.images[:50])
    given = {kind: file.open()(images) for kind, file in runnables(project, name).items()}
    expected = given.pop("pytorch")
    optional = {"executorch": runtimes.has_executorch(), "tflite": runtimes.has_tflite()}
    assert set(given) == {"onnx", "int8", *(kind for kind, installed in optional.items() if installed)}
    for kind in {*formats.QUANTISED} & given.keys():
        assert np.abs(given.pop(kind) - expected).max() < np.abs(expected).max()
    for logits in given.values():
        assert np.allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_the_same_network_gives_the_same_bytes_whatever_it_is_validated_on_and_no_path_of_this_machine(
    project, tmp_path
):
    data = arrays.read_dataset(project / "data/arrays")
    other = replace(data, validation=Split(255 - np.array(data.validation.images), data.validation.labels))
    again = written(project, "depthwise-0", other, tmp_path)
    for kind in ("onnx", "int8"):
        contents = runnables(project)[kind].path.read_bytes()
        assert (again / formats.FILES[kind]).read_bytes() == contents
        assert b"stack_trace" not in contents
        assert str(trained.ROOT).encode() not in contents
    left = {path.name for path in again.iterdir()} - set(formats.FILES.values())
    assert left <= {"labels.txt", "run.py", "example.png", "example.rgb", "example.json", "model_int8.h"}


def test_calibration_looks_at_training_images(project, tmp_path):
    data = arrays.read_dataset(project / "data/arrays")
    dark = replace(data, train=Split(np.array(data.train.images) // 2, data.train.labels))
    again = written(project, "depthwise-0", dark, tmp_path)
    assert (again / "model.onnx").read_bytes() == runnables(project)["onnx"].path.read_bytes()
    assert (again / "model.int8.onnx").read_bytes() != runnables(project)["int8"].path.read_bytes()


def test_calibration_looks_at_as_many_images_as_the_configuration_says(project, tmp_path, monkeypatch):
    seen = []
    quantise = onnx_files.quantise
    monkeypatch.setattr(
        onnx_files, "quantise", lambda path, out, images: (seen.append(images), quantise(path, out, images))
    )
    stored, images = weights.of_run(project, "depthwise-0"), arrays.read_dataset(project / "data/arrays").train.images
    exported.write_stored(stored, images, CONFIG, tmp_path)
    assert len(np.unique(seen[0], axis=0)) == CONFIG.calibration_images
    assert np.array_equal(seen[0][-1], images[-1]), "evenly spaced, over all classes"


def test_accuracy_loss_and_the_classes_that_lose_most_are_those_of_the_logits(project):
    """Another network's file in the place of int8's: what it loses is known."""
    data = arrays.read_dataset(project / "data/arrays")
    images = np.array(data.validation.images)
    better, worse = "depthwise-0", "depthwise-1"
    predicted = {name: runnables(project, name)["pytorch"].open()(images).argmax(1) for name in (better, worse)}
    labels = predicted[better].copy()  # as if the better network were right on all images but 20
    labels[:20] = (labels[:20] + 1) % len(data.class_ids)
    data = replace(data, validation=Split(images, labels))
    right = {name: classes == labels for name, classes in predicted.items()}
    given: dict[Format, Runnable] = {
        "pytorch": runnables(project, better)["pytorch"],
        "int8": runnables(project, worse)["onnx"],
    }
    result = measure_accuracy(given, data, CONFIG)
    int8 = result.formats["int8"]
    lost = float(100 * (right[better].mean() - right[worse].mean()))
    assert lost > 5
    assert int8.top1 == right[worse].mean()
    assert int8.loss_points.estimate == pytest.approx(lost)
    assert int8.loss_points.low < lost < int8.loss_points.high
    assert int8.other_class == (predicted[better] != predicted[worse]).sum() > 0
    assert result.formats["pytorch"].other_class == 0
    first = result.int8_classes_that_lose_most[0]
    of_class = {name: np.bincount(labels[hits], minlength=len(data.class_ids)) for name, hits in right.items()}
    assert first.pytorch - first.int8 == (of_class[better] - of_class[worse]).max()
    assert first.pytorch == of_class[better][data.class_ids.index(first.id)]

    gates = [CONFIG.model_copy(update={"max_loss_points": limit}) for limit in (lost - 0.01, lost + 0.01)]
    refused, accepted = (measure_accuracy(given, data, gate) for gate in gates)
    assert (refused.int8_accepted, accepted.int8_accepted) == (False, True)
    assert "not registered: more than export.max_loss_points" in refused.in_words("depthwise-0")
    assert "within export.max_loss_points" in accepted.in_words("depthwise-0")


def test_every_format_is_measured_in_every_round_and_alone_in_a_process(project):
    config = MeasureConfig(warmup_rounds=1, rounds=3, latencies_per_round=2, batch_size=2, energy_seconds=1.0)
    costs = measure_costs(runnables(project), {}, config).formats
    assert list(costs) == list(runnables(project))
    for cost in costs.values():
        assert cost.latency_ms.n == 6
        assert 0 < cost.latency_ms.p5 <= cost.latency_ms.median <= cost.latency_ms.p95
        assert 0 < cost.before_bytes < 60e6, "before: Python and NumPy alone"
        assert cost.before_bytes < cost.peak_memory_bytes
    assert costs["pytorch"].arena_bytes > 64 * 64 * 3
    # The process holds nothing of this one, which has loaded torch.
    assert costs["onnx"].peak_memory_bytes < costs["pytorch"].peak_memory_bytes / 2


PUBLISHED = sorted((trained.ROOT / "docs/results").glob("*/export*/*/*.json"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: str(path.relative_to(trained.ROOT / "docs/results")))
def test_a_published_record_is_read_and_written_with_the_same_bytes(path, tmp_path):
    kind = ExportCosts
    if path.name == "export.json":  # once without the description of its folder
        kind = Description if "network" in json.loads(path.read_text(encoding="utf-8")) else ExportResult
    write_json(tmp_path / path.name, read_record(path, kind).model_dump())
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_there_are_published_records():
    assert {path.name for path in PUBLISHED} == {"export.json", "timing.json"}


@needs_executorch
def test_the_executorch_program_gives_pytorchs_classes(project):
    images = np.array(arrays.read_dataset(project / "data/arrays").validation.images[:50])
    expected = runnables(project)["pytorch"].open()(images)
    logits = runnables(project)["executorch"].open()(images)
    assert np.allclose(logits, expected, atol=1e-4)


def test_a_killed_measurement_of_memory_is_one_clear_line(project, tmp_path, monkeypatch):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -KILL $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(UserError, match=r"model\.onnx: the process that measures its memory ended by signal 9; rerun"):
        runtimes.peak_memory(runnables(project)["onnx"])


def test_a_picture_survives_its_encoding(project):
    pixels = np.array(arrays.read_dataset(project / "data/arrays").validation.images[0])
    assert np.array_equal(pictures.read_picture(pictures.encode_png(pixels), "x").pixels, pixels)
    assert Image.fromarray(pixels).size == (64, 64)
