"""The classifier that `adapt` trains without PyTorch, and what it says of the held-out pictures."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.linear_model import LogisticRegression

from frugalnet.errors import UserError
from frugalnet.export import onnx_files
from frugalnet.files import read_json, sha256
from frugalnet.metrics import counts
from frugalnet.use import adapt, choice, finetuned, retrained, weights
from frugalnet.use.confusion import draw_confusion
from frugalnet.use.int8_file import with_classifier
from frugalnet.use.onnx_file import Classifier, OnnxFile
from frugalnet.use.outcome import as_markdown, as_text, judge
from frugalnet.use.pytorch import open_network
from frugalnet.use.runtime import open_onnx, open_stored
from frugalnet.use.softmax import DECAY, LEAST_OF_INT8, train_classifier


@pytest.mark.parametrize("is_balanced", [True, False])
def test_the_classifier_is_the_one_that_scikit_learn_finds(is_balanced):
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 20, 5])
    noise = generator.normal(size=(85, 12)) * generator.uniform(0.1, 9, 12)
    features = (noise + labels[:, None] / 2).astype(np.float32)
    found = train_classifier(features, labels, is_balanced)
    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    inputs = np.c_[(features - mean) / scale, np.ones(85)]
    judge = LogisticRegression(
        C=1 / (85 * DECAY),
        class_weight="balanced" if is_balanced else None,
        fit_intercept=False,
        tol=1e-8,
        max_iter=5000,
    ).fit(inputs, labels)
    logits = features @ found.weight.T + found.bias
    assert np.allclose(logits - logits.mean(axis=1, keepdims=True), inputs @ judge.coef_.T, atol=2e-3)


def test_features_that_do_not_vary_or_are_not_finite(tmp_path):
    features = np.zeros((6, 3), np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert np.isfinite(train_classifier(features, labels, True).weight).all()
    features[:, 1] = [0, 0, 0, 1, 1, 1]
    found = train_classifier(features, labels, True)
    assert ((features @ found.weight.T + found.bias).argmax(axis=1) == labels).all()
    features[0, 0] = np.inf
    with pytest.raises(UserError, match="features of these pictures are not finite"):
        train_classifier(features, labels, True)


def test_a_feature_that_hardly_varies_gets_no_weight_that_rounding_to_eight_bits_would_spoil():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    features = np.c_[labels + generator.normal(size=100), labels * 1e-3].astype(np.float32)
    weight = train_classifier(features, labels, True, least=LEAST_OF_INT8).weight
    assert np.abs(weight[:, 1]).max() < 5 * np.abs(weight[:, 0]).max()


def write_graph(path: Path, kind: str) -> None:
    """A network of the channels' means, (N, 8, 8, 3) → (N, 2), that ends in one layer of that kind."""
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    bias = np.array([0.5, -999], np.float32)
    nodes = [helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT)]
    if kind == "Conv":
        weight = weight.reshape(2, 3, 1, 1)
        nodes += [
            helper.make_node("Transpose", ["floats"], ["channels"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["channels", "fc.weight", "fc.bias"], ["maps"]),
            helper.make_node("ReduceMean", ["maps", "axes"], ["logits"], keepdims=0),
        ]
        axes = [2, 3]
    else:
        nodes.append(helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0))
        nodes.append(helper.make_node("Gemm", ["means", "fc.weight", "fc.bias"], ["linear"], transB=1))
        nodes.append(helper.make_node("Relu" if kind == "Relu" else "Identity", ["linear"], ["logits"]))
        axes = [1, 2]
    tensors = {"fc.weight": weight, "fc.bias": bias, "axes": np.array(axes)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.mark.parametrize("kind", ["Gemm", "Conv"])
def test_another_classifier_in_an_onnx_file_is_all_that_changes(tmp_path, kind):
    write_graph(tmp_path / "a.onnx", kind)
    file = OnnxFile(tmp_path / "a.onnx")
    assert (file.key, file.uses) == ("fc", 1)
    new = Classifier(np.ones((4, 3), np.float32), np.array([0, 1, 2, 3], np.float32))
    (tmp_path / "b.onnx").write_bytes(file.replaced(new, {"name": "b"}))
    onnx.checker.check_model(onnx.load(tmp_path / "b.onnx"), full_check=True)
    pixels = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), np.uint8)
    expected = pixels.mean(axis=(1, 2)).sum(axis=1)[:, None] + new.bias
    assert np.allclose(open_onnx(tmp_path / "b.onnx")(pixels), expected, atol=1e-3)
    before, after = (onnx.load(tmp_path / f"{name}.onnx") for name in "ab")
    assert list(before.graph.node) == list(after.graph.node)
    assert list(before.opset_import) == list(after.opset_import)
    assert before.graph.input[0] == after.graph.input[0]


def int8_of_graph(folder: Path, kind: str) -> Path:
    """The int8 file of a network that `write_graph` writes."""
    write_graph(folder / "a.onnx", kind)
    images = np.random.default_rng(2).integers(0, 256, (50, 8, 8, 3), np.uint8)
    onnx_files.quantise(folder / "a.onnx", folder / "a.int8.onnx", images)
    onnx_files.finish(folder / "a.int8.onnx", {}, keep_weights_names=False)
    return folder / "a.int8.onnx"


