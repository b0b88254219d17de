"""A folder of weights whose descriptions somebody has damaged: refused in one line, never a wrong figure or name."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

import frugalnet
from frugalnet.errors import UserError
from frugalnet.use import choice

WEIGHTS = Path(__file__).parents[1] / "weights"
LARGE = 10**400  # which no float holds
ODD_NAMES = ("", "../depthwise", "/etc/passwd", "a\nb", "<b>", "x" * 300)
WRONG = {
    "top1": (-0.5, 1.5, 1e300, LARGE, None, "0.5"),
    "n": (0, -1, LARGE, 0.5),
    "macs": (-1, LARGE),
    "seed": (-1, LARGE),
    "side": (0, 7, 5000),
    "model": ODD_NAMES,
    "file": ODD_NAMES,
    "classes": ODD_NAMES,
    "mean": ([-1, 0, 0], [0, 0], [1e300, 0, 0]),
    "std": ([0, 1, 1], [1, 1, 1, 1]),
    "onnx": ({"file": "../x", "sha256": ""}, {"file": "x", "sha256": "", "top1": 2}),
}
DAMAGED = (b"", b"[", b"[" * 100_000, b"\xff\xfe", b"null", b"0", b"[]", b'{"networks": {}}', b"\0" * 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The committed weights, of one network."""
    for path in [*WEIGHTS.glob("depthwise-0.*"), *WEIGHTS.glob("*.json")]:
        shutil.copy(path, tmp_path)
    listed = json.loads((WEIGHTS / "weights.json").read_text())
    listed["networks"] = [entry for entry in listed["networks"] if entry["model"] == "depthwise"]
    (tmp_path / "weights.json").write_text(json.dumps(listed))
    return tmp_path


def texts() -> Iterator[tuple[str, bytes]]:
    """Damaged files, by name."""
    entry = next(e for e in json.loads((WEIGHTS / "weights.json").read_text())["networks"] if e["model"] == "depthwise")
    for key, values in WRONG.items():
        for value in values:
            yield "weights.json", json.dumps({"networks": [{**entry, key: value}]}).encode()
        if key not in ("side", "onnx"):
            missing = {name: value for name, value in entry.items() if name != key}
            yield "weights.json", json.dumps({"networks": [missing]}).encode()
    for name in ("weights.json", "latency.json", "tiny-imagenet.json"):
        for text in DAMAGED:
            yield name, text


def test_a_description_that_cannot_be_true_is_refused_by_name(folder):
    assert "43.2%" in choice.table(*choice.read_options(folder))
    for name, text in texts():
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(text)
        with pytest.raises(UserError, match=rf"{name}: missing or damaged") as error:
            choice.read_options(folder)
        assert len(str(error.value)) < 1000, text[:200]
        (folder / name).write_bytes(before)


@pytest.mark.parametrize("count", [0, 3, 199, 201])
def test_a_network_with_more_or_fewer_classes_than_names_is_refused(folder, count):
    classes: dict[str, Any] = json.loads((folder / "tiny-imagenet.json").read_text())
    changed = {key: (values + values)[:count] for key, values in classes.items()}
    (folder / "tiny-imagenet.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=rf"depthwise-0\.onnx: tells 200 classes apart, but {count} are named"):
        frugalnet.load(None, folder)


def test_a_network_for_pictures_of_another_size_than_its_description_says_is_refused(folder):
    listed = json.loads((folder / "weights.json").read_text())
    listed["networks"][0]["side"] = 96
    (folder / "weights.json").write_text(json.dumps(listed))
    with pytest.raises(UserError, match=r"depthwise-0\.onnx: does not take pictures of 96×96 pixels"):
        frugalnet.load(None, folder)


@pytest.mark.parametrize(
    "changes", [{"side": "0"}, {"side": "1000000"}, {"side": "x"}, {"classes": "["}, {"classes": "[" * 100_000}, {}]
)
def test_an_exported_file_that_describes_itself_wrongly_is_refused(folder, tmp_path, changes):
    model = ModelProto.FromString((folder / "depthwise-0.onnx").read_bytes())
    described = {entry.key: entry.value for entry in model.metadata_props} | changes
    del model.metadata_props[:]
    for key, value in described.items() if changes else ():
        model.metadata_props.add(key=key, value=value)
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"model\.onnx: does not name its classes"):
        frugalnet.load(None, exported)
