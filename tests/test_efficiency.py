import json
import time
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from frugalnet import models
from frugalnet.metrics import counts, energy, timing
from frugalnet.metrics.config import MeasureConfig
from frugalnet.metrics.energy import EnergyMeter

SHAPE = (3, 64, 64)
CPU = torch.device("cpu")
QUICK = MeasureConfig(warmup_rounds=0, rounds=2, latencies_per_round=3, batch_size=4, energy_seconds=0.1)

# Output pixels × weights that each of them meets, by hand.
CONVENTIONAL_MACS = {
    "conv1": 31 * 31 * 32 * 3 * 9,
    "conv2": 15 * 15 * 64 * 32 * 9,
    "conv3": 7 * 7 * 128 * 64 * 9,
    "conv4": 7 * 7 * 128 * 128 * 9,
    "conv5": 7 * 7 * 128 * 128 * 9,
    "fc": 128 * 200,
}
SEPARABLE_MACS = {
    "conv1": 31 * 31 * 32 * 3 * 9,
    "conv2": 15 * 15 * (32 * 9 + 32 * 64),
    "conv3": 7 * 7 * (64 * 9 + 64 * 128),
    "conv4": 7 * 7 * (128 * 9 + 128 * 128),
    "conv5": 7 * 7 * (128 * 9 + 128 * 128),
    "fc": 128 * 200,
}


@pytest.mark.parametrize(
    ("name", "trainable", "keras", "macs"),
    [
        ("alexnet", 414_696, 415_656, CONVENTIONAL_MACS),
        ("depthwise", 73_800, 74_760, SEPARABLE_MACS),
        ("residual", 73_800, 74_760, SEPARABLE_MACS),
    ],
)
def test_the_study_s_networks_cost_what_a_hand_counts(
    name: str, trainable: int, keras: int, macs: dict[str, int]
) -> None:
    network = models.build(name)
    counted = counts.counts(network, SHAPE)
    assert (counted["parameters_trainable"], counted["parameters_keras"]) == (trainable, keras)
    assert counted["macs"] == sum(macs.values())
    assert counted["weights_bytes"] == 4 * keras + 8 * 5  # float32, and five batch norms count their batches in int64
    by_layer = {row["layer"]: row for row in counts.layers(network, SHAPE)}
    assert {layer: row["macs"] for layer, row in by_layer.items() if row["macs"]} == macs
    assert by_layer["conv3"]["output_shape"] == "7×7×128"
    assert by_layer["fc"]["output_shape"] == "200"


@pytest.mark.parametrize(
    ("name", "trainable", "macs"),
    [  # as torchvision publishes them, at 224×224 and 1,000 classes; MACs by the papers, or torchvision, rounded
        ("resnet18", 11_689_512, 1.81e9),
        ("mobilenet_v3_small", 2_542_856, 56e6),
        ("shufflenet_v2_x0_5", 1_366_792, 41e6),
        ("squeezenet1_1", 1_235_496, 349e6),
    ],
)
def test_the_counts_of_torchvision_s_networks_are_the_published_ones(name: str, trainable: int, macs: float) -> None:
    network = getattr(torchvision.models, name)(weights=None)
    counted = counts.counts(network, (3, 224, 224))
    assert counted["parameters_trainable"] == trainable
    assert counted["macs"] == pytest.approx(macs, rel=0.015)


