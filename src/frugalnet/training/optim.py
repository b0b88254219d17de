"""The optimiser, and learning-rate schedules as pure functions of the step."""

from typing import Any

import torch
from torch import nn

from frugalnet.training.config import OptimConfig
from frugalnet.training.muon import SgdAndMuon, is_hidden


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """The learning rate of step `step` (from 0): constant, or rising linearly to the peak and falling linearly to zero.

    The one-cycle schedule is by Smith and Topin (2018, "Super-convergence"), here with straight lines.
    """
    if config.schedule == "constant":
        return config.learning_rate
    peak_step = config.warmup * total_steps
    rising = (step + 1) / (peak_step + 1)
    falling = (total_steps - step) / max(total_steps - peak_step, 1)
    return config.learning_rate * min(rising, falling, 1.0)


def build_optimiser(network: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of the network's parameters. Weight decay applies to tensors of two or more axes only: decaying
    biases and batch-norm scales does not regularise."""
    hidden = [p for p in network.parameters() if is_hidden(p)] if config.optimiser == "muon" else []
    parameters = [p for p in network.parameters() if not (config.optimiser == "muon" and is_hidden(p))]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = config.learning_rate
    momentum = config.momentum
    if config.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(momentum, 0.999), fused=True)
    sgd: dict[str, Any] = {"lr": rate, "momentum": momentum, "nesterov": momentum > 0, "fused": True}
    if not hidden:
        return torch.optim.SGD(groups, **sgd)
    return SgdAndMuon(groups, hidden, config.muon_learning_rate / rate, config.muon_weight_decay, **sgd)
