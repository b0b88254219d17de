"""The paper's second network: conv2 to conv5 become depthwise-separable (section 3.2.2)."""

from torch import nn

from frugalnet.models.layers import depthwise, five_convolutions


def build(num_classes: int, width: float = 1.0) -> nn.Module:
    """(N, 3, 64, 64) normalised floats → (N, num_classes) logits."""
    return five_convolutions(depthwise, num_classes, width)
