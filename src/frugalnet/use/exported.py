"""A stored network as files for other runtimes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from frugalnet import pictures
from frugalnet.errors import UserError, printable
from frugalnet.export.config import ExportConfig
from frugalnet.export.files import write_files
from frugalnet.export.formats import Format
from frugalnet.export.runtimes import Runnable, runnable_files
from frugalnet.files import atomic
from frugalnet.metrics.accuracy import predict
from frugalnet.use.pytorch import runnable_weights
from frugalnet.use.weights import Stored, load_network


def write_stored(
    stored: Stored, images: NDArray[np.uint8], config: ExportConfig, folder: Path
) -> dict[Format, int | None]:
    """Write a stored network's files for other runtimes, as `write_files` does."""
    return write_files(nn.Sequential(*load_network(stored)), images, config, folder)


def runnables(stored: Stored, folder: Path) -> dict[Format, Runnable]:
    """The weights, for PyTorch, and the network's files for other runtimes in `folder`."""
    return {"pytorch": runnable_weights(stored.path), **runnable_files(folder)}


def export_with_pictures(stored: Stored, names: Sequence[str], out: Path) -> str:
    """Write a network's files for other runtimes, with the ranges of int8 taken from pictures, into a new folder.

    Returns what was written, and on how many of the pictures each format gives a different class from PyTorch.
    Raises UserError if `out` already exists, or for a file that is not a picture.
    """
    if out.exists():  # said at once, and again when the lock is held
        raise UserError(f"{out}: already exists; remove it, or name another folder")
    images = np.stack([pictures.open_file(name).pixels for name in pictures.find_pictures([*names])])
    config = ExportConfig(calibration_images=len(images), max_loss_points=0.0)
    lines = [f"{stored.name}, compared on {len(images)} pictures:"]
    with atomic(out, is_new=True) as folder:
        folder.mkdir()
        write_stored(stored, images, config, folder)
        files = runnables(stored, folder)
        classes = {kind: predict(file.open()(images)) for kind, file in files.items()}
        for kind, file in files.items():
            others = int((classes[kind] != classes["pytorch"]).sum())
            path = file.path if kind == "pytorch" else out / file.path.name
            size = file.path.stat().st_size
            lines.append(f"  {printable(path)}: {size:,} bytes, not PyTorch's class on {others}")
    return "\n".join(lines)
