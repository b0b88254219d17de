"""What a training asks for: cores, GPUs, memory."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frugalnet.cluster.config import ClusterConfig
from frugalnet.compute_config import ComputeConfig
from frugalnet.errors import UserError
from frugalnet.processes import asked_threads


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


def describe_nodes(available: Sequence[Mapping[str, float]]) -> str:
    """What each node has, in words."""
    return "; ".join(
        f"{has.get('CPU', 0):g} cores, {has.get('GPU', 0):g} GPUs, {has.get('memory', 0) / 1e9:.1f} GB"
        for has in available
    )


def choose_resources(
    compute: ComputeConfig, config: ClusterConfig, workers: int, available: Sequence[Mapping[str, float]], items: int
) -> Resources:
    """What each training asks for; `compute.threads` or OMP_NUM_THREADS, else cores divided by trainings.

    workers: of one training. available: what each node has, as Ray counts it: CPU, GPU. items: all of the matrix, done
    or not, so that a later command for what is missing chooses the same. Raises UserError if there is no GPU and one is
    asked for.
    """
    has_gpus = compute.device != "cpu" and any(has.get("GPU", 0) for has in available)
    if compute.device == "cuda" and not has_gpus:
        raise UserError("compute.device: 'cuda' is not available: no node of the cluster has a GPU; use auto")
    gpus = config.gpus if workers == 1 else float(workers)  # several workers need a GPU each
    gpus = gpus if has_gpus else 0.0
    asked = asked_threads()
    if compute.threads and asked and compute.threads != asked:
        print(f"{compute.threads} threads (compute.threads), not the {asked} of OMP_NUM_THREADS", file=sys.stderr)
    threads = compute.threads or asked or _divide_cores(available, gpus, workers, items)
    return Resources(threads * workers, gpus, int(config.memory_gb * 1e9))


def _divide_cores(available: Sequence[Mapping[str, float]], gpus: float, workers: int, items: int) -> int:
    """The threads of one worker, where nothing says how many.

    With GPUs: the cores of a node divided by its trainings, on the node where that is least. Without: the most threads
    with which all items run at once, else one.
    """
    if gpus:
        each = [one["CPU"] * gpus / one["GPU"] / workers for one in available if one.get("GPU", 0) >= gpus]
        return max(1, int(min(each, default=1)))
    counts = [int(one.get("CPU", 0)) for one in available]
    fitting = [n for n in range(1, max(counts, default=1) + 1) if sum(has // (n * workers) for has in counts) >= items]
    return max(fitting, default=1)
