"""SqueezeNet 1.1 (Iandola et al., 2016) of torchvision, fitted to 64×64 pixels and to the recipe, from random weights.

ImageNet's network halves the picture four times, as many as 64×64 can bear, but its first convolution drops the border:
the last features would be 3×3. Here it pads by one, and they are 4×4.

It is the one network here that was made without batch normalisation, and with a ReLU after the last convolution, whose
means over the picture are the logits: at the others' learning rates it never leaves chance. So that one recipe trains
them all, each convolution of its features has a batch normalisation here, in place of its bias, and the last no ReLU.
"""

import torchvision
from torch import nn


def build(num_classes: int) -> nn.Module:
    """(N, 3, 64, 64) normalised floats → (N, num_classes) logits."""
    network = torchvision.models.squeezenet1_1(weights=None, num_classes=num_classes)
    network.features[0].padding = (1, 1)
    for name, layer in list(network.features.named_modules()):
        if isinstance(layer, nn.Conv2d):
            layer.bias = None
            network.features.set_submodule(name, nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels)))
    network.classifier[2] = nn.Identity()
    return network