@pytest.mark.parametrize("name", models.available())
def test_the_macs_of_every_architecture_are_what_its_convolutions_and_products_need(name: str) -> None:
    """Counted a second way: output values × inputs that each of them meets, from the layers' own shapes."""
    network, found = models.build(name).eval(), []

    def note(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(output[0].numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(note)
    network(torch.zeros(1, *SHAPE))
    expected = sum(found)
    assert counts.macs(network, SHAPE) == expected


@pytest.mark.parametrize("name", models.available())
def test_the_layers_of_every_architecture_add_up_to_the_whole(name: str) -> None:
    network = models.build(name)
    rows, counted = counts.layers(network, SHAPE), counts.counts(network, SHAPE)
    for key in ("parameters_trainable", "parameters_keras", "macs"):
        assert sum(row[key] for row in rows) == counted[key]
    assert len({row["layer"] for row in rows}) == len(rows) > 4


def test_counting_leaves_the_network_as_it_was() -> None:
    network = models.build("residual")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    counts.layers(network, SHAPE)
    counts.counts(network, SHAPE)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_sequence_of_blocks_is_shown_block_by_block_and_kinds_tell_depthwise_from_plain() -> None:
    block = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    network = nn.Sequential()
    network.add_module("stem", nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU()))
    network.add_module("features", nn.Sequential(block, nn.MaxPool2d(2)))
    rows = counts.layers(network, SHAPE)
    assert [(row["layer"], row["kind"]) for row in rows] == [
        ("stem", "Conv2d 5×5 + ReLU"),
        ("features.0", "depthwise Conv2d 3×3 + Conv2d 1×1"),
        ("features.1", "MaxPool2d"),
    ]
    assert counts._kind(models.build("mobilenet_v3_small").get_submodule("features.4")) == "InvertedResidual"


class Sleeper(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return x


def sleeping(seconds: float) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Sleeper(seconds), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_times_are_of_the_right_thing_in_the_right_unit() -> None:
    cost = timing.measure_networks({"slow": sleeping(0.02), "quick": sleeping(0)}, CPU, QUICK)
    slow = cost["slow"]
    assert slow["latency_ms"]["n"] == slow["train_latency_ms"]["n"] == 6
    assert slow["throughput"]["n"] == slow["train_step_ms"]["n"] == 2
    for key in ("latency_ms", "train_latency_ms", "train_step_ms"):
        assert 20 < slow[key]["p5"] <= slow[key]["median"] <= slow[key]["p95"], key
    assert slow["throughput"]["p5"] <= slow["throughput"]["median"] <= slow["throughput"]["p95"] < 4 / 0.02
    assert slow["train_throughput"]["median"] < 4 / 0.02
    assert slow["layer_ms"]["2"] > 20
    assert slow["cpu_seconds_per_image"] > 0
    assert cost["quick"]["layer_ms"]["2"] < 20


def test_the_time_of_a_layer_that_is_used_twice_is_of_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sleep, self.last = Sleeper(0.02), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.last(self.sleep(self.sleep(x)))
            return logits

    assert timing.measure_networks({"twice": Twice()}, CPU, QUICK)["twice"]["layer_ms"]["sleep"] > 40


@pytest.mark.parametrize("name", models.available())
def test_what_is_measured_is_json_with_the_machine_beside_it_and_the_networks_are_not_touched(name: str) -> None:
    network = models.build(name, 10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cost = json.loads(json.dumps(timing.measure_networks({name: network}, CPU, QUICK), allow_nan=False))[name]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert cost["peak_memory_train_step_bytes"] > cost["peak_memory_forward_bytes"] > counts.weights_bytes(network)
    assert list(cost["layer_ms"]) == [row["layer"] for row in counts.layers(network, SHAPE)]
    machine = cost["machine"]
    assert (machine["device"], machine["threads"], machine["batch_size"]) == ("cpu", torch.get_num_threads(), 4)
    assert machine["input_shape"] == "3×64×64"
    assert all(machine[key] for key in ("cpu", "cores", "torch", "cpu_capability", "system"))


def test_rounds_measure_the_networks_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    forward = Sleeper.forward

    def noting(self: Sleeper, x: Tensor) -> Tensor:
        if len(x) == 1 and not torch.is_grad_enabled():
            order.append(self.seconds)
        return forward(self, x)

    monkeypatch.setattr(Sleeper, "forward", noting)
    once = QUICK.model_copy(update={"warmup_rounds": 1, "latencies_per_round": 1, "batch_size": 2})
    timing.measure_networks({"a": sleeping(0.001), "b": sleeping(0.002)}, CPU, once)
    assert order in ([0.001, 0.002, 0.002, 0.001, 0.001, 0.002], [0.002, 0.001, 0.001, 0.002, 0.002, 0.001])


def test_peak_memory_is_what_lives_at_once_not_the_sum() -> None:
    def step() -> None:
        for _ in range(3):
            first = torch.ones(1000, 1000)
            first.add(1)

    assert timing.peak_allocated(step, CPU) == pytest.approx(2 * 4 * 1000 * 1000, abs=1000)


def test_peak_memory_of_a_forward_is_what_a_hand_counts() -> None:
    cost = timing.measure_networks({"depthwise": models.build("depthwise")}, CPU, QUICK)["depthwise"]
    # At its widest pool1 has its input, its output and the 64-bit positions of the maxima.
    widest = 4 * 32 * 31 * 31 * (4 + 4 + 8)
    by_hand = widest + 4 * 3 * 64 * 64 * 4 + 4 * 74_760 + 8 * 5
    assert cost["peak_memory_forward_bytes"] == pytest.approx(
        by_hand, rel=0.1
    )  # a processor's kernels may want scratch
    assert cost["peak_memory_train_step_bytes"] > 2 * cost["peak_memory_forward_bytes"]


def zone(folder: Path, name: str, energy_uj: int, wraps_at: int = 1_000_000_000) -> Path:
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    return folder / "energy_uj"


def test_joules_are_summed_over_packages_and_survive_a_wrap(tmp_path: Path) -> None:
    first = zone(tmp_path / "intel-rapl:0", "package-0", 5_000_000)
    inside = zone(tmp_path / "intel-rapl:0:0", "core", 0)
    second = zone(tmp_path / "intel-rapl:1", "package-1", 999_000_000)
    around = zone(tmp_path / "intel-rapl:2", "psys", 0)
    meter = EnergyMeter(CPU, tmp_path)
    first.write_text("7500000\n")
    second.write_text("500000\n")
    inside.write_text("900000\n")
    around.write_text("900000\n")
    assert meter.available
    assert meter.lap() == pytest.approx(2.5 + 1.5)
    assert meter.lap() == 0
    first.write_text("8000000\n")
    assert meter.lap() == pytest.approx(0.5)


def test_energy_without_a_counter_is_none_never_a_guess(tmp_path: Path) -> None:
    assert not EnergyMeter(CPU, tmp_path).available
    assert EnergyMeter(CPU, tmp_path).lap() is None
    zone(tmp_path / "intel-rapl:0", "package-0", 5_000_000).unlink()
    assert EnergyMeter(CPU, tmp_path).lap() is None
    assert EnergyMeter(torch.device("mps"), tmp_path).lap() is None


def test_energy_an_image_comes_from_the_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = energy._Counter(read=lambda: int(time.monotonic() * 1e6), joules=1e-5)  # ten watts
    monkeypatch.setattr(energy, "_rapl", lambda _: [counter])
    cost = timing.measure_networks({"slow": sleeping(0.02)}, CPU, QUICK)["slow"]
    for key in ("energy_joules_per_image", "energy_joules_per_training_image"):
        assert 10 * 0.02 / 4 < cost[key] < 10 * 0.5 / 4


def test_energy_is_measured_over_one_step_at_least_however_short_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = energy._Counter(read=lambda: int(time.monotonic() * 1e6), joules=1e-5)
    monkeypatch.setattr(energy, "_rapl", lambda _: [counter])
    short = QUICK.model_copy(update={"energy_seconds": 1e-300})
    assert timing.measure_networks({"fast": sleeping(0)}, CPU, short)["fast"]["energy_joules_per_image"] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_has_memory_and_times() -> None:
    cost = timing.measure_networks({"depthwise": models.build("depthwise")}, torch.device("cuda"), QUICK)["depthwise"]
    assert cost["peak_memory_train_step_bytes"] > cost["peak_memory_forward_bytes"] > 4 * 74_760
    assert cost["latency_ms"]["median"] > 0


def test_an_impossible_setting_is_refused() -> None:
    for key, value in {"rounds": 0, "batch_size": 1, "energy_seconds": 0.0, "rouns": 1}.items():
        with pytest.raises(ValueError, match=key):
            MeasureConfig.model_validate({key: value})
