"""How workers read and talk: shards of an epoch, the process group, averages, agreement, and what it costs."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from frugalnet.distributed.config import LaunchConfig
from frugalnet.errors import UserError

T = TypeVar("T")


def shard(indices: Sequence[np.ndarray], rank: int, world: int) -> list[np.ndarray]:
    """A worker's part of each step's indices: every image whose position in the epoch's order is `rank` mod `world`.

    The shards of all ranks are disjoint and cover the epoch. Their sizes differ by one at most.
    """
    starts = np.cumsum([0, *map(len, indices)])[:-1]
    return [step[(rank - start) % world :: world] for step, start in zip(indices, starts, strict=True)]


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Copy all values into one (n,) float32 tensor."""
    return torch.cat([tensor.detach().reshape(-1).to(torch.float32) for tensor in tensors])


def unpack(packed: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the values of `pack` back into the tensors."""
    with torch.no_grad():
        chunks = torch.split(packed, [tensor.numel() for tensor in tensors])
        for tensor, values in zip(tensors, chunks, strict=True):
            tensor.copy_(values.view(tensor.shape))


class Lost(Exception):
    """Another worker did not answer: it hangs, was killed, or is out of reach."""


@dataclass
class Cost:
    """What an epoch's communication took, for one worker.

    payload_bytes: what it contributed. A ring all-reduce moves 2 (N-1)/N times as much over each link.
    """

    workers: int
    payload_bytes: int = 0
    communication_seconds: float = 0.0
    waiting_seconds: float = 0.0
    all_reduces: int = 0

    def add(self, payload_bytes: int, seconds: float) -> None:
        """Count one all-reduce."""
        self.payload_bytes += payload_bytes
        self.communication_seconds += seconds
        self.all_reduces += 1


class Peers:
    """This process as one of a run's workers: its rank, and what it exchanges with the others."""

    def __init__(self, config: LaunchConfig, backend: str) -> None:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            raise UserError(
                "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun: otherwise restarted workers would get the "
                "addresses of those that failed"
            )
        self.timeout = timedelta(minutes=config.timeout_minutes)
        rendezvous = dist.rendezvous("env://", timeout=self.timeout)  # type: ignore[attr-defined]
        self.store, self.rank, self.world = next(rendezvous)
        self.first_on_host = os.environ["LOCAL_RANK"] == "0"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if backend == "nccl" else "gloo",
            store=self.store,
            rank=self.rank,
            world_size=self.world,
            timeout=self.timeout,
        )
        self.device = torch.device("cuda" if backend == "nccl" else "cpu")  # of the tensors to average
        self.heartbeats = 0
        self.heartbeat_at = time.monotonic()
        self.costs: list[dict[str, float]] = []  # one per epoch
        self.cost = Cost(self.world)  # since the last epoch

    def end_costs(self) -> None:
        """End the epoch's costs and begin the next epoch's."""
        self.costs.append(asdict(self.cost))
        self.cost = Cost(self.world)

    def heartbeat(self) -> None:
        """Record this worker's progress in the store. If an exchange fails, the others wait for whoever is behind."""
        self.heartbeats += 1
        self.heartbeat_at = time.monotonic()
        self.store.set(f"heartbeats/{self.rank}", str(self.heartbeats))

    @contextmanager
    def expecting_answers(self, ranks: Sequence[int] = ()) -> Iterator[None]:
        """Raise Lost, with the ranks of the silent workers, if an exchange in this block fails.

        ranks: of the workers that must answer; by default all, which then give equally many heartbeats.
        """
        try:
            self.heartbeat()
            yield
        except RuntimeError as error:
            waited = time.monotonic() - self.heartbeat_at
            silent = ranks or within(10, self._behind, [0])  # worker 0 holds the store, which hangs if it does
            if not silent or isinstance(error, torch.OutOfMemoryError):  # not a failed exchange
                raise
            raise self.lost(silent, waited) from error

    def lost(self, silent: Sequence[int], seconds: float) -> Lost:
        """Print which workers are silent, and return that as an exception."""
        ranks = ", ".join(map(str, silent))
        error = Lost(f"worker {self.rank}: no answer from worker {ranks} of {self.world} for {seconds:.0f} s")
        print(error, file=sys.stderr, flush=True)
        return error

    def _behind(self) -> list[int]:
        keys = [f"heartbeats/{rank}" for rank in range(self.world)]
        counts = [int(self.store.get(key)) if self.store.check([key]) else 0 for key in keys]
        return [rank for rank, count in enumerate(counts) if count < self.heartbeats]

    def all_reduce_max(self, code: int) -> int:
        """Wait for all workers; the largest of their codes."""
        started = time.monotonic()
        largest = torch.tensor(code)
        with self.expecting_answers():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        self.cost.waiting_seconds += time.monotonic() - started
        self.cost.all_reduces += 1
        return int(largest)

    def gather(self, value: T) -> list[T]:
        """The values of all workers, in the order of their ranks."""
        values: list[Any] = [None] * self.world
        with self.expecting_answers():
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T | None, rank: int) -> T:
        """The value of worker `rank`, on all workers."""
        box = [value]
        with self.expecting_answers():
            dist.broadcast_object_list(box, src=rank)
        return box[0]  # type: ignore[return-value]

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace the tensors by their weighted averages over all workers. The weights add up to one.

        The order of addition depends on the number of workers alone, so the same inputs give the same bits.
        """
        if not tensors:  # a network without batch normalisation has no statistics
            return
        packed = pack(tensors).to(self.device)
        if self.world > 1:
            started = time.monotonic()
            packed *= weight
            with self.expecting_answers():
                dist.all_reduce(packed)
            self.cost.add(packed.nbytes, time.monotonic() - started)
        unpack(packed, tensors)

    def check_same_run(self, fingerprint: str, refusal: str | None) -> None:
        """Raise UserError on all workers if one has a refusal, or another fingerprint than worker 0."""
        answers = self.gather((fingerprint, refusal))
        for reason in (reason for _, reason in answers if reason):
            raise UserError(reason)
        for rank, (other, _) in enumerate(answers):
            if other != answers[0][0]:
                raise UserError(
                    f"worker {rank} would train another run than worker 0 (fingerprints {other[:16]}, "
                    f"{answers[0][0][:16]}): code, params.yaml, data and kind of machine must be the same on all hosts"
                )


def within(seconds: float, ask: Callable[[], T], otherwise: T) -> T:
    """What `ask` returns, or `otherwise` if it fails or takes longer: reading a store has no timeout of its own."""
    answers: list[T] = []

    def note() -> None:
        with suppress(RuntimeError):  # the connection is closed
            answers.append(ask())

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else otherwise
