"""Networks for tests of the server that need no weights: what they say depends on the picture's colours alone."""

from collections.abc import Sequence
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from frugalnet.export.runtimes import Run
from frugalnet.use.runtime import Network
from frugalnet.use.weights import Classes

NAMES = ("red", "green", "blue")


def network(name: str = "colours-0", names: Sequence[str] = NAMES, run: Run | None = None, side: int = 64) -> Network:
    """A network that names a picture's strongest colour, by default."""
    classes = Classes(ids=[f"c{number}" for number in range(len(names))], names=list(names))
    return Network(name, classes, side, Path(f"{name}.onnx"), run or colours)


def colours(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pixels.mean(axis=(1, 2)).astype(np.float32) / 64


class Gate:
    """A network's run that waits until it is opened. entered: whether a call has come."""

    def __init__(self) -> None:
        self.entered = Event()
        self.opened = Event()

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.entered.set()
        assert self.opened.wait(60)
        return colours(pixels)


def png(colour: tuple[int, int, int] = (250, 10, 10), side: int = 64) -> bytes:
    from frugalnet.pictures import encode_png

    return encode_png(np.full((side, side, 3), colour, np.uint8))