@pytest.mark.parametrize("kind", ["Gemm", "Conv"])
def test_another_classifier_in_an_int8_file(tmp_path, kind):
    path = int8_of_graph(tmp_path, kind)
    weight = np.array([[1, 0.5, -0.25], [0.1, 0.2, 0.3], [1e-12, 0, 0], [0, 0, 0]], np.float32)
    new = Classifier(weight, np.array([0, 1, 12, 0], np.float32))
    (tmp_path / "b.onnx").write_bytes(with_classifier(path, new, {"name": "b"}))
    onnx.checker.check_model(onnx.load(tmp_path / "b.onnx"), full_check=True)
    pixels = np.random.default_rng(1).integers(0, 255, (5, 8, 8, 3), np.uint8)
    expected = pixels.mean(axis=(1, 2)) @ weight.T + new.bias
    found = open_onnx(tmp_path / "b.onnx")(pixels)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert found[:, 2:] == pytest.approx(np.broadcast_to([12, 0], (5, 2)), rel=1e-3)


@pytest.mark.parametrize("model", ["depthwise", "frugal_wide"])  # the other uses its classifier twice
def test_the_classifier_is_all_that_changes_in_an_int8_file(tmp_path, model):
    stored = weights.choose_network(model)
    path = weights.check_exports(stored)["int8"]
    old = OnnxFile(weights.check_exports(stored)["onnx"]).classifier
    few = Classifier(old.weight[:6], old.bias[:6])
    names = [tmp_path / f"{name}.onnx" for name in ("same", "few", "again")]
    for source, target, classifier in zip([path, *names], names, [old, few, old], strict=False):
        target.write_bytes(with_classifier(source, classifier, {}))
        onnx.checker.check_model(onnx.load(target), full_check=True)
    same, few_of_them, again = (open_onnx(name) for name in names)
    pixels = np.random.default_rng(1).integers(0, 255, (8, 64, 64, 3), np.uint8)
    assert np.abs(same(pixels) - open_onnx(path)(pixels)).max() < 0.35  # steps of 0.14 to 0.32 that the file had
    assert np.array_equal(few_of_them(pixels), same(pixels)[:, :6])
    assert np.array_equal(again(pixels), same(pixels))
    assert names[1].stat().st_size < names[0].stat().st_size - 190 * 128  # a byte a weight
    assert names[0].read_bytes() == names[2].read_bytes()


def test_a_damaged_file_and_a_network_that_ends_in_something_else_are_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\xff\xffno model")
    with pytest.raises(UserError, match=r"a\.onnx: not an ONNX file"):
        OnnxFile(tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="its last layer is no classifier"):
        OnnxFile(tmp_path / "a.onnx")


def test_a_classifier_whose_answers_are_changed_afterwards_is_not_trained(tmp_path):
    write_graph(tmp_path / "a.onnx", "Relu")
    stored = weights.choose_network("depthwise")
    export = weights.Export(file="a.onnx", sha256=sha256(tmp_path / "a.onnx"))
    entry = stored.entry.model_copy(update={"onnx": export, "side": 8})
    odd = stored.model_copy(update={"path": tmp_path / "a.safetensors", "entry": entry})
    draw_classes(tmp_path / "mine", 6)
    with pytest.raises(UserError, match="its answers are not those of its last layer; use --train all"):
        adapt.adapt(tmp_path / "mine", odd, tmp_path / "out")


