"""A network within the depthwise network's parameters and MACs, found by experiments: see docs/frontier.md.

The paper's plan with these changes: conv1 has half the filters and passes on both signs of their outputs; three blocks
with shortcuts follow conv3 instead of two, with 108 channels instead of 128; the activation is hard swish.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from frugalnet.models.layers import Shortcut, channels, separable_hard_swish


class BothSigns(nn.Module):
    """Concatenated ReLU: (N, C, H, W) → (N, 2C, H, W), the positive and the negative parts.

    First layers learn pairs of opposite filters (Shang et al. 2016, "Understanding and improving convolutional neural
    networks via concatenated rectified linear units"), so half of them are enough.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(torch.cat([x, -x], 1))


def build(num_classes: int, width: float = 1.0) -> nn.Module:
    """(N, 3, 64, 64) normalised floats → (N, num_classes) logits."""
    signed, second, last = (channels(number, width) for number in (16, 64, 108))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(nn.Conv2d(3, signed, 3, stride=2, bias=False), nn.BatchNorm2d(signed), BothSigns()),
            pool1=nn.MaxPool2d(3, stride=1, padding=1),
            conv2=separable_hard_swish(2 * signed, second, stride=2),
            pool2=nn.MaxPool2d(3, stride=1, padding=1),
            conv3=separable_hard_swish(second, last, stride=2),
            conv4=Shortcut(separable_hard_swish(last, last, padding=1)),
            conv5=Shortcut(separable_hard_swish(last, last, padding=1)),
            conv6=Shortcut(separable_hard_swish(last, last, padding=1)),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(last, num_classes),
        )
    )
