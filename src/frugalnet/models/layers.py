"""The building blocks that the paper's networks share (section 3.2).

Convolutions carry no bias: the batch normalisation that follows each has its own.
"""

from torch import Tensor, nn


def activation(channels: int) -> list[nn.Module]:
    """Batch normalisation and ReLU, as after every convolution of the study."""
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def conventional(inputs: int, outputs: int, *, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """3×3 convolution, (N, inputs, H, W) → (N, outputs, H', W')."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=padding, bias=False)
    return nn.Sequential(convolution, *activation(outputs))


def depthwise(inputs: int, outputs: int, *, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """A 3×3 filter for each channel, then 1×1 filters over all of them, with nothing in between (section 3.2.2)."""
    filters = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=padding, groups=inputs, bias=False)
    pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(filters, pointwise, *activation(outputs))


def pool() -> nn.MaxPool2d:
    """The paper's max pooling after conv1 and conv2: the published sizes leave it a stride of 1."""
    return nn.MaxPool2d(3, stride=1, padding=1)


def classifier(channels: int, num_classes: int) -> list[nn.Module]:
    """Global average pooling and one linear layer, (N, channels, H, W) → (N, num_classes)."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]


class Shortcut(nn.Module):
    """Identity shortcut around a block that keeps the shape: x + block(x) (section 3.2.3)."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)
