"""ResNet-18 (He et al., 2015) of torchvision, its stem fitted to 64×64 pixels, from random weights.

ImageNet's stem quarters the picture (a 7×7 convolution with stride 2, then a pool): 64×64 would end as 2×2, of which a
3×3 convolution sees mostly padding. Here a 3×3 convolution halves it, nothing pools, and the last features are 4×4.
"""

import torchvision
from torch import nn


def build(num_classes: int) -> nn.Module:
    """(N, 3, 64, 64) normalised floats → (N, num_classes) logits."""
    network = torchvision.models.resnet18(weights=None, num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as the network's others
    network.maxpool = nn.Identity()
    return network
