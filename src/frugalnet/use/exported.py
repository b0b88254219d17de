"""A stored network as a folder of files for other runtimes, by PyTorch; without it, see `copied.py`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from frugalnet.export.config import ExportConfig
from frugalnet.export.files import Written, write_files
from frugalnet.export.folder import DESCRIPTION, complete, describe
from frugalnet.export.formats import Format
from frugalnet.export.result import ExportResult
from frugalnet.export.runtimes import Runnable, runnable_files
from frugalnet.files import write_json
from frugalnet.use.copied import subject_of
from frugalnet.use.pytorch import runnable_weights
from frugalnet.use.weights import Stored, load_network


def write_stored(stored: Stored, images: NDArray[np.uint8], config: ExportConfig, folder: Path) -> Written:
    """Write a stored network's files for other runtimes, as `write_files` does, and what makes the folder complete."""
    subject = subject_of(stored)
    written = write_files(nn.Sequential(*load_network(stored)), images, config, subject.metadata, folder)
    complete(folder, subject, written.tflite)
    return written


def describe_stored(stored: Stored, written: Written, accuracy: ExportResult | None, folder: Path) -> None:
    """Write export.json into a folder that `write_stored` filled. accuracy: of its formats, where it was measured."""
    description = describe(folder, subject_of(stored), written.tflite, accuracy)
    write_json(folder / DESCRIPTION, description.model_dump())


def runnables(stored: Stored, folder: Path) -> dict[Format, Runnable]:
    """The weights, for PyTorch, and the network's files for other runtimes in `folder`."""
    side = stored.entry.side
    return {"pytorch": runnable_weights(stored.path, side), **runnable_files(folder, side)}
