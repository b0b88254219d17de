"""The paper's third network: the depthwise one with identity shortcuts around conv4 and conv5 (section 3.2.3).

These are the only two blocks whose input and output have the same shape.
"""

from torch import nn

from frugalnet.models import depthwise
from frugalnet.models.layers import Shortcut


def build(num_classes: int) -> nn.Module:
    """(N, 3, 64, 64) float → (N, num_classes) logits."""
    network = depthwise.build(num_classes)
    network.conv4 = Shortcut(network.conv4)
    network.conv5 = Shortcut(network.conv5)
    return network
