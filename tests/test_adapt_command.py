"""`frugalnet adapt` on real folders of pictures, in processes of its own, and what can be done with the result."""

import base64
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests
import servers

from frugalnet.errors import UserError
from frugalnet.use import adapt, finetuned, labelled, tried, weights
from frugalnet.use.runtime import open_stored


def draw(path: Path, hue: tuple[int, int, int], seed: int, side: int = 96) -> None:
    """A picture of blobs, mostly of one colour."""
    generator = np.random.default_rng(seed)
    image = np.full((side, side, 3), 90, np.uint8)
    for _ in range(6):
        x, y = generator.integers(0, side, 2).tolist()
        cv2.circle(image, (x, y), int(generator.integers(8, 24)), hue, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.fixture
def folder(tmp_path) -> Path:
    for k in range(15):
        draw(tmp_path / f"mine/red `things`/{k}.png", (40, 40, 220), k)
        draw(tmp_path / f"mine/blue/{k}.jpg", (220, 40, 40), 100 + k)
    return tmp_path / "mine"


def frugalnet(*words: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "frugalnet.use.cli", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_a_network_learns_own_pictures_and_then_predicts_exports_and_serves(folder, tmp_path):
    cut, copy = folder / "blue/cut.jpg", folder / "blue/copy.png"
    cut.write_bytes((folder / "blue/0.jpg").read_bytes()[:200])
    cv2.imwrite(str(copy), cv2.resize(cv2.imread(str(folder / "blue/1.jpg")), (200, 200)))
    done = frugalnet("adapt", "mine", "--model", "depthwise", "--out", "net", cwd=tmp_path)
    assert "of 6 held-out pictures classified correctly" in done.stdout
    assert "always predicting the most common class: 50.0%" in done.stdout
    assert "cut.jpg" in done.stderr
    assert (
        "near copies, kept together in training or in the hold-out: mine/blue/1.jpg and mine/blue/copy.png"
        in done.stderr
    )
    (stored,) = weights.of_folder(tmp_path / "net")
    assert stored.classes.names == ["blue", "red `things`"]
    assert stored.entry.top1 >= 5 / 6
    card = (tmp_path / "net/README.md").read_text()
    assert "| red \\`things\\` | 15 | 3 | " in card
    assert done.stdout.splitlines()[1] in card
    assert "peak memory of the process: " in done.stdout

    draw(tmp_path / "new.png", (40, 40, 220), 999)
    (found,) = open_stored(stored).predict([tmp_path / "new.png"])
    assert found.top(1)[0][0] == "red `things`"

    with pytest.raises(UserError, match=r"cut\.jpg"):  # what is no picture ends it, and nothing is left
        tried.export_with_pictures(stored, [folder / "blue", tmp_path / "new.png"], tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    cut.unlink()
    said = frugalnet("export", "exported", "--weights", "net", "--pictures", "mine/blue", "new.png", cwd=tmp_path)
    assert "depthwise-0, compared on 17 pictures:" in said.stdout
    assert "exported/model.onnx: " in said.stdout
    assert {"model.onnx", "model.int8.onnx"} <= {path.name for path in (tmp_path / "exported").iterdir()}
    shown = tried.read_shown(stored, [str(folder)])  # the folder that it was fine-tuned on
    assert "the 6 pictures in" in shown.on
    assert "held out in training" in shown.on
    assert (len(shown.compared), len(shown.labels), len(shown.calibration)) == (6, 6, 25)

    port = servers.free_port()
    command = [sys.executable, "-m", "frugalnet.use.cli", "serve", "--weights", "net", "--port", str(port)]
    with servers.started(command, port, tmp_path / "log", "/health", cwd=tmp_path):
        image = base64.b64encode((tmp_path / "new.png").read_bytes()).decode()
        answer = requests.post(f"http://127.0.0.1:{port}/predict", json={"pictures": [image]}, timeout=60)
    assert answer.json()["pictures"][0]["predictions"][0]["top"][0]["name"] == "red `things`"

    with pytest.raises(UserError, match="already exists"):
        adapt.adapt(folder, stored, tmp_path / "net")


def test_the_same_pictures_give_the_same_weights_and_another_part_other_ones(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuned, "TUNING", finetuned.TUNING.model_copy(update={"steps": 10}))
    for out, part in (("a", "classifier"), ("b", "classifier"), ("c", "blocks")):
        adapt.adapt(folder, weights.choose_network("depthwise"), tmp_path / out, adapt.Options(part))
    a, b, c = ((tmp_path / out / "depthwise-0.safetensors").read_bytes() for out in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda mine: [shutil.rmtree(mine / "blue")],
            "expected at least two folders, each with the pictures of a class; found only 'red `things`'",
        ),
        (
            lambda mine: [path.unlink() for path in sorted(mine.glob("blue/*"))[4:]],
            "blue: 4 pictures are too few; expected at least 5",
        ),
        (
            lambda mine: [shutil.copy(mine / "red `things`/3.png", mine / "blue/99.png")],
            "red `things`/3.png: the same pixels as .*blue/99.png, of another class; remove one",
        ),
        (lambda mine: [(mine / "blue").rename(mine / os.fsdecode(b"caf\xe9"))], "this folder's name, .* is not UTF-8"),
    ],
    ids=["one class", "few pictures", "in two classes", "a name that is not UTF-8"],
)
def test_folders_that_cannot_be_learned_are_refused(folder, tmp_path, spoil, said):
    spoil(folder)
    with pytest.raises(UserError, match=said):
        adapt.adapt(folder, weights.choose_network("depthwise"), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_a_missing_folder_is_one_line_and_no_traceback(tmp_path):
    done = frugalnet("adapt", "nowhere", cwd=tmp_path, code=1)
    assert done.stderr.startswith("frugalnet: nowhere: no such folder; expected one that holds a folder of pictures")
    assert done.stderr.count("\n") == 1


def test_plain_pictures_of_other_colours_do_not_look_the_same(tmp_path):
    for k in range(6):
        for name, value in (("dark", 10 + 12 * k), ("light", 150 + 12 * k)):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{k}.png"), np.full((64, 64, 3), value, np.uint8))
    shown = labelled.read_pictures(tmp_path, 64)
    assert len(shown.labels) == 12
    assert shown.notes == []


def outline(path: Path, generator: np.random.Generator, paper: int = 255, ink: int = 0) -> None:
    """A circle or a square, as the folder's name says, in thin lines somewhere near the middle."""
    image = np.full((96, 96), paper, np.uint8)
    x, y = generator.integers(38, 58, 2).tolist()
    r = int(generator.integers(12, 34))
    width = int(generator.integers(1, 4))
    if path.parent.name == "circles":
        cv2.circle(image, (x, y), r, ink, width, cv2.LINE_AA)
    else:
        cv2.rectangle(image, (x - r, y - r), (x + r, y + r), ink, width)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (3, 15)], ids=["line drawings", "dark pictures"])
