"""The architectures: one a file, found by its name."""

import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from frugalnet.errors import UserError

_SHARED = {"layers"}  # building blocks, not an architecture
_CLASSES = 7  # that a network is tried with: a number that no network has by default


def available() -> list[str]:
    """The names that `build` takes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)


def build(name: str, num_classes: int = 200) -> nn.Module:
    """The network of that name, with random weights: (N, 3, 64, 64) normalised floats → (N, num_classes) logits.

    Raises UserError if there is no such architecture.
    """
    if name not in available():
        raise UserError(f"model '{name}' is not one of: {', '.join(available())}")
    network: nn.Module = importlib.import_module(f"{__name__}.{name}").build(num_classes)
    return network


def check(name: str, sizes: Iterable[int] = (64,)) -> None:
    """Build the network of that name and try it on images of these sizes, in pixels a side.

    Raises UserError, naming the file and what was expected, if it cannot be trained and evaluated.
    """
    file = f"src/frugalnet/models/{name}.py"
    if not name.isidentifier():
        raise UserError(f"{file}: '{name}' is not a Python identifier; rename the file, to letters, digits and _")
    if name not in available():
        raise UserError(f"model '{name}' is not one of: {', '.join(available())}")
    module = _attempt(f"{file}: cannot be imported", name, lambda: importlib.import_module(f"{__name__}.{name}"))
    function = getattr(module, "build", None)
    if not callable(function) or "num_classes" not in inspect.signature(function).parameters:
        raise UserError(f"{file}: expected a function build(num_classes), found {_described(function)}")
    network = _attempt(f"{file}: build({_CLASSES}) failed", name, lambda: function(_CLASSES))
    if not isinstance(network, nn.Module):
        raise UserError(f"{file}: build has to return a torch.nn.Module, found {_described(network)}")
    network.eval()
    for size in sorted({*sizes, 64}):
        shape = (2, 3, size, size)
        with torch.inference_mode():
            what, images = f"{file}: fails on images of {size}×{size} pixels", torch.zeros(shape)
            logits = _attempt(what, name, partial(network, images))
        if not isinstance(logits, torch.Tensor) or logits.shape != (2, _CLASSES) or not logits.is_floating_point():
            raise UserError(
                f"{file}: for {_CLASSES} classes and an input of {shape}, expected logits (2, {_CLASSES}) of floats, "
                f"found {_described(logits)}; is num_classes used?"
            )


def _attempt(what: str, name: str, call: Callable[[], Any]) -> Any:
    """What `call` returns. Raises UserError, with the line in the architecture's file, for whatever that raises."""
    try:
        return call()
    except Exception as error:  # whatever a user's file raises
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(Path(__file__).with_name(f"{name}.py"))
        ]
        line = f", line {frames[-1].lineno}" if frames else ""
        message = " ".join(str(error).split())[:200]
        raise UserError(f"{what} ({type(error).__name__}: {message}{line})") from error


def _described(found: Any) -> str:
    if isinstance(found, torch.Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}"
    return f"{found.__name__}{inspect.signature(found)}" if inspect.isfunction(found) else type(found).__name__
