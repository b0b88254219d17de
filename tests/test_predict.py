"""`frugalnet predict` and `frugalnet.load`, on pictures good and bad."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trained
from PIL import Image
from safetensors.torch import load_file, save_file

import frugalnet
from frugalnet import pictures
from frugalnet.data import arrays
from frugalnet.data.decode import decode
from frugalnet.errors import UserError
from frugalnet.files import read_json, sha256, write_json
from frugalnet.use import cli, weights
from tools import networks, publish

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory, sample_archive) -> Path:
    """Finished runs, and their folder of weights."""
    folder = trained.project(
        tmp_path_factory.mktemp("trained"), sample_archive, ("depthwise-0", "depthwise-3", "alexnet-0")
    )
    names = ("alexnet-0", "depthwise-3", "depthwise-0")
    weights.write_weights(folder / "weights", [weights.of_run(folder, name) for name in names])
    return folder


@pytest.fixture(scope="module")
def photo(sample_archive) -> bytes:
    """A picture of the sample: a JPEG file of 64×64 pixels."""
    with zipfile.ZipFile(sample_archive) as archive:
        return archive.read("tiny-imagenet-200/val/images/val_0.JPEG")


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right, bright at the top: its orientation shows."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([255 * (x < width // 2), 255 * (y < height // 2), 255 * (x >= width // 2)], axis=2)
    return Image.fromarray(rgb.astype(np.uint8)).convert(mode)


def predict(capsys, monkeypatch, project: Path, *words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `frugalnet predict`."""
    command = ["frugalnet", "predict", "--weights", project / "weights", *words]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    code = end.value.code
    return (code, out, err) if isinstance(code, int) else (1, out, f"{err}{code}\n")


def test_the_command_names_the_classes_that_the_evaluation_found(project, tmp_path):
    """In a process of its own, as a user starts it, on stored validation pictures saved losslessly."""
    data = arrays.read_dataset(project / "data/arrays")
    for index in (0, 30):
        Image.fromarray(np.array(data.validation.images[index])).save(tmp_path / f"{index}.png")
    command = [sys.executable, "-m", "frugalnet.use.cli", "predict", "--json", "--top", "3", "--model", "depthwise"]
    done = subprocess.run(
        [*command, "--weights", project / "weights", tmp_path, "-"],
        input=(tmp_path / "0.png").read_bytes(),
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    found = json.loads(done.stdout)
    assert [Path(one["file"]).name for one in found] == ["0.png", "30.png", "standard input"]
    stored = np.load(project / "results/evaluate/depthwise-0/predictions.npz")["logits"].astype(np.float64)
    for one, index in zip(found, (0, 30, 0), strict=True):
        expected = np.exp(stored[index]) / np.exp(stored[index]).sum()
        order = np.argsort(-expected)[:3]
        assert one["network"] == "depthwise-0"
        assert one["changes"] == []
        assert one["milliseconds"] > 0
        assert [top["id"] for top in one["top"]] == [data.class_ids[position] for position in order]
        assert [top["name"] for top in one["top"]] == [data.class_names[position] for position in order]
        assert np.allclose([top["probability"] for top in one["top"]], expected[order], atol=2e-3)


@pytest.mark.parametrize("unbuffered", ["", "1"])  # the output fails at its end, or with the first line
def test_the_command_ends_silently_when_nobody_reads_its_output_any_more(project, tmp_path, unbuffered):
    (tmp_path / "a.png").write_bytes(encoded(picture(64, 64)))
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "frugalnet.use.cli", "predict", "--weights", project / "weights", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_the_text_says_what_was_done_to_the_picture_and_escapes_names(project, tmp_path, capsys, monkeypatch):
    name = tmp_path / "a\x1b[31m.png"
    name.write_bytes(encoded(picture(128, 100)))
    code, out, err = predict(capsys, monkeypatch, project, name, "--top", "2", "--model", "alexnet")
    assert (code, err) == (0, "")
    first, *classes = out.splitlines()
    assert r"a\x1b[31m.png (centre-cropped and scaled from 128×100 to 64×64): alexnet-0, " in first
    assert len(classes) == 2
    assert "%" in classes[0]


def test_three_lines_of_python_give_names_and_probabilities(project, photo, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(photo)
    network = frugalnet.load("depthwise", project / "weights")
    (prediction,) = network.predict([tmp_path / "photo.jpg"])
    names, probabilities = zip(*prediction.top(10), strict=True)
    assert set(names) == set(network.classes.names)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert list(probabilities) == sorted(probabilities, reverse=True)
    images = np.array(arrays.read_dataset(project / "data/arrays").validation.images[:3])
    assert [one.top(1) for one in network.predict(images)] == [network.predict([image])[0].top(1) for image in images]
    assert network.predict([]) == []
    with pytest.raises(UserError, match=r"^image 1: expected \(64, 64, 3\) uint8, found \(64, 64, 3\) float32$"):
        network.predict([images[0], images[0].astype(np.float32)])


def test_a_prediction_imports_no_package_that_it_does_not_use(project, photo, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(photo)
    code = (
        "import sys; from frugalnet.use import cli; sys.argv[0] = 'frugalnet'\n"
        "try: cli.main()\n"
        "finally: print([name for name in ('cv2', 'mlflow', 'scipy', 'torchvision', 'triton') if name in sys.modules])"
    )
    words = ["predict", "--model", "depthwise", "--weights", project / "weights", tmp_path / "photo.jpg"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_a_name_the_most_accurate_network_answers_and_without_a_seed_the_lowest(project):
    stored = weights.of_folder(project / "weights")
    best = min(stored, key=lambda one: (-one.entry.top1, one.entry.macs, one.name))  # of a tie, the cheaper one
    assert frugalnet.load(weights=project / "weights").stored.name == best.name
    assert weights.choose_network("depthwise", project / "weights").name == "depthwise-0"
    assert weights.choose_network("depthwise-3", project / "weights").name == "depthwise-3"


def test_a_picture_of_64_pixels_is_decoded_as_the_pipeline_decodes_it(sample_archive):
    with zipfile.ZipFile(sample_archive) as archive:
        for name in [name for name in archive.namelist() if name.endswith(".JPEG")][::40]:
            read = pictures.read_picture(archive.read(name), name)
            assert np.array_equal(read.pixels, decode(archive.read(name), name))
            assert read.changes == ()


# Pictures of other kinds


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (encoded(picture(200, 200)), ("scaled from 200×200 to 64×64",)),
        (encoded(picture(2000, 2000), "JPEG"), ("scaled from 2000×2000 to 64×64",)),  # decoded at a quarter
        (encoded(picture(64, 64, "CMYK"), "JPEG"), ()),
        (encoded(picture(64, 64).quantize(8)), ()),
        (encoded(picture(64, 64), "WEBP", lossless=True), ()),
        (
            encoded(picture(64, 64), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 64))]),
            ("first frame only",),
        ),
        (
            encoded(
                picture(64, 64).rotate(90),
                "JPEG",
                exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0",
            ),
            ("EXIF orientation applied",),
        ),
    ],
    ids=["larger", "large JPEG", "CMYK", "palette", "WebP", "animated", "EXIF rotation"],
)
def test_red_stays_left_and_the_top_bright(data, changes):
    read = pictures.read_picture(data, "x")
    assert read.changes == changes
    quarters = [read.pixels[y : y + 16, x : x + 16].mean((0, 1)) for y, x in ((8, 8), (8, 40), (40, 8), (40, 40))]
    expected = [(255, 255, 0), (0, 255, 255), (255, 0, 0), (0, 0, 255)]
    assert np.abs(np.array(quarters) - expected).max() < 12


