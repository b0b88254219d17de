"""The most accurate network found within the depthwise network's parameters and MACs: see docs/frontier.md.

Nine depthwise-separable blocks with shortcuts and squeeze-and-excitation, deeper and narrower than the paper's plan.
"""

from collections import OrderedDict

from torch import Tensor, nn

# Channels, stride of the first block, blocks, and squeezed channels of each stage.
STAGES = ((36, 2, 3, 4), (68, 2, 4, 8), (104, 2, 2, 8))


class SqueezeExcitation(nn.Module):
    """Scales each channel by a factor from all channels' means (Hu, Shen and Sun, 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.factors = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = x * self.factors(x)
        return scaled


class Block(nn.Module):
    """Depthwise 3×3, squeeze-and-excitation, pointwise, batch norm, hard swish; a shortcut if the shape is kept."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeezed: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False),
            SqueezeExcitation(inputs, squeezed),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.Hardswish(),
        )
        self.keeps_shape = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.keeps_shape else y


def build(num_classes: int) -> nn.Module:
    """(N, 3, 64, 64) normalised floats → (N, num_classes) logits."""
    stem = nn.Sequential(nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.Hardswish())
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    channels = 24
    for number, (outputs, stride, count, squeezed) in enumerate(STAGES, start=1):
        blocks = [Block(channels, outputs, stride, squeezed)]
        blocks += [Block(outputs, outputs, 1, squeezed) for _ in range(count - 1)]
        layers[f"stage{number}"] = nn.Sequential(*blocks)
        channels = outputs
    layers |= OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, num_classes))
    return nn.Sequential(layers)
