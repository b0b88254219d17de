"""ShuffleNet V2, half width (Ma et al., 2018), of torchvision, its stem fitted to 64×64 pixels, from random weights.

ImageNet's stem quarters the picture (a convolution with stride 2, then a pool): 64×64 would end as 2×2. Here nothing
pools, and the last features are 4×4.
"""

import torchvision
from torch import nn


def build(num_classes: int) -> nn.Module:
    """(N, 3, 64, 64) normalised floats → (N, num_classes) logits."""
    network = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=num_classes)
    network.maxpool = nn.Identity()
    return network