def test_a_wide_or_high_picture_is_cropped_around_its_centre_and_not_squeezed(tmp_path):
    stripes = np.zeros((64, 192, 3), np.uint8)
    for number in range(3):  # red, green, blue
        stripes[:, 64 * number : 64 * (number + 1), number] = 255
    for name, pixels in (("wide", stripes), ("high", stripes.swapaxes(0, 1))):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png")
        read = pictures.open_file(str(tmp_path / f"{name}.png"))
        assert read.pixels.shape == (64, 64, 3)
        assert np.array_equal(read.pixels, np.full((64, 64, 3), (0, 255, 0)))


def test_transparent_pixels_become_white_and_sixteen_bits_eight(tmp_path):
    half = picture(64, 64).convert("RGBA")
    half.putalpha(Image.fromarray(np.repeat(np.uint8([255, 0]), 32)[None].repeat(64, 0)))
    read = pictures.read_picture(encoded(half), "x")
    assert read.changes == ("on white",)
    assert np.array_equal(read.pixels[:, :32], np.array(picture(64, 64))[:, :32])
    assert (read.pixels[:, 32:] == 255).all()
    grey = np.full((64, 64), 200 * 256 + 10, np.uint16)
    assert (pictures.read_picture(encoded(Image.fromarray(grey)), "x").pixels == 199).all()


