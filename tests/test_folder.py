"""An exported folder stands alone: run.py, the description, the example, and what `frugalnet export` says of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import trained
from PIL import Image
from torch import nn

from frugalnet import models, pictures
from frugalnet.data import arrays
from frugalnet.errors import UserError
from frugalnet.export import files, folder, run
from frugalnet.export.config import ExportConfig
from frugalnet.export.description import Description, Micro
from frugalnet.export.records import read_accuracy
from frugalnet.files import read_record, sha256, write_json
from frugalnet.training.batches import Normaliser
from frugalnet.use import copied, exported, tried, weights
from frugalnet.use.weights import Export

CONFIG = ExportConfig(calibration_images=20, max_loss_points=2.0)
SIDE = 64


@pytest.fixture(scope="module")
def project(tmp_path_factory, sample_archive) -> Path:
    return trained.project(tmp_path_factory.mktemp("trained"), sample_archive)


@pytest.fixture(scope="module")
def stored(project) -> weights.Stored:
    return weights.of_run(project, "depthwise-0")


@pytest.fixture(scope="module")
def out(project, stored, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    written = exported.write_stored(stored, arrays.read_dataset(project / "data/arrays").train.images, CONFIG, out)
    exported.describe_stored(stored, written, None, out)
    return out


def picture(path: Path, kind: str) -> Path:
    """A picture of noise and shades of each kind that is prepared in its own way."""
    generator = np.random.default_rng(0)
    height, width = (600, 700) if "large" in kind else (90, 107)
    shades = np.linspace(0, 255, width)[None, :, None] * np.linspace(1, 0.2, height)[:, None, None]
    pixels = np.clip(shades + generator.normal(0, 30, (height, width, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    match kind:
        case "jpeg, large and turned":
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(path, "JPEG", exif=exif)
        case "png, transparent":
            image.putalpha(Image.fromarray(pixels[..., 0]))
            image.save(path, "PNG")
        case "png, palette with a transparent colour":
            image.quantize(16).save(path, "PNG", transparency=3)
        case "png, grey":
            image.convert("L").resize((70, 90)).save(path, "PNG")
        case "png, of the network's size":
            image.resize((SIDE, SIDE)).save(path, "PNG")
        case "gif, of two frames":
            image.save(path, "GIF", save_all=True, append_images=[Image.fromarray(255 - pixels)])
    return path


KINDS = ["jpeg, large and turned", "png, transparent", "png, palette with a transparent colour", "png, grey"]
KINDS += ["png, of the network's size", "gif, of two frames"]


@pytest.mark.parametrize("kind", KINDS)
def test_run_py_prepares_a_picture_as_predict_does(tmp_path, kind):
    path = picture(tmp_path / "picture", kind)
    assert np.array_equal(run.pixels(str(path), SIDE)[0], pictures.open_file(str(path)).pixels)


def test_the_scaling_is_the_described_one(tmp_path):
    """Against the description's words, computed in floats: a port by these words gives the same pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    rows = rounded(np.einsum("os,hsc->hoc", filter_weights(160, 32, 96), pixels.astype(np.float64)))
    both = rounded(np.einsum("os,swc->owc", filter_weights(96, 0, 96), rows))
    given = pictures.open_file(str(tmp_path / "picture.png")).pixels
    assert np.abs(both - given).max() <= 1
    assert (both == given).mean() > 0.99


def filter_weights(size: int, start: int, length: int) -> np.ndarray:
    """(side, size): of each of `size` pixels in each output's, which together cover `length` of them from `start`."""
    factor = length / SIDE
    centres = start + factor * (np.arange(SIDE)[:, None] + 0.5)
    distance = np.abs((np.arange(size) + 0.5 - centres) / factor)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(values + 0.5), 0, 255)


def test_run_py_is_short_needs_three_packages_and_names_the_class(out, stored):
    text = (out / "run.py").read_text()
    assert len(text.splitlines()) < 40
    assert "frugalnet" not in text
    code = "import runpy, sys; sys.modules.update(torch=None, onnx=None, frugalnet=None, scipy=None); "
    code += "sys.argv = ['run.py', *sys.argv[1:]]; runpy.run_path('run.py', run_name='__main__')"
    for file in ([], ["model.int8.onnx"]):
        words = [sys.executable, "-c", code, "example.png", *file]
        done = subprocess.run(words, cwd=out, capture_output=True, text=True, check=True)
        logits = json.loads((out / "example.json").read_text())["logits"][(file or ["model.onnx"])[0]]
        best = stored.classes.names[int(np.argmax(logits))]
        assert done.stdout.splitlines()[0].endswith(f"  {best}")
        assert len(done.stdout.splitlines()) == 5


