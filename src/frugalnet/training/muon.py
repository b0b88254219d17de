"""Muon for the hidden convolutions and SGD for everything else, as one optimiser.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") replaces a matrix's momentum by the
nearest orthogonal matrix. torch.optim.Muon takes matrices only; here it updates a convolution's filters, in place, as
the rows of a matrix.
"""

from typing import Any

import torch
from torch import Tensor, nn


def is_hidden(weight: Tensor) -> bool:
    """Whether these are the filters of a convolution other than depthwise ones and the first, which reads R, G, B."""
    return weight.ndim == 4 and weight.size(1) not in (1, 3)


class SgdAndMuon(torch.optim.SGD):
    """SGD of groups of parameters, and Muon, with momentum 0.95, of `weights`: (out, in, k, k) each.

    Muon's learning rate is at all times `scale` times that of the first group.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        weights: list[nn.Parameter],
        scale: float,
        weight_decay: float,
        **options: Any,
    ) -> None:
        super().__init__(groups, **options)
        self._weights = weights
        self._scale = scale
        self._matrices = [_as_matrix(weight.detach()) for weight in weights]
        self._muon = torch.optim.Muon(self._matrices, weight_decay=weight_decay)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for weight in self._weights:
            weight.grad = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step()
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            matrix.grad = None if weight.grad is None else _as_matrix(weight.grad)
        for group in self._muon.param_groups:
            group["lr"] = self._scale * self.param_groups[0]["lr"]
        self._muon.step()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        return {"sgd": super().state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict["sgd"])
        self._muon.load_state_dict(state_dict["muon"])


def _as_matrix(weight: Tensor) -> Tensor:
    """(out, in, k, k) → (out, in·k·k): the same memory, whether its layout is the default or channels_last."""
    channels_last = weight.is_contiguous(memory_format=torch.channels_last)
    return weight.permute(0, 2, 3, 1).flatten(1) if channels_last else weight.flatten(1)