def test_a_hundred_circles_and_a_hundred_squares_are_no_copies(tmp_path, paper, ink):
    generator = np.random.default_rng(0)
    for k in range(100):
        for name in ("circles", "squares"):
            outline(tmp_path / name / f"{k}.png", generator, paper, ink)
    shown = labelled.read_pictures(tmp_path, 64)
    assert np.bincount(shown.labels).tolist() == [100, 100]
    assert len(np.unique(shown.groups)) == 200
    assert shown.notes == []


def test_of_equal_pixels_in_a_class_one_is_kept_and_near_copies_in_two_classes_are_a_warning(folder):
    shutil.copy(folder / "blue/3.jpg", folder / "blue/equal.jpg")
    image = cv2.imread(str(folder / "blue/4.jpg"))
    cv2.imwrite(str(folder / "blue/smaller.png"), cv2.resize(image, (72, 72), interpolation=cv2.INTER_AREA))
    cv2.imwrite(str(folder / "red `things`/worse.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 80])
    shown = labelled.read_pictures(folder, 64)
    assert np.bincount(shown.labels).tolist() == [16, 16]
    left_out, warning = shown.notes
    assert left_out.endswith("blue/equal.jpg: the same pixels as " + str(folder / "blue/3.jpg"))
    pair = f"{folder}/blue/4.jpg and {folder}/blue/smaller.png; "
    assert warning.startswith(f"near copies, kept together in training or in the hold-out: {pair}")
    assert str(folder / "red `things`/worse.jpg") in warning
    sizes = np.bincount(shown.groups)
    assert sorted(sizes)[-2:] == [1, 3]
    copies = shown.groups == sizes.argmax()
    sides = {tuple(labelled.hold_out(shown.labels, shown.groups, seed)[copies]) for seed in range(20)}
    assert sides == {(False, False, False), (True, True, True)}


def test_of_many_near_copies_the_first_pairs_and_the_number_are_told(folder):
    image = cv2.imread(str(folder / "blue/4.jpg"))
    for side in (70, 80, 90):
        cv2.imwrite(str(folder / f"blue/{side}.png"), cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
    (warning,) = labelled.read_pictures(folder, 64).notes
    assert warning.count(" and ") == 4  # three pairs, and the rest of the six
    assert warning.endswith("; and 3 more pairs")


def test_a_fifth_of_each_class_is_held_out():
    labels = np.repeat([0, 1, 2], [5, 10, 99])
    alone = np.arange(len(labels))
    held = labelled.hold_out(labels, alone, 0)
    assert [int(held[labels == c].sum()) for c in range(3)] == [1, 2, 20]
    assert np.array_equal(held, labelled.hold_out(labels, alone, 0))
    assert not np.array_equal(held, labelled.hold_out(labels, alone, 1))


@pytest.mark.parametrize("seed", range(5))
def test_near_copies_are_on_one_side_of_the_hold_out_and_each_class_is_on_both(seed):
    labels = np.repeat([0, 1, 2, 3], [20, 10, 6, 5])
    groups = np.arange(len(labels))
    groups[[1, 2, 3]] = 1  # of one class
    groups[[4, 20]] = 4  # of two classes
    groups[30:33], groups[33:36] = 30, 33  # a class of two groups, each more than a fifth
    groups[36:] = 36  # a class of one group
    held = labelled.hold_out(labels, groups, seed)
    divided = [group for group in np.unique(groups) if len(set(held[groups == group])) == 2]
    assert divided == [36]
    assert [int(held[labels == c].sum()) for c in range(4)] == [4, 2, 3, 1]


def test_the_result_never_lies_among_the_classes(folder):
    with pytest.raises(UserError, match="is in the folder of the classes; name another folder with --out"):
        adapt.adapt(folder, weights.choose_network("depthwise"), folder / "net")


@pytest.mark.parametrize("words", ["try --port 99999", "adapt mine --seed -1", "predict --top x photo.jpg"])
def test_a_number_out_of_range_is_said_with_the_range(tmp_path, words):
    said = frugalnet(*words.split(), cwd=tmp_path, code=2).stderr.splitlines()[-1]
    assert re.search(r"expected a whole number from \d+ to \d+, found '(99999|-1|x)'$", said), said