@pytest.mark.parametrize(
    ("words", "said"), [([], "python run.py PICTURE"), (["x.png"], "x.png"), (["labels.txt"], "cannot identify")]
)
def test_run_py_says_what_is_wrong_without_a_traceback_and_leaves_nothing_in_the_home(out, tmp_path, words, said):
    homes = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    homes.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "run.py", *words]
    done = subprocess.run(command, cwd=out, env=homes, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_example_checks_a_port_step_by_step(out):
    pixels = np.frombuffer((out / "example.rgb").read_bytes(), np.uint8).reshape(1, SIDE, SIDE, 3)
    assert np.array_equal(run.pixels(str(out / "example.png"), SIDE), pixels)
    expected = json.loads((out / "example.json").read_text())["logits"]
    for name in ("model.onnx", "model.int8.onnx"):
        (logits,) = onnxruntime.InferenceSession(out / name).run(["logits"], {"images": pixels})
        assert np.allclose(logits[0], expected[name], atol=1e-3)
    assert folder.drawn().std() > 50, "not one colour"


def test_the_description_tells_all_that_is_needed(out, stored):
    described = read_record(out / "export.json", Description)
    names = {path.name for path in out.iterdir()} - {"export.json"}
    assert described.files.keys() == names
    assert all(described.files[name].sha256 == sha256(out / name) for name in names)
    assert described.input.shape == ["N", SIDE, SIDE, 3]
    assert described.output.shape == ["N", len(stored.classes.names)]
    assert (described.network.licence, described.network.name) == ("MIT", "depthwise-0")
    assert [step.step for step in described.preprocessing] == ["decode", "orient", "flatten", "crop", "scale", "order"]
    assert (out / "labels.txt").read_text().splitlines() == stored.classes.names


def test_the_onnx_files_describe_themselves(out, stored):
    for name in ("model.onnx", "model.int8.onnx"):
        metadata = onnxruntime.InferenceSession(out / name).get_modelmeta().custom_metadata_map
        assert json.loads(metadata["classes"]) == stored.classes.names
        assert json.loads(metadata["class_ids"]) == stored.classes.ids
        assert metadata["side"] == "64"
        assert metadata["source_sha256"] == stored.entry.sha256
        assert "BICUBIC" in metadata["preprocessing"]


def test_a_class_name_is_one_line_whatever_a_folder_is_called(out, stored, tmp_path):
    names = ["two\nlines", *stored.classes.names[1:]]
    subject = copied.subject_of(
        stored.model_copy(update={"classes": stored.classes.model_copy(update={"names": names})})
    )
    (tmp_path / "model.onnx").write_bytes((out / "model.onnx").read_bytes())
    folder.complete(tmp_path, subject)
    assert len((tmp_path / "labels.txt").read_text().splitlines()) == len(names)


def test_no_byte_of_an_int8_file_is_spent_on_names_and_nothing_is_there_twice(out):
    graph = onnx.load(out / "model.int8.onnx").graph
    assert not graph.value_info
    assert not any(node.name or node.doc_string or node.metadata_props for node in graph.node)
    assert max(len(name) for node in graph.node for name in (*node.input, *node.output) if name != "images") <= 6
    contents = []
    for tensor in graph.initializer:
        tensor.name = ""
        contents.append(tensor.SerializeToString(deterministic=True))
    assert len(set(contents)) == len(contents) > 20
    weights_names = {tensor.name for tensor in onnx.load(out / "model.onnx").graph.initializer}
    assert {"1.fc.weight", "1.fc.bias"} <= weights_names, "so that a classifier can be replaced"


def test_convolutions_take_over_what_batch_normalisation_did():
    torch.manual_seed(0)
    network = models.build("frugal_wide", 10).train()
    network(torch.randn(16, 3, 64, 64))
    network.eval()
    whole = nn.Sequential(Normaliser([0.0] * 3, [1.0] * 3, torch.device("cpu")), network)
    folded = files.folded(whole)
    images = torch.randint(0, 3, (4, 64, 64, 3), dtype=torch.uint8)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in whole.modules()), "the network itself stays as it is"
    with torch.no_grad():
        assert torch.allclose(folded(images), whole(images), atol=1e-4)


class LessBatchMean(nn.Module):
    """Logits that depend on the other images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean(dim=(2, 3))
        return pooled - pooled.mean(dim=0)


class OfTwo(nn.Module):
    """Logits of batches of two images only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.mean(dim=(2, 3)).chunk(2)
        return torch.cat([first, second])


