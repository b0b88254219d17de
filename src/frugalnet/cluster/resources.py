"""What a training asks for: cores, GPUs, memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resources:
    """What each item asks Ray for."""

    cores: int
    gpus: float
    memory_bytes: int

    def __str__(self) -> str:
        parts = [f"{self.cores} core{'s' if self.cores > 1 else ''}"]
        parts += [f"{self.gpus:g} GPU{'s' if self.gpus > 1 else ''}"] if self.gpus else []
        parts += [f"{self.memory_bytes / 1e9:g} GB"] if self.memory_bytes else []
        return ", ".join(parts)

    def options(self) -> dict[str, Any]:
        """As Ray's tasks take them."""
        return {"num_cpus": self.cores, "num_gpus": self.gpus, "memory": self.memory_bytes or None, "max_retries": 0}


def choose_threads(available: Sequence[Mapping[str, float]], gpus: float, workers: int, items: int) -> int:
    """The threads of one training: cores divided by trainings.

    available: what each node has, as Ray counts it: CPU, GPU. gpus: of one training; 0: on CPUs. workers: of one
    training. items: all of the matrix, done or not, so that a later command for what is missing chooses the same.

    With GPUs: the cores of a node divided by its trainings, on the node where that is least. Without: the most threads
    with which all items run at once, else one.
    """
    if gpus:
        each = [one["CPU"] * gpus / one["GPU"] / workers for one in available if one.get("GPU", 0) >= gpus]
        return max(1, int(min(each, default=1)))
    counts = [int(one.get("CPU", 0)) for one in available]
    fitting = [n for n in range(1, max(counts, default=1) + 1) if sum(has // (n * workers) for has in counts) >= items]
    return max(fitting, default=1)
