"""The building blocks of the paper's networks, and the plan that all three follow (section 3.2).

Convolutions carry no bias: the batch normalisation that follows each has its own.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Protocol

from torch import Tensor, nn

_relu = partial(nn.ReLU, inplace=True)


def channels(number: int, width: float) -> int:
    """A number of channels at a width: the product, rounded to the nearest multiple of 4 (halves up), at least 4."""
    return max(4, 4 * math.floor(number * width / 4 + 0.5))


def conventional(inputs: int, outputs: int, *, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """3×3 convolution, batch normalisation, ReLU: (N, inputs, H, W) → (N, outputs, H', W')."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), _relu())


def depthwise(
    inputs: int,
    outputs: int,
    *,
    stride: int = 1,
    padding: int = 0,
    activation: Callable[[], nn.Module] = _relu,
) -> nn.Sequential:
    """A 3×3 filter for each channel, then 1×1 filters over all of them, with nothing in between (section 3.2.2)."""
    filters = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=padding, groups=inputs, bias=False)
    pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(filters, pointwise, nn.BatchNorm2d(outputs), activation())


separable_hard_swish = partial(depthwise, activation=nn.Hardswish)  # the block of the networks beyond the paper's


class Shortcut(nn.Module):
    """Identity shortcut around a block that keeps the shape: x + block(x) (section 3.2.3)."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.block(x)
        return y


class Block(Protocol):
    """What makes a convolution block: `conventional` or `depthwise`."""

    def __call__(self, inputs: int, outputs: int, *, stride: int = 1, padding: int = 0) -> nn.Module: ...


def five_convolutions(block: Block, num_classes: int, width: float = 1.0, *, shortcuts: bool = False) -> nn.Sequential:
    """The paper's plan: (N, 3, 64, 64) normalised floats → (N, num_classes) logits.

    conv1 is conventional in every network. The published sizes leave the max pools a stride of 1. Shortcuts fit
    around conv4 and conv5 only, the two blocks whose input and output have the same shape.
    """

    def around(layers: nn.Module) -> nn.Module:
        return Shortcut(layers) if shortcuts else layers

    first, second, last = (channels(number, width) for number in (32, 64, 128))
    return nn.Sequential(
        OrderedDict(
            conv1=conventional(3, first, stride=2),
            pool1=nn.MaxPool2d(3, stride=1, padding=1),
            conv2=block(first, second, stride=2),
            pool2=nn.MaxPool2d(3, stride=1, padding=1),
            conv3=block(second, last, stride=2),
            conv4=around(block(last, last, padding=1)),
            conv5=around(block(last, last, padding=1)),
            pool5=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(last, num_classes),
        )
    )
