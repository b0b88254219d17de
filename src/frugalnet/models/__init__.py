"""The architectures: one a file, found by its name. Imports no torch: names are checked by every stage.

A network is an architecture at a width, which multiplies its numbers of channels. Its name has torchvision's form:
`depthwise` at width 1, `depthwise_x0_5` at 0.5.
"""

import ast
import importlib
import keyword
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from frugalnet.errors import UserError

if TYPE_CHECKING:
    from torch import nn

MAX_WIDTH = 8.0
_SHARED = {"check", "layers"}  # not architectures
_WIDTH = re.compile(r"(?P<architecture>.+)_x(?P<width>\d+(_\d+)?)")


class Network(NamedTuple):
    """An architecture at a width."""

    architecture: str
    width: float = 1.0

    @property
    def name(self) -> str:
        """As in params.yaml, and in the names of files and stages."""
        if self.width == 1:
            return self.architecture
        return f"{self.architecture}_x{self.width:g}".replace(".", "_")


def parse(name: str) -> Network:
    """The architecture and the width that a network's name states. Whether there are such is not checked."""
    match = _WIDTH.fullmatch(name)
    if match is None or name in available():  # torchvision's names have this form, too: shufflenet_v2_x0_5
        return Network(name)
    return Network(match["architecture"], float(match["width"].replace("_", ".")))


def available() -> list[str]:
    """The architectures."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg]
    return sorted(name for name in names if _is_valid(name) and name not in _SHARED)


def build(name: str, num_classes: int = 200) -> "nn.Module":
    """The network of that name, with random weights: (N, 3, 64, 64) normalised floats → (N, num_classes) logits.

    Raises UserError if there is no such network.
    """
    find(name)
    network = parse(name)
    module = importlib.import_module(f"{__name__}.{network.architecture}")
    built: nn.Module = module.build(num_classes, *([] if network.width == 1 else [network.width]))
    return built


def find(name: str) -> Path:
    """The architecture's file. Raises UserError if there is no such network, or if the file is not Python."""
    network = parse(name)
    folder = Path(__file__).parent
    path = folder / f"{network.architecture}.py"
    if path in folder.glob("*.py") and not _is_valid(network.architecture):
        raise UserError(
            f"{path}: '{path.stem}' cannot be a network's name; rename the file: letters, digits and _, no keyword"
        )
    if network.architecture not in available():
        raise UserError(f"model '{name}' is not one of: {', '.join(available())}")
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not Python ({error})") from error
    if network.width != 1 and not _takes_width(tree):
        raise UserError(f"model '{name}': {network.architecture} has no width; expected {network.architecture}")
    if not 0 < network.width <= MAX_WIDTH:
        raise UserError(f"model '{name}': expected a width above 0, at most {MAX_WIDTH:g}; found {network.width:g}")
    if network.name != name:
        raise UserError(f"model '{name}': write {network.name}, so that each network has one name")
    return path


def _takes_width(tree: ast.Module) -> bool:
    """Whether there is a function build(num_classes, width=1.0)."""
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build")
    return any(argument.arg == "width" for function in functions for argument in function.args.args)


def _is_valid(name: str) -> bool:
    """Whether Python can import a file of that name, and files, tags and titles can hold it (`schema.Name`)."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{,63}", name) is not None and not keyword.iskeyword(name)