def draw_classes(folder: Path, count: int) -> None:
    """Dark and bright pictures of noise, `count` of each."""
    generator = np.random.default_rng(0)
    for name, low in (("bright", 128), ("dark", 0)):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = generator.integers(low, low + 128, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")


@pytest.mark.parametrize("model", ["depthwise", "frugal_wide"])  # the other averages a picture and its mirror image
def test_the_adapted_files_are_one_network_and_say_what_they_reached(tmp_path, model):
    draw_classes(tmp_path / "mine", 10)
    outcome = adapt.adapt(tmp_path / "mine", weights.choose_network(model), tmp_path / "net")
    (stored,) = weights.of_folder(tmp_path / "net")
    written = read_json(tmp_path / "net/adapt.json")
    assert written["top1"] == outcome.top1 == stored.entry.top1
    assert written["confusion"] == outcome.confusion == [[2, 0], [0, 2]]
    network = open_stored(stored)
    assert network.path.name == f"{model}-0.onnx"
    pixels = np.random.default_rng(1).integers(0, 255, (8, 64, 64, 3), np.uint8)
    assert np.abs(network.logits(pixels) - open_network(stored)(pixels)).max() < 1e-4
    assert stored.entry.macs == counts.macs(weights.load_network(stored)[1], (3, 64, 64))
    assert OnnxFile(network.path).key.endswith("fc")
    assert Image.open(tmp_path / "net/confusion.png").format == "PNG"
    assert sorted(path.parent.name for path in (tmp_path / "net/examples").glob("*/*.png")) == ["bright", "dark"]
    int8 = open_stored(stored, "int8")
    assert int8.path.stat().st_size < network.path.stat().st_size / 2
    dark, bright = pixels // 2, 128 + pixels // 2
    assert [int8.class_names[label] for label in int8.logits(np.r_[dark, bright]).argmax(axis=1)] == [
        *["dark"] * len(dark),
        *["bright"] * len(bright),
    ]
    assert written["int8_top1"] == stored.entry.int8.top1 == 1.0
    assert "As int8: 100.0%." in (tmp_path / "net/README.md").read_text()


def test_the_accuracy_of_the_int8_file_is_its_own_and_there_is_none_without_one(tmp_path, monkeypatch):
    draw_classes(tmp_path / "mine", 10)
    stored = weights.choose_network("depthwise")
    spoiled = Classifier(np.zeros((2, 128), np.float32), np.array([1, 0], np.float32))  # says "bright"
    monkeypatch.setattr(retrained, "with_classifier", lambda path, _, told: with_classifier(path, spoiled, told))
    assert adapt.adapt(tmp_path / "mine", stored, tmp_path / "net").int8_top1 == 0.5
    listed = choice.options(weights.of_folder(tmp_path / "net"))
    assert [(option.format, option.top1) for option in listed] == [("onnx", 1.0), ("int8", 0.5)]
    without = stored.model_copy(update={"entry": stored.entry.model_copy(update={"int8": None})})
    assert adapt.adapt(tmp_path / "mine", without, tmp_path / "other").int8_top1 is None
    assert weights.choose_network(None, tmp_path / "other").entry.int8 is None


def test_files_whose_names_are_not_utf_8_are_named_in_escapes(tmp_path):
    noise = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(8):
            pixels = noise.integers(0, 256, (64, 64, 3), np.uint8)
            path = tmp_path / "pictures" / label / os.fsdecode(b"caf\xe9%d.png" % number)
            Image.fromarray(pixels).save(path)
    outcome = adapt.adapt(tmp_path / "pictures", weights.choose_network("depthwise"), tmp_path / "out")
    assert outcome.mistakes
    assert all("caf\\xe9" in mistake.file for mistake in outcome.mistakes)
    assert len(read_json(tmp_path / "out/adapt.json")["mistakes"]) == len(outcome.mistakes)


def test_each_class_is_told_with_what_it_is_taken_for():
    labels = np.repeat([0, 1, 2], [50, 10, 2])
    predicted = labels.copy()
    predicted[10:52] = 1  # of 50, 8 + 2 are right: the other 40 are taken for b
    predicted[:2] = 2
    files = [f"{label}/{number}.jpg" for number, label in enumerate(labels)]
    outcome = judge(["a", "b", "c"], np.array([250, 50, 11]), files, labels, predicted)
    assert (outcome.right, outcome.n) == (20, 62)
    first, second = outcome.classes[:2]
    assert (first.held_out, first.right, first.taken_for, first.taken_for_count) == (50, 8, "b", 40)
    assert (second.right, second.taken_for) == (10, None)
    assert outcome.mean_over_classes == pytest.approx((8 / 50 + 1 + 1) / 3)
    assert outcome.commonest == pytest.approx(50 / 62)
    assert len(outcome.mistakes) == 42
    assert outcome.mistakes[2].model_dump() == {"file": "0/10.jpg", "label": "a", "predicted": "b"}
    assert outcome.warnings[0].endswith("says little: c (11)")
    lines = as_text(outcome, 3).splitlines()
    assert lines[1].split() == ["a", "250", "50", "8", "b", "(40)"]
    assert lines[-4:-1] == ["  0/0.jpg: c", "  0/1.jpg: c", "  0/10.jpg: b"]
    assert lines[-1] == "  and 39 more, in adapt.json"
    assert "| a | 250 | 50 | 8 | b (40) |" in as_markdown(outcome)
    assert as_markdown(outcome).count("\n- ") == 42


@pytest.mark.parametrize(("right", "warns"), [(30, True), (39, False)])
def test_an_accuracy_that_always_answering_one_class_reaches_is_a_warning(right, warns):
    labels = np.repeat([0, 1], [30, 20])
    predicted = np.where(np.arange(50) < right, labels, 1 - labels)
    outcome = judge(["a", "b"], np.array([150, 100]), [""] * 50, labels, predicted)
    assert [("most common class" in warning) for warning in outcome.warnings] == [True] * warns


def test_repeated_pictures_make_the_classes_equally_large():
    labels = np.array([0, 1, 0, 0, 0, 1, 0, 2])
    chosen = finetuned.evened(labels, 0)
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 5]
    assert set(chosen) == set(range(8))


def test_a_table_of_many_classes_shows_the_worst(tmp_path):
    confusion = np.diag(np.full(60, 3)) + np.eye(60, k=1, dtype=int)
    names = [f"class {i} of a long name, longer than is shown" for i in range(60)]
    draw_confusion(names, confusion.tolist(), tmp_path / "a")
    assert Image.open(tmp_path / "a").height > 40 * 40
