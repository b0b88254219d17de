import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from torch import nn
from torch.nn.functional import cross_entropy

from frugalnet import models
from frugalnet.errors import UserError
from frugalnet.metrics.counts import counts
from frugalnet.models.check import check_architecture
from frugalnet.models.layers import channels

ROOT = Path(__file__).parents[1]

# The paper's plan (section 3.2): layer, output shape as H×W×C, weights, batch-norm values by Keras's count.
CONVENTIONAL = [
    ("conv1", (31, 31, 32), 864, 128),
    ("pool1", (31, 31, 32), 0, 0),
    ("conv2", (15, 15, 64), 18_432, 256),
    ("pool2", (15, 15, 64), 0, 0),
    ("conv3", (7, 7, 128), 73_728, 512),
    ("conv4", (7, 7, 128), 147_456, 512),
    ("conv5", (7, 7, 128), 147_456, 512),
    ("pool5", (1, 1, 128), 0, 0),
    ("fc", (200,), 25_800, 0),
]
SEPARABLE = [
    ("conv1", (31, 31, 32), 864, 128),
    ("pool1", (31, 31, 32), 0, 0),
    ("conv2", (15, 15, 64), 288 + 2_048, 256),
    ("pool2", (15, 15, 64), 0, 0),
    ("conv3", (7, 7, 128), 576 + 8_192, 512),
    ("conv4", (7, 7, 128), 1_152 + 16_384, 512),
    ("conv5", (7, 7, 128), 1_152 + 16_384, 512),
    ("pool5", (1, 1, 128), 0, 0),
    ("fc", (200,), 25_800, 0),
]
STUDY = [
    ("alexnet", CONVENTIONAL, 414_696, 415_656),
    ("depthwise", SEPARABLE, 73_800, 74_760),
    ("residual", SEPARABLE, 73_800, 74_760),
]


def size(module: nn.Module) -> tuple[int, int]:
    """What gradient descent changes, and that with running means and variances."""
    trainable = sum(parameter.numel() for parameter in module.parameters())
    return trainable, trainable + sum(b.numel() for name, b in module.named_buffers() if "running" in name)


@pytest.mark.parametrize(("name", "macs"), [("frugal", 3_529_664), ("frugal_wide", 45_000_000)])
def test_the_frugal_networks_stay_within_the_papers_parameters_and_their_macs(name: str, macs: int) -> None:
    found = counts(models.build(name), (3, 64, 64))
    assert found["parameters_keras"] <= 74_818
    assert found["macs"] <= macs


