"""The paper's first network, inspired by AlexNet: five conventional convolutions (section 3.2.1)."""

from torch import nn

from frugalnet.models.layers import conventional, five_convolutions


def build(num_classes: int, width: float = 1.0) -> nn.Module:
    """(N, 3, 64, 64) normalised floats → (N, num_classes) logits."""
    return five_convolutions(conventional, num_classes, width)
