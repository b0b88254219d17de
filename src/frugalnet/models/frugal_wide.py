"""No more parameters than the paper's depthwise network, but several times its MACs, found by experiments.

See docs/frontier.md. Nine depthwise-separable convolutions instead of four, and the first two of them on feature maps
of 32×32; and the mirror image's answer counts as much as the image's. Training takes the image alone, but the MACs
recorded for it are counted in evaluation: they are twice too many.
"""

from collections import OrderedDict

from torch import Tensor, nn

from frugalnet.models.layers import Shortcut, channels, separable_hard_swish


class Mirrored(nn.Module):
    """In evaluation, the mean of the logits of an image and its mirror image: (N, 3, H, W) → (N, num_classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits if self.training else (logits + self.network(x.flip(-1))) / 2


def stage(inputs: int, outputs: int, blocks: int, *, stride: int) -> nn.Sequential:
    """A block that changes the shape, then blocks with shortcuts: (N, inputs, H, W) → (N, outputs, H', W')."""
    others = [Shortcut(separable_hard_swish(outputs, outputs, padding=1)) for _ in range(blocks - 1)]
    return nn.Sequential(separable_hard_swish(inputs, outputs, stride=stride, padding=1), *others)


def build(num_classes: int, width: float = 1.0) -> nn.Module:
    """(N, 3, 64, 64) normalised floats → (N, num_classes) logits."""
    first, second, third, last = (channels(number, width) for number in (24, 32, 64, 104))
    stem = nn.Sequential(nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(first), nn.Hardswish())
    network = nn.Sequential(
        OrderedDict(
            stem=stem,
            stage1=stage(first, second, 2, stride=1),
            stage2=stage(second, third, 4, stride=2),
            stage3=stage(third, last, 3, stride=2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(last, num_classes),
        )
    )
    return Mirrored(network)
