"""The optimiser, and learning-rate schedules as pure functions of the step."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from frugalnet.schema import Config


class OptimConfig(Config):
    """The optimiser and its learning-rate schedule."""

    optimiser: Literal["sgd", "adamw"]  # sgd has Nesterov momentum; adamw without weight decay is Adam
    learning_rate: float = Field(gt=0)  # the peak
    momentum: float = Field(ge=0, lt=1)  # Adam's first beta
    weight_decay: float = Field(ge=0)
    schedule: Literal["one_cycle", "constant"]
    warmup: float = Field(ge=0, lt=1)  # the fraction of all steps in which one_cycle rises to the peak


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
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=True)
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=True
    )
