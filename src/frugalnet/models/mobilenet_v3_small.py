"""MobileNet V3, small (Howard et al., 2019), of torchvision, its stem fitted to 64×64 pixels, from random weights.

ImageNet's network halves the picture five times: 64×64 would end as 2×2. Here the first convolution keeps its size
(stride 1 instead of 2), and the last features are 4×4. The width is torchvision's `width_mult`, which rounds channels
to multiples of 8.
"""

import torchvision
from torch import nn


def build(num_classes: int, width: float = 1.0) -> nn.Module:
    """(N, 3, 64, 64) normalised floats → (N, num_classes) logits."""
    network = torchvision.models.mobilenet_v3_small(weights=None, num_classes=num_classes, width_mult=width)
    network.features[0][0].stride = (1, 1)
    return network