@pytest.mark.parametrize(("name", "table", "trainable", "keras"), STUDY)
def test_each_layer_has_the_shape_and_the_parameters_of_the_paper(
    name: str, table: list[tuple[str, tuple[int, ...], int, int]], trainable: int, keras: int
) -> None:
    network = models.build(name).eval()
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, module in network.named_children():

        def note(_: Any, __: Any, output: torch.Tensor, layer: str = layer) -> None:
            channels, *extent = output.shape[1:]
            shapes[layer] = (*extent, channels)

        module.register_forward_hook(note)
    network(torch.zeros(1, 3, 64, 64))

    for layer, shape, weights, normalisation in table:
        assert shapes.pop(layer) == shape, layer
        assert size(network.get_submodule(layer)) == (weights + normalisation // 2, weights + normalisation), layer
    assert set(shapes) <= {"flatten"}
    assert size(network) == (trainable, keras)


def test_frugal_wide_averages_the_image_and_its_mirror_image_in_evaluation_but_not_in_training() -> None:
    torch.manual_seed(0)
    wide, x = models.build("frugal_wide").eval(), torch.randn(2, 3, 64, 64)
    network = wide.get_submodule("network")
    torch.testing.assert_close(wide(x), (network(x) + network(x.flip(3))) / 2)
    assert not torch.allclose(wide(x), network(x))
    torch.testing.assert_close(wide(x), wide(x.flip(3)))
    torch.testing.assert_close(wide.train()(x), network(x))


@pytest.mark.parametrize("name", ["depthwise", "residual"])
def test_nothing_stands_between_a_depthwise_convolution_and_its_pointwise_one(name: str) -> None:
    leaves = [module for module in models.build(name).modules() if not list(module.children())]
    for i, module in enumerate(leaves):
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            assert module.groups == module.in_channels == module.out_channels
            after = leaves[i + 1]
            assert isinstance(after, nn.Conv2d)
            assert after.kernel_size == (1, 1)


def test_the_shortcuts_of_residual_go_around_conv4_and_conv5_and_are_the_identity() -> None:
    network = models.build("residual").eval()
    x = torch.randn(2, 128, 7, 7)
    for layer in ("conv4", "conv5"):
        block = network.get_submodule(layer)
        for weight in block.parameters():
            nn.init.zeros_(weight)
        torch.testing.assert_close(block(x), x)


def test_the_same_weights_make_residual_and_depthwise_differ_by_the_shortcuts_only() -> None:
    depthwise, residual = models.build("depthwise").eval(), models.build("residual").eval()
    residual.load_state_dict(dict(zip(residual.state_dict(), depthwise.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 64, 64)
    for layer in ("conv1", "pool1", "conv2", "pool2", "conv3"):
        x = depthwise.get_submodule(layer)(x)
    conv4, conv5 = (depthwise.get_submodule(layer) for layer in ("conv4", "conv5"))
    torch.testing.assert_close(residual.get_submodule("conv4")(x), x + conv4(x))
    torch.testing.assert_close(residual.get_submodule("conv5")(x), x + conv5(x))


@pytest.mark.parametrize(
    ("name", "trainable"),  # torchvision's parameters, less the classifier's 800 classes and the changes
    [
        ("resnet18", 11_689_512 - 800 * (512 + 1) - 64 * 3 * (7 * 7 - 3 * 3)),
        ("mobilenet_v3_small", 2_542_856 - 800 * (1024 + 1)),
        ("shufflenet_v2_x0_5", 1_366_792 - 800 * (1024 + 1)),
        # A batch norm has a scale and a shift; the convolution it follows has lost its bias.
        ("squeezenet1_1", 1_235_496 - 800 * (512 + 1) + (64 + 2 * (16 + 128 + 32 + 256 + 48 + 384 + 64 + 512))),
    ],
)
def test_torchvision_s_networks_keep_their_parameters_and_end_in_features_of_4_by_4(name: str, trainable: int) -> None:
    network = models.build(name).eval()
    assert size(network)[0] == trainable
    seen: list[torch.Size] = []
    # What reaches the average over the picture: the last tensor that has an extent.
    for layer in network.modules():
        layer.register_forward_hook(lambda _, __, output: seen.append(output.shape) if output.ndim == 4 else None)
    network(torch.zeros(1, 3, 64, 64))
    assert [tuple(shape[2:]) for shape in seen if shape[2] > 1][-1] == (4, 4)


@pytest.mark.parametrize("name", models.available())
@pytest.mark.parametrize("num_classes", [10, 200])
def test_logits_are_one_row_an_image_and_one_column_a_class(name: str, num_classes: int) -> None:
    network = models.build(name, num_classes)
    logits = network(torch.randn(3, 3, 64, 64))
    assert logits.shape == (3, num_classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", models.available())
def test_an_image_alone_gets_the_logits_it_gets_in_a_batch_and_in_any_layout(name: str) -> None:
    network = models.build(name).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        together = network(images)
        torch.testing.assert_close(network(images[:1]), together[:1], rtol=1e-4, atol=1e-4)
        network.to(memory_format=torch.channels_last)
        rearranged = network(images.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(rearranged, together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", models.available())
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    network = models.build(name, 10)
    cross_entropy(network(torch.randn(8, 3, 64, 64)), torch.arange(8)).backward()
    for parameter, value in network.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.abs().sum() > 0, parameter


@pytest.mark.parametrize("name", models.available())
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(models.build(name).state_dict())
    for weight, again in zip(networks[0].values(), networks[1].values(), strict=True):
        assert torch.equal(weight, again)


@pytest.mark.parametrize("name", ["alexnt", "layers", "", "../errors"])
def test_an_unknown_name_is_refused_with_the_list_of_valid_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"is not one of: alexnet, depthwise"):
        models.build(name)


@pytest.fixture
def architecture(tmp_path, monkeypatch):
    """Writes models/tried.py, in a folder that is searched for architectures, too."""
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    monkeypatch.setattr(models, "__file__", str(tmp_path / "__init__.py"))

    def write(source: str, name: str = "tried") -> None:
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        sys.modules.pop(f"frugalnet.models.{name}", None)

    return write


POOLED = """from torch import nn
def build(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), {})
"""
NET = """import torch
from ruamel.yaml import YAML
from torch import nn
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(3, classes)
    def forward(self, x):
        x = x.mean((2, 3))
        return {}
def build(num_classes):
    return Net(num_classes)
"""


@pytest.mark.parametrize("name", models.available())
def test_every_architecture_passes_the_check_that_comes_before_any_work(name):
    check_architecture(name, [32, 48, 64])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_of_that_name\n", r"cannot be imported \(ModuleNotFoundError: .*, line 1\)"),
        ("def build(:\n", r"not Python \("),
        ("def make(num_classes): ...\n", r"expected a function build\(num_classes\), found NoneType"),
        ("def build(classes): ...\n", r"expected a function build\(num_classes\), found build\(classes\)"),
        ("def build(num_classes):\n    return 1 / 0\n", r"build\(7\) failed \(ZeroDivisionError: .*, line 2\)"),
        ("def build(num_classes): return 3\n", r"has to return a torch\.nn\.Module, found int"),
        (POOLED.format("nn.Linear(3, 1000)"), r"expected logits \(3, 7\) of floats, found float32 \(3, 1000\)"),
        (POOLED.format("nn.Flatten(0)"), r"expected logits \(3, 7\) of floats, found float32 \(9,\)"),
        (POOLED.format("nn.Linear(4, num_classes)"), r"fails on images of 32×32 pixels \(RuntimeError"),
        (
            "from torch import nn\ndef build(num_classes):\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, num_classes))\n",
            r"fails on images of 32×32 pixels \(RuntimeError",
        ),
        (
            NET.format("x.sum(1, True).expand(-1, 7)"),
            r"in training mode, .* depend on parameters, found float32 \(3, 7\)",
        ),
        (NET.format("self.fc(x).detach()"), r"in training mode, expected logits .* depend on parameters"),
        (
            NET.format("self.fc(x) if not self.training else 1 / 0"),
            r"fails in training mode .*\(ZeroDivisionError: .*, l",
        ),
        (NET.format("(self.fc(x), x) if self.training else self.fc(x)"), r"in training mode, .* found tuple"),
        (NET.format("self.fc(x) / 0"), "logits that are not finite numbers"),
        (NET.format("self.fc(x * 1e30) * 1e30"), "logits that are not finite numbers"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_by_file_and_reason_in_one_line(architecture, source, reason):
    architecture(source)
    with pytest.raises(UserError, match=r"tried\.py: .*" + reason) as refusal:
        check_architecture("tried", [32])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["my-net", "class", "_net", "nété", "n" * 65])
def test_a_file_name_that_cannot_be_imported_is_refused_and_not_listed(architecture, name):
    architecture(POOLED.format("nn.Linear(3, num_classes)"), name)
    assert name not in models.available()
    with pytest.raises(UserError, match=f"'{name}' cannot be a network's name"):
        check_architecture(name)


@pytest.mark.parametrize("of_batch", ["x - x.mean(0)", "x / x.abs().max()", "x.flip(0)", "x + torch.rand(1)"])
def test_a_network_whose_logits_depend_on_the_other_images_or_on_chance_is_refused(architecture, of_batch):
    architecture(NET.format(re.sub(r"\bx\b", "self.fc(x)", of_batch)))
    with pytest.raises(UserError, match="other logits alone than among others"):
        check_architecture("tried")


WIDE = ["alexnet", "depthwise", "residual", "frugal", "frugal_wide", "mobilenet_v3_small"]


@pytest.mark.parametrize(("width", "expected"), [(0.25, 8), (0.375, 12), (1, 32), (3, 96), (0.01, 4), (0.3125, 12)])
def test_channels_are_the_nearest_multiple_of_four(width, expected):
    assert channels(32, width) == expected


@pytest.mark.parametrize("architecture", WIDE)
def test_an_architecture_of_another_width_is_a_network_of_its_own(architecture):
    costs = [counts(models.build(name, 10), (3, 64, 64))["macs"] for name in (f"{architecture}_x0_5", architecture)]
    assert costs[0] < 0.6 * costs[1]
    check_architecture(f"{architecture}_x0_5", [32])


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [("alexnet_x0_375", 3_444_324, 64_916), ("depthwise_x2_875", 23_450_984, 443_640)],
)
def test_the_papers_plan_at_a_width_has_the_counts_of_its_channels(name, macs, parameters):
    counted = counts(models.build(name), (3, 64, 64))
    assert (counted["macs"], counted["parameters_trainable"]) == (macs, parameters)


def test_the_docs_state_the_counts_of_the_widths():
    text = (ROOT / "docs/study.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+_x[^|]*) \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    stated = {name: row[1:] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    curve = YAML(typ="safe").load((ROOT / "conf/model/curve.yaml").read_text(encoding="utf-8"))
    assert stated.keys() == {name for name in curve["names"] if models.parse(name).width != 1}
    for name, figures in stated.items():
        counted = counts(models.build(name), (3, 64, 64))
        assert figures == (f"{counted['macs']:,}", f"{counted['parameters_trainable']:,}")


@pytest.mark.parametrize("width", [0.125, 0.25, 0.375, 0.5, 1.0, 1.5, 2.875, 3.0])
def test_a_networks_name_states_its_architecture_and_width(width):
    network = models.Network("frugal_wide", width)
    assert models.parse(network.name) == network
    assert models.find(network.name) == models.find("frugal_wide")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("depthwise_x1", "write depthwise, so"),
        ("depthwise_x0_50", "write depthwise_x0_5, so"),
        ("depthwise_x0", "expected a width above 0, at most 8; found 0"),
        ("depthwise_x9", "expected a width above 0, at most 8; found 9"),
        ("squeezenet1_1_x2", "squeezenet1_1 has no width"),
        ("deepwise_x2", "is not one of: alexnet"),
    ],
)
def test_a_width_that_cannot_be_is_refused(name, reason):
    with pytest.raises(UserError, match=reason):
        models.build(name)


def test_a_name_that_is_an_architectures_has_no_other_width():
    assert models.parse("shufflenet_v2_x0_5") == models.Network("shufflenet_v2_x0_5")