@pytest.mark.parametrize(
    ("network", "said"),
    [(LessBatchMean(), "depend on the other images in its batch"), (OfTwo(), "takes one size of batch only")],
)
def test_a_network_whose_answer_depends_on_the_batch_is_refused(tmp_path, network, said):
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    whole = nn.Sequential(Normaliser([120.0] * 3, [60.0] * 3, torch.device("cpu")), network)
    with pytest.raises(UserError, match=rf"model\.onnx: .*{said}"):
        files.write_files(whole, images, CONFIG, {}, tmp_path)


def test_accuracies_are_read_from_old_and_new_files(out, stored, tmp_path):
    accuracy = read_accuracy(trained.ROOT / "docs/results/modern/export/depthwise-0/export.json")
    assert accuracy.formats["int8"].top1 > 0.4
    described = read_record(out / "export.json", Description)
    assert read_accuracy(out / "export.json") is None
    write_json(tmp_path / "export.json", described.model_copy(update={"accuracy": accuracy}).model_dump())
    assert read_accuracy(tmp_path / "export.json") == accuracy


def test_a_quantised_format_that_loses_too_much_is_not_accepted():
    accuracy = read_accuracy(trained.ROOT / "docs/results/modern/export/depthwise-0/export.json")
    lossy = accuracy.formats["int8"].model_copy(update={"loss_points": accuracy.int8_loss.__class__(2.1, 1.5, 2.7)})
    judged = accuracy.model_copy(update={"formats": {**accuracy.formats, "tflite": lossy}})
    assert judged.accepts("int8")
    assert not judged.accepts("tflite")
    assert judged.accepts("onnx")
    assert "tflite loses 2.10 points" in judged.in_words("alexnet-0")


@pytest.fixture(scope="module")
def beside(out, stored, tmp_path_factory) -> weights.Stored:
    """The stored network with its ONNX files beside its weights."""
    place = tmp_path_factory.mktemp("weights")
    (place / stored.entry.file).write_bytes(stored.path.read_bytes())
    for name in ("model.onnx", "model.int8.onnx"):
        (place / name).write_bytes((out / name).read_bytes())
    exports = {
        kind: Export(file=name, sha256=sha256(out / name), top1=top1)
        for kind, name, top1 in (("onnx", "model.onnx", None), ("int8", "model.int8.onnx", 0.25))
    }
    entry = stored.entry.model_copy(update=exports)
    weights.write_weights(place / "all", [weights.Stored(path=place / entry.file, entry=entry, classes=stored.classes)])
    return weights.choose_network(None, place / "all")


