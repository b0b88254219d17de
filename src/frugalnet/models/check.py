"""Whether an architecture can be trained, evaluated and used: tried with random weights, before any work."""

import importlib
import inspect
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frugalnet import models
from frugalnet.errors import UserError

_CLASSES = 7  # that a network is tried with: a number that no network has by default
_IMAGES = 3
_TOLERANCE = 1e-3  # of logits, relative to the largest: kernels for other batch sizes add in another order


def check_architecture(name: str, sizes: Iterable[int] = (64,)) -> None:
    """Build the network of that name and try it on images of these sizes, in pixels a side.

    Raises UserError, naming the file and what was expected, if it cannot be trained and evaluated, or if an image's
    logits depend on the other images of its batch.
    """
    path = models.find(name)
    architecture, width = models.parse(name)
    file = f"src/frugalnet/models/{architecture}.py"
    module = _attempt(
        f"{file}: cannot be imported", path, lambda: importlib.import_module(f"frugalnet.models.{architecture}")
    )
    function = getattr(module, "build", None)
    if not callable(function) or "num_classes" not in inspect.signature(function).parameters:
        raise UserError(f"{file}: expected a function build(num_classes), found {_described(function)}")
    arguments = [_CLASSES] if width == 1 else [_CLASSES, width]
    call = f"build({', '.join(map(str, arguments))})"
    network = _attempt(f"{file}: {call} failed", path, lambda: function(*arguments))
    if not isinstance(network, nn.Module):
        raise UserError(f"{file}: build has to return a torch.nn.Module, found {_described(network)}")
    for size in sorted(sizes):
        _check_logits(network.eval(), size, file, path)
        _check_gradients(network.train(), size, file, path)


def _images(size: int) -> Tensor:
    return torch.rand(_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0)) - 0.5


def _check_logits(network: nn.Module, size: int, file: str, path: Path) -> None:
    images = _images(size)
    what = f"{file}: fails on images of {size}×{size} pixels"
    with torch.inference_mode():
        logits = _attempt(what, path, partial(network, images))
        if not _are_logits(logits, _IMAGES):
            raise UserError(
                f"{file}: for {_CLASSES} classes and an input of {tuple(images.shape)}, expected logits "
                f"({_IMAGES}, {_CLASSES}) of floats, found {_described(logits)}; is num_classes used?"
            )
        if not logits.isfinite().all():
            raise UserError(f"{file}: gives logits that are not finite numbers, with the weights that it begins with")
        alone = torch.cat([_attempt(what, path, partial(network, image[None])) for image in images])
    largest = max(float(logits.abs().max()), 1e-6)
    if not _are_logits(alone, _IMAGES) or float((alone - logits).abs().max()) > _TOLERANCE * largest:
        raise UserError(
            f"{file}: gives an image other logits alone than among others, in evaluation mode; nothing may be computed "
            "over the batch (dimension 0), nor at random"
        )


def _check_gradients(network: nn.Module, size: int, file: str, path: Path) -> None:
    """One step in training mode, in which a network may compute something else."""
    images = _images(size)
    logits = _attempt(
        f"{file}: fails in training mode on images of {size}×{size} pixels", path, partial(network, images)
    )
    if not _are_logits(logits, _IMAGES) or not logits.requires_grad:
        raise UserError(
            f"{file}: in training mode, expected logits ({_IMAGES}, {_CLASSES}) of floats that depend on parameters, "
            f"found {_described(logits)}"
        )
    _attempt(f"{file}: has no gradients", path, logits.sum().backward)


def _are_logits(value: object, images: int) -> bool:
    return isinstance(value, Tensor) and value.shape == (images, _CLASSES) and value.is_floating_point()


def _attempt(what: str, path: Path, call: Callable[[], Any]) -> Any:
    """What `call` returns. Raises UserError, with the line in the architecture's file, for whatever that raises."""
    try:
        return call()
    except Exception as error:  # whatever a user's file raises
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f", line {frames[-1].lineno}" if frames else ""
        message = " ".join(str(error).split())[:200]
        raise UserError(f"{what} ({type(error).__name__}: {message}{line})") from error


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"{value.__name__}{inspect.signature(value)}" if inspect.isfunction(value) else type(value).__name__
