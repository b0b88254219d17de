"""The paper's second network: conv2 to conv5 become depthwise-separable (section 3.2.2)."""

from collections import OrderedDict

from torch import nn

from frugalnet.models.layers import classifier, conventional, depthwise, pool


def build(num_classes: int) -> nn.Module:
    """(N, 3, 64, 64) float → (N, num_classes) logits."""
    pool5, flatten, fc = classifier(128, num_classes)
    return nn.Sequential(
        OrderedDict(
            conv1=conventional(3, 32, stride=2),
            pool1=pool(),
            conv2=depthwise(32, 64, stride=2),
            pool2=pool(),
            conv3=depthwise(64, 128, stride=2),
            conv4=depthwise(128, 128, padding=1),
            conv5=depthwise(128, 128, padding=1),
            pool5=pool5,
            flatten=flatten,
            fc=fc,
        )
    )
