"""The depthwise network, its answers averaged over ten views of the image: more MACs, no more parameters.

See docs/frontier.md. Training takes one view, but the MACs recorded for it are counted in evaluation: they are ten
times too many.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from frugalnet.models.layers import depthwise, five_convolutions

SHIFT = 3  # pixels
# Top and left of the views in the padded image: the image itself, then four shifted ones.
CORNERS = ((SHIFT, SHIFT), (0, 0), (0, 2 * SHIFT), (2 * SHIFT, 0), (2 * SHIFT, 2 * SHIFT))


class TenViews(nn.Module):
    """In evaluation, the mean of the logits of ten views: (N, 3, H, W) → (N, num_classes). In training, one view.

    As AlexNet was evaluated (Krizhevsky et al. 2012, section 4.1), these are five positions and their mirror images,
    but shifted instead of cropped, with reflected borders, as in augmentation.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            one: Tensor = self.network(x)
            return one
        height, width = x.shape[-2:]
        padded = pad(x, 4 * (SHIFT,), mode="reflect")
        shifted = [padded[..., top : top + height, left : left + width] for top, left in CORNERS]
        return torch.stack([self.network(view) for one in shifted for view in (one, one.flip(-1))]).mean(0)


def build(num_classes: int) -> nn.Module:
    """(N, 3, 64, 64) normalised floats → (N, num_classes) logits."""
    return TenViews(five_convolutions(depthwise, num_classes))