WRONG = {
    "text.png": (b"not a picture", f"not a picture; {pictures.EXPECTED}"),
    "empty.png": (b"", "empty, not a picture; expected"),
    "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture; expected"),
    "one.png": (encoded(Image.new("RGB", (1, 1))), "1×1 pixels are too few; expected at least 8 a side"),
    "huge.png": (encoded(Image.new("1", (10_000, 10_000))), "10000×10000 pixels are more than 67 million"),
    "bomb.png": (encoded(Image.new("1", (14_000, 14_000))), "more than 67 million pixels"),
    "float.tiff": (encoded(Image.new("F", (64, 64)), "TIFF"), "values of 32 bits or signed 16 bits"),
    "cut.jpg": (encoded(picture(300, 300), "JPEG")[:-2000], "damaged or truncated picture ("),
    "cut.png": (encoded(picture(300, 300))[:200], "damaged or truncated picture ("),
    "header.png": (encoded(picture(300, 300))[:30], "not a picture; expected"),
}


def test_each_bad_picture_is_one_line_and_the_others_are_classified(project, photo, tmp_path, capsys, monkeypatch):
    for name, (data, _) in WRONG.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "good.jpg").write_bytes(photo)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    names = (*WRONG, "missing.png", "folder", 300 * "x", "pipe.png", "zero.png")
    wrong = [tmp_path / name for name in names]
    code, out, err = predict(capsys, monkeypatch, project, *wrong, tmp_path / "good.jpg", "--json")
    assert code == 1
    assert [Path(one["file"]).name for one in json.loads(out)] == ["good.jpg"]
    lines = err.splitlines()
    for line, (name, (_, message)) in zip(lines, WRONG.items(), strict=False):
        assert line.startswith(f"frugalnet: {tmp_path / name}: {message}")
    assert lines[len(WRONG) :] == [
        f"frugalnet: {tmp_path / 'missing.png'}: No such file or directory",
        f"frugalnet: {tmp_path / 'folder'}: no picture in this folder; {pictures.EXPECTED}",
        f"frugalnet: {tmp_path / (300 * 'x')}: File name too long",
        f"frugalnet: {tmp_path / 'pipe.png'}: not a regular file",
        f"frugalnet: {tmp_path / 'zero.png'}: not a regular file",
        f"frugalnet: left out: 1 file: not a picture ({tmp_path / 'folder/notes.txt'})",
    ]


# Weights


def test_an_unknown_network_ends_in_one_line_that_names_those_there_are(project, capsys, monkeypatch):
    code, _, err = predict(capsys, monkeypatch, project, "x.png", "--model", "vgg")
    assert code == 1
    best_first = ", ".join(stored.name for stored in weights.list_networks(project / "weights"))
    assert err == f"frugalnet: {project / 'weights'}: holds {best_first}, not 'vgg'\n"


def test_weights_come_from_a_file_of_a_folder_of_weights_or_of_a_project(project):
    assert frugalnet.load(weights=project / "weights/alexnet-0.safetensors").stored.name == "alexnet-0"
    assert frugalnet.load(weights=project / "models/depthwise-3.safetensors").stored.name == "depthwise-3"


def change_entries(folder: Path, **changes: object) -> None:
    listed = read_json(folder / "weights.json")
    for entry in listed["networks"]:
        entry |= changes
    write_json(folder / "weights.json", listed)


def spoil(folder: Path, what: str) -> None:
    if what == "another network's file":
        shutil.copyfile(folder / "alexnet-0.safetensors", folder / "depthwise-0.safetensors")
    elif what == "another network's file, with its hash":
        shutil.copyfile(folder / "alexnet-0.safetensors", folder / "depthwise-0.safetensors")
        listed = read_json(folder / "weights.json")
        by_name = {one["file"]: one for one in listed["networks"]}
        by_name["depthwise-0.safetensors"]["sha256"] = by_name["alexnet-0.safetensors"]["sha256"]
        write_json(folder / "weights.json", listed)
    elif what == "no file":
        (folder / "depthwise-0.safetensors").unlink()
    elif what == "no list":
        (folder / "weights.json").unlink()
    elif what == "a path in the list":
        text = (folder / "weights.json").read_text()
        (folder / "weights.json").write_text(text.replace('"depthwise-0.safe', '"../depthwise-0.safe'))
    elif what == "a class without a name":
        classes = read_json(folder / "sample.json")
        write_json(folder / "sample.json", classes | {"names": classes["names"][1:]})
    elif what == "weights that are not finite":
        weights = load_file(folder / "depthwise-0.safetensors")
        weights["fc.bias"][0] = float("nan")
        save_file(weights, folder / "depthwise-0.safetensors")
        change_entries(folder, sha256=sha256(folder / "depthwise-0.safetensors"))
    elif what.startswith("std "):
        change_entries(folder, std=[float(what.removeprefix("std "))] * 3)
    elif what == "a mean of 1e300":
        change_entries(folder, mean=[1e300] * 3)
    elif what == "classes from a pipe":
        (folder / "sample.json").unlink()
        os.mkfifo(folder / "sample.json")
    elif what == "classes from a device":
        (folder / "sample.json").unlink()
        (folder / "sample.json").symlink_to("/dev/zero")
    elif what == "too many classes":
        (folder / "sample.json").write_text(" " * 2**24 + "{}")
    elif what == "no classes":
        (folder / "sample.json").write_text("{}")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("another network's file", "describes as depthwise-0"),
        ("another network's file, with its hash", "not the weights of this network"),
        ("no file", "depthwise-0.safetensors: missing"),
        ("no list", "no weights here"),
        ("a path in the list", "weights.json: missing or damaged"),
        ("no classes", "sample.json: missing or damaged"),
        ("weights that are not finite", "not finite numbers"),
        *((f"std {value}", "weights.json: missing or damaged .*std") for value in (0, 1e-300, -1, 1e300)),
        ("a mean of 1e300", "weights.json: missing or damaged .*mean"),
        ("classes from a pipe", "sample.json: missing or damaged .*not a regular file"),
        ("classes from a device", "sample.json: missing or damaged .*not a regular file"),
        ("too many classes", "sample.json: missing or damaged .*larger than 16 MiB"),
        ("a class without a name", "sample.json: missing or damaged .* ids, but "),
    ],
)
def test_weights_that_are_not_what_they_should_be_are_refused_in_one_line(project, tmp_path, what, message):
    shutil.copytree(project / "weights", tmp_path / "weights")
    spoil(tmp_path / "weights", what)
    with pytest.raises(UserError, match=message):
        frugalnet.load("depthwise-0", tmp_path / "weights")


