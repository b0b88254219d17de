"""The architectures: one a file, found by its name. Imports no torch: names are checked by every stage."""

import ast
import importlib
import keyword
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from frugalnet.errors import UserError

if TYPE_CHECKING:
    from torch import nn

_SHARED = {"check", "layers"}  # not architectures


def available() -> list[str]:
    """The names that `build` takes."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(name for name in names if _is_valid(name) and name not in _SHARED)


def build(name: str, num_classes: int = 200) -> "nn.Module":
    """The network of that name, with random weights: (N, 3, 64, 64) normalised floats → (N, num_classes) logits.

    Raises UserError if there is no such architecture.
    """
    if name not in available():
        raise UserError(f"model '{name}' is not one of: {', '.join(available())}")
    network: nn.Module = importlib.import_module(f"{__name__}.{name}").build(num_classes)
    return network


def find(name: str) -> Path:
    """The architecture's file. Raises UserError if there is none of that name, or if it is not Python."""
    path = Path(__file__).with_name(f"{name}.py")
    if path.is_file() and not _is_valid(name):
        raise UserError(f"{path}: '{name}' cannot be a Python module's name; rename the file, to letters, digits and _")
    if name not in available():
        raise UserError(f"model '{name}' is not one of: {', '.join(available())}")
    try:
        ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not Python ({error})") from error
    return path


def _is_valid(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)
