"""A stored network in PyTorch, run as its files for other runtimes are: on one thread of the CPU.

python -m frugalnet.use.pytorch models/depthwise-0.safetensors 64 prints the memory of a process that runs it.
"""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from frugalnet.errors import needing_study
from frugalnet.export.runtimes import Run, Runnable, print_memory

if TYPE_CHECKING:
    from frugalnet.use.weights import Stored


def runnable_weights(path: Path, side: int) -> Runnable:
    """The weights of a network in a file that `weights.of_file` knows; it takes pictures of that side."""
    command = [sys.executable, "-m", "frugalnet.use.pytorch", str(path), str(side)]
    return Runnable(path, partial(open_weights, path), command, side)


def open_weights(path: Path) -> Run:
    """The network in a file that `weights.of_file` knows. Raises UserError if nothing describes the file."""
    from frugalnet.use.weights import of_file  # here: the memory of a process is measured from before these imports

    return open_network(of_file(path))


def open_network(stored: "Stored") -> Run:
    """A stored network, (N, side, side, 3) uint8 RGB → (N, classes) float32. Raises what `load_network` raises."""
    with needing_study(f"{stored.path}: running these weights"):
        import torch

        from frugalnet.training.inference import infer
        from frugalnet.use.weights import load_network

    torch.set_num_threads(1)
    normalise, network = load_network(stored)
    return partial(infer, network, normalise=normalise)


if __name__ == "__main__":
    print_memory(partial(open_weights, Path(sys.argv[1])), int(sys.argv[2]))