def test_a_file_that_nothing_describes_is_refused(project, tmp_path):
    shutil.copy(project / "models/depthwise-0.safetensors", tmp_path / "some.safetensors")
    with pytest.raises(UserError, match="no network is described with these weights"):
        frugalnet.load("depthwise", tmp_path / "some.safetensors")
    with pytest.raises(UserError, match="no such file or folder of weights"):
        frugalnet.load("depthwise", tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"holds alexnet-0, not 'depthwise'$"):
        frugalnet.load("depthwise", project / "models/alexnet-0.safetensors")


def test_the_tool_sorts_the_networks_of_a_finished_study_into_folders(project, tmp_path, monkeypatch):
    shutil.copytree(project, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    with pytest.raises(UserError, match=r"results/cost\.json: missing"):  # of the stage `measure`
        publish.main(["results"])
    with pytest.raises(UserError, match="sample data"):
        publish.main(["weights"])
    described = read_json(Path("data/arrays/dataset.json"))
    write_json(Path("data/arrays/dataset.json"), described | {"is_sample": False})
    publish.main(["weights"])
    assert [one.name for one in weights.of_folder(Path("weights"))] == ["alexnet-0", "depthwise-0"]
    recipe = read_json(Path("results/train/depthwise-3/run.json"))["train"]["recipe"]
    assert [one.name for one in weights.of_folder(Path(f"docs/results/{recipe}/weights"))] == ["depthwise-3"]
    publish.main(["weights", "depthwise-3"])
    assert sorted(path.name for path in Path("weights").iterdir()) == [
        *("depthwise-3.safetensors", "sample.json", "weights.json"),
    ]
    with pytest.raises(
        UserError, match=r"^resnet18-0: no finished run; there are alexnet-0, depthwise-0, depthwise-3$"
    ):
        publish.main(["weights", "resnet18-0"])
    run = read_json(Path("results/train/depthwise-3/run.json"))
    run["train"]["recipe"] = "paper"
    write_json(Path("results/train/depthwise-3/run.json"), run)
    publish.main(["weights", "depthwise-3"])
    assert [one.name for one in weights.of_folder(Path("docs/results/paper/weights"))] == ["depthwise-3"]
    run["train"]["recipe"] = "frontier"
    write_json(Path("results/train/depthwise-3/run.json"), run)
    publish.main(["weights", "alexnet-0"])
    publish.main(["weights", "depthwise-3"])
    assert [one.name for one in weights.of_folder(Path("weights"))] == ["alexnet-0", "depthwise-3"]
    run["train"]["recipe"] = "modern"
    write_json(Path("results/train/depthwise-3/run.json"), run)
    publish.main(["weights", "alexnet-0", "depthwise-3"])
    assert [one.name for one in weights.of_folder(Path("weights"))] == ["alexnet-0", "depthwise-3"]
    assert weights.choose_network("depthwise-3", "weights").entry.recipe["recipe"] == "frontier"
    assert [one.name for one in weights.of_folder(Path("docs/results/modern/weights"))] == ["depthwise-3"]
    shutil.rmtree("weights")
    monkeypatch.setattr(networks, "MAX_BYTES", 1_000_000)
    publish.main(["weights"])
    assert [one.name for one in weights.of_folder(Path("weights"))] == ["depthwise-0"]
