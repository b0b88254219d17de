import pytest
import torch
from pydantic import ValidationError

from frugalnet import models
from frugalnet.training.config import OptimConfig
from frugalnet.training.optim import build_optimiser, learning_rate

ONE_CYCLE = OptimConfig(
    optimiser="sgd",
    learning_rate=0.4,
    muon_learning_rate=0.03,
    muon_weight_decay=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="one_cycle",
    warmup=0.25,
)


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing():
    rates = [learning_rate(ONE_CYCLE, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(0.4)
    assert rates.index(max(rates)) == 25
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert 0 < rates[0] < 0.02
    assert 0 < rates[-1] < 0.01


def test_constant_is_constant():
    constant = ONE_CYCLE.model_copy(update={"schedule": "constant"})
    assert {learning_rate(constant, step, 10) for step in range(10)} == {0.4}


def test_only_weights_of_two_or_more_axes_decay():
    network = models.build("depthwise", 10)
    decayed, free = build_optimiser(network, ONE_CYCLE).param_groups
    assert decayed["weight_decay"] == 1e-4
    assert free["weight_decay"] == 0
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))


def test_adam_is_pytorchs_adam():
    weight = torch.nn.Linear(3, 2)
    twin = torch.nn.Linear(3, 2)
    twin.load_state_dict(weight.state_dict())
    config = ONE_CYCLE.model_copy(update={"optimiser": "adamw", "learning_rate": 0.001, "weight_decay": 0.0})
    ours, theirs = build_optimiser(weight, config), torch.optim.Adam(twin.parameters(), lr=0.001)
    for _ in range(3):
        for layer, optimiser in ((weight, ours), (twin, theirs)):
            optimiser.zero_grad()
            layer(torch.ones(1, 3)).square().sum().backward()
            optimiser.step()
    assert torch.allclose(weight.weight, twin.weight)


def learn(network: torch.nn.Module, optimiser: torch.optim.Optimizer, images: torch.Tensor) -> None:
    optimiser.zero_grad()
    network(images).square().sum().backward()
    optimiser.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_is_pytorchs_muon_on_the_filters_as_rows(layout):
    torch.manual_seed(0)
    convolution, matrix = torch.nn.Conv2d(4, 8, 3, bias=False), torch.nn.Linear(36, 8, bias=False)
    matrix.weight.data.copy_(convolution.weight.detach().flatten(1))
    convolution.to(memory_format=layout)
    config = ONE_CYCLE.model_copy(update={"optimiser": "muon"})
    ours = build_optimiser(torch.nn.Sequential(convolution), config)
    theirs = torch.optim.Muon(matrix.parameters(), lr=0.03, weight_decay=0.1)
    for _ in range(3):
        patch = torch.randn(16, 4, 3, 3)
        learn(convolution, ours, patch)
        learn(matrix, theirs, patch.flatten(1))
    assert torch.allclose(convolution.weight.flatten(1), matrix.weight, atol=1e-2)  # orthogonalised in bfloat16
    assert (convolution.weight.flatten(1) - matrix.weight).norm() < 0.02 * matrix.weight.norm()


def test_muon_takes_hidden_convolutions_only_and_follows_the_schedule():
    network = models.build("depthwise", 10).to(memory_format=torch.channels_last)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    optimiser = build_optimiser(network, ONE_CYCLE.model_copy(update={"optimiser": "muon"}))
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    learn(network, optimiser, torch.randn(4, 3, 64, 64))
    assert all(torch.equal(before[name], parameter) for name, parameter in network.named_parameters())
    by_sgd = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    hidden = {name for name, parameter in network.named_parameters() if id(parameter) not in by_sgd}
    assert hidden == {f"conv{number}.1.weight" for number in range(2, 6)}  # the pointwise ones
    optimiser.param_groups[0]["lr"] = 0.4
    learn(network, optimiser, torch.randn(4, 3, 64, 64))
    assert not any(torch.equal(before[name], dict(network.named_parameters())[name]) for name in hidden)


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": 0.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"nesterov": True}]
)
def test_impossible_values_and_unknown_keys_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        OptimConfig.model_validate(ONE_CYCLE.model_dump() | wrong)