def test_copying_needs_neither_torch_nor_onnx(beside, out, tmp_path):
    code = "import sys; sys.modules.update(torch=None, onnx=None, cv2=None, tqdm=None); "
    code += "from frugalnet.use import cli; cli.main()"
    words = ["export", str(tmp_path / "copy"), "--copy", "--weights", str(beside.path.parent)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "model.int8.onnx: " in done.stdout
    described = read_record(tmp_path / "copy/export.json", Description)
    top1 = {name: file.top1 for name, file in described.files.items() if file.top1 is not None}
    assert top1 == {"model.onnx": beside.entry.top1, "model.int8.onnx": 0.25}
    assert f"model.onnx: {(out / 'model.onnx').stat().st_size:,} bytes, top-1 {beside.entry.top1:.1%}\n" in done.stdout
    for name in ("model.onnx", "model.int8.onnx", "labels.txt", "run.py", "example.json", "example.rgb"):
        if name != "example.json" or not (out / "model.int8.tflite").exists():
            assert (tmp_path / "copy" / name).read_bytes() == (out / name).read_bytes()


def test_what_cannot_be_copied_is_told(stored, beside, tmp_path):
    with pytest.raises(UserError, match=r"no ONNX file beside these weights; export them without --copy"):
        copied.copy_exported(stored, tmp_path / "copy")
    with pytest.raises(UserError, match="already exists"):
        copied.copy_exported(beside, tmp_path)
    damaged = beside.entry.model_copy(update={"int8": Export(file="model.int8.onnx", sha256="0" * 64)})
    with pytest.raises(UserError, match=r"model\.int8\.onnx: not the file that"):
        copied.copy_exported(beside.model_copy(update={"entry": damaged}), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.fixture(scope="module")
def class_folders(project, tmp_path_factory) -> Path:
    """Validation pictures in folders named by id and by name."""
    data = arrays.read_dataset(project / "data/arrays")
    root = tmp_path_factory.mktemp("classes")
    for label, name in ((0, data.class_ids[0]), (3, data.class_names[3])):
        (root / name).mkdir()
        for number in np.flatnonzero(np.array(data.validation.labels) == label)[:6]:
            pixels = np.array(data.validation.images[number])
            (root / name / f"{number}.png").write_bytes(pictures.encode_png(pixels))
    return root


def test_folders_that_name_classes_are_labels(stored, class_folders):
    shown = tried.read_shown(stored, [str(class_folders)])
    assert sorted(shown.labels.tolist()) == [0] * 6 + [3] * 6
    assert "on which int8 was calibrated too" in shown.on
    assert len(shown.compared) == len(shown.calibration) == 12


def test_other_folders_give_pictures_without_labels(stored, class_folders, tmp_path):
    for number, name in enumerate(class_folders.iterdir()):
        (tmp_path / f"unknown {number}").symlink_to(name)
    shown = tried.read_shown(stored, [str(tmp_path)])
    assert shown.labels is None
    assert "not named as classes of the network" in shown.on
    plain = tried.read_shown(stored, [str(path) for path in class_folders.iterdir()])
    assert plain.labels is None
    assert len(plain.compared) == 12


def test_the_command_shows_accuracy_with_interval_bytes_and_time(stored, class_folders, tmp_path, capsys):
    said = tried.export_with_pictures(stored, [str(class_folders)], tmp_path / "exported")
    lines = said.splitlines()
    assert "writing depthwise-0, calibrated on 12 pictures" in capsys.readouterr().err
    (int8,) = [line for line in lines if f"{tmp_path}/exported/model.int8.onnx: " in line]
    assert "ms  top-1" in int8
    assert "95 % interval" in int8
    assert "not PyTorch's class on" in int8
    described = read_record(tmp_path / "exported/export.json", Description)
    assert described.accuracy.n == 12
    shown = tried.read_shown(stored, [str(class_folders)])
    right = described.accuracy.formats["pytorch"].top1 * 12
    expected = exported.runnables(stored, tmp_path)["pytorch"].open()(shown.compared).argmax(1) == shown.labels
    assert right == pytest.approx(expected.sum())


def figures(size: int, milliseconds: float) -> tried.Figures:
    return tried.Figures(Path("model.onnx"), size, milliseconds, 0)


@pytest.mark.parametrize(
    ("int8", "said"),
    [
        (figures(300, 0.5), "int8 is not worth it: its file is no smaller than float32's (100%)"),
        (figures(75, 1.5), "int8 takes 1.5 times as long as float32 here: worth it for its bytes alone, 25%"),
    ],
)
def test_where_int8_is_larger_or_slower_it_is_said(int8, said):
    assert tried.verdicts({"onnx": figures(300, 1.0), "int8": int8})[0].startswith(said)
    assert not tried.verdicts({"onnx": figures(300, 1.0), "int8": figures(75, 0.9)})


def test_the_c_header_holds_the_file_and_its_facts(out, stored, tmp_path):
    names = ['quote " and \\ backslash', *stored.classes.names[1:]]
    subject = copied.subject_of(
        stored.model_copy(update={"classes": stored.classes.model_copy(update={"names": names})})
    )
    data = bytes(range(256)) * 3 + b"end"
    (tmp_path / "model.int8.tflite").write_bytes(data)
    micro = Micro(
        operators={"CONV_2D": 5},
        arena_bytes=73_728,
        input_scale=1.0,
        input_zero_point=-128,
        output_scale=0.125,
        output_zero_point=-3,
    )
    (tmp_path / "model_int8.h").write_text(folder.header(tmp_path / "model.int8.tflite", subject, micro))
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "model_int8.h"\n'
        "int main(void) { fwrite(model_int8, 1, sizeof model_int8, stdout);\n"
        '  fprintf(stderr, "%d %d %d %g %d %s", MODEL_SIDE, MODEL_CLASSES, MODEL_ARENA_BYTES, MODEL_OUTPUT_SCALE,\n'
        "    MODEL_OUTPUT_ZERO_POINT, model_labels[0]); return 0; }\n"
    )
    for compiler in (["cc", "-std=c99"], ["c++", "-x", "c++"]):
        command = [*compiler, "-Wall", "-Werror", "-pedantic", "main.c", "-o", "main"]
        try:
            subprocess.run(command, cwd=tmp_path, check=True)
        except FileNotFoundError:
            pytest.skip("no C compiler")
        done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, check=True)
        assert done.stdout == data
        assert done.stderr.decode() == f"64 {len(names)} 73728 0.125 -3 {names[0]}"
