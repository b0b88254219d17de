"""The architectures: one a file, found by its name."""

import importlib
import pkgutil

from torch import nn

from frugalnet.errors import UserError

_SHARED = {"layers"}  # building blocks, not an architecture


def available() -> list[str]:
    """The names that `build` takes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)


def check(name: str) -> None:
    """Raises UserError, which lists those there are, if there is no architecture of that name."""
    if name not in available():
        raise UserError(f"model '{name}' is not one of: {', '.join(available())}")


def build(name: str, num_classes: int = 200) -> nn.Module:
    """The network of that name, with random weights: (N, 3, 64, 64) normalised floats → (N, num_classes) logits.

    Raises UserError if there is no such architecture.
    """
    check(name)
    network: nn.Module = importlib.import_module(f"{__name__}.{name}").build(num_classes)
    return network
