"""Variants of the training step: python -m benchmarks.variants [--networks residual ...].

Each variant is a process that trains on one synthetic batch. In each round, every process in turn runs a few steps
while the others wait. Printed per variant: its speed relative to the baseline in the same round, page faults per step,
and whether 5 steps from the same weights give the baseline's bits (else the relative difference).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from benchmarks.data import BATCH_SIZE, load_params
from frugalnet.processes import cores
from frugalnet.training.batches import Normaliser
from frugalnet.training.trainer import Trainer

_KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26)}
_HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_PASSIVE = {"OMP_WAIT_POLICY": "passive"}


class SeparablePool(nn.Module):
    """A 3×3 max pool with stride 1, as a 3×1 and a 1×3 pool."""

    def forward(self, x: Tensor) -> Tensor:
        columns = max_pool2d(x, (3, 1), stride=1, padding=(1, 0))
        return max_pool2d(columns, (1, 3), stride=1, padding=(0, 1))


def _separable_pools(trainer: Trainer) -> None:
    for name in ("pool1", "pool2"):
        setattr(trainer.network, name, SeparablePool())


def _sgd(**how: bool) -> Callable[[Trainer], None]:
    def change(trainer: Trainer) -> None:
        groups = [{key: group[key] for key in ("params", "weight_decay")} for group in trainer.optimiser.param_groups]
        trainer.optimiser = torch.optim.SGD(groups, lr=0.1, momentum=trainer.config.momentum, nesterov=True, **how)

    return change


def _keep_gradients(trainer: Trainer) -> None:
    clear = trainer.optimiser.zero_grad
    trainer.optimiser.zero_grad = lambda set_to_none=True: clear(set_to_none=False)  # type: ignore[method-assign]


def _compile(trainer: Trainer) -> None:
    trainer.network.compile()


def _bfloat16(trainer: Trainer) -> None:
    forward = trainer.network.forward

    def autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = forward(x)
        return logits.float()

    trainer.network.forward = autocast


def _deterministic(trainer: Trainer) -> None:
    torch.use_deterministic_algorithms(True)


def _unchanged(trainer: Trainer) -> None:
    pass


def _compile_separable(trainer: Trainer) -> None:
    _separable_pools(trainer)
    _compile(trainer)


VARIANTS: dict[str, tuple[dict[str, str], Callable[[Trainer], None]]] = {
    "baseline": ({}, _unchanged),
    "malloc hugetlb=1": (_HUGE, _unchanged),
    "malloc keeps memory (in use)": (_KEEP, _unchanged),
    "malloc keeps, hugetlb=1": (_KEEP | _HUGE, _unchanged),
    "OMP passive": (_PASSIVE, _unchanged),
    "separable pools": ({}, _separable_pools),
    "SGD foreach": ({}, _sgd(foreach=True)),
    "SGD for-loop": ({}, _sgd(foreach=False)),
    "set_to_none=False": ({}, _keep_gradients),
    "deterministic algorithms": ({}, _deterministic),
    "bfloat16 autocast": ({}, _bfloat16),
    "compile": ({}, _compile),
    "compile, separable pools": ({}, _compile_separable),
    "compile, keeps, hugetlb=1": (_KEEP | _HUGE, _compile),
    "separable, keeps, hugetlb=1": (_KEEP | _HUGE, _separable_pools),
}


def serve(variant: str, network: str) -> None:
    """Print the weights after 5 steps; then, for each step count on stdin, seconds and page faults."""
    params, device = load_params(), torch.device("cpu")
    torch.set_num_threads(cores())
    trainer = Trainer(
        network, 0, 200, 100_000, Normaliser([122.5, 114.2, 101.4], [70.5, 68.6, 71.9], device), params.train
    )
    VARIANTS[variant][1](trainer)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (BATCH_SIZE, 64, 64, 3), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, 200, BATCH_SIZE))

    def train(steps: int) -> None:
        trainer.step = 0
        for _ in range(steps):
            trainer.train_batch(images, labels)

    train(5)
    weights = torch.cat([value.detach().flatten() for value in trainer.network.parameters()])
    print(json.dumps(weights.tolist()), flush=True)
    for line in sys.stdin:
        train(1)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        started = time.monotonic()
        train(int(line))
        seconds = time.monotonic() - started
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        print(json.dumps({"seconds": seconds, "faults": faults}), flush=True)


class Server:
    def __init__(self, variant: str, network: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.variants", "--serve", variant, network],
            env=os.environ | VARIANTS[variant][0],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.weights = np.array(self._answer())  # waits, so that one process starts at a time
        self.rates: list[float] = []
        self.faults: list[float] = []

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, steps: int) -> None:
        assert self.process.stdin is not None
        print(steps, file=self.process.stdin, flush=True)
        answer = self._answer()
        self.rates.append(BATCH_SIZE * steps / answer["seconds"])
        self.faults.append(answer["faults"] / steps)


def compare(network: str, names: list[str], rounds: int, steps: int) -> None:
    servers = {name: Server(name, network) for name in names}
    for number in range(rounds):
        for name in names if number % 2 else reversed(names):
            servers[name].ask(steps)
    baseline = servers[names[0]]
    print(f"\n{network:28}{'images/s':>9}{'ratio (lowest–highest)':>26}{'faults/step':>13}  weights after 5 steps")
    for name, server in servers.items():
        ratios = [rate / other for rate, other in zip(server.rates, baseline.rates, strict=True)]
        difference = np.linalg.norm(server.weights - baseline.weights) / np.linalg.norm(baseline.weights)
        print(
            f"{name:28}{median(server.rates):9,.0f}"
            f"{f'{median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})':>26}{median(server.faults):13,.0f}"
            f"  {'the same bits' if difference == 0 else f'relative difference {difference:.0e}'}",
            flush=True,
        )
        assert server.process.stdin is not None
        server.process.stdin.close()
        server.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["residual", "depthwise", "alexnet"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), help="baseline first")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=6, help="per variant and round")
    parser.add_argument("--serve", nargs=2, metavar=("VARIANT", "NETWORK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    for network in arguments.networks:
        compare(network, arguments.variants, arguments.rounds, arguments.steps)


if __name__ == "__main__":
    main()
