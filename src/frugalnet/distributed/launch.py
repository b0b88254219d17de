"""Several workers train one network: how they are started and found, what each reads, how they talk, and how they end.

Started and watched by torchrun's elastic agent; what they say goes through torch.distributed.
"""

import copy
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from pydantic import Field, model_validator
from torch import Tensor

from frugalnet.compute import ComputeConfig
from frugalnet.errors import UserError
from frugalnet.files import sha256
from frugalnet.processes import cores
from frugalnet.schema import Config
from frugalnet.training.batches import steps_per_epoch
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.trainer import TrainConfig

T = TypeVar("T")
_SOURCES = ("launch.py", "synchronous.py", "replicas.py")


class Single(Config):
    """One process."""

    kind: Literal["none"]


class _Workers(Config):
    workers: int = Field(ge=1)
    batch: Literal["divided", "whole"]  # a worker's batch is batch_size / workers, or batch_size
    learning_rate_scale: float = Field(gt=0)
    backend: Literal["auto", "gloo", "nccl"]
    timeout_minutes: float = Field(gt=0)
    restarts: int = Field(ge=0)

    def recipe(self, train: TrainConfig) -> TrainConfig:
        """The recipe that the workers follow together: its batch is what they all read in one step. One worker follows
        the recipe as it is: it is a single process."""
        together = train.batch_size * (self.workers if self.batch == "whole" else 1)
        rate = train.learning_rate * (self.learning_rate_scale if self.workers > 1 else 1)
        return train.model_copy(update={"batch_size": together, "learning_rate": rate})


class Ddp(_Workers):
    """Gradients are averaged in every step: DistributedDataParallel."""

    kind: Literal["ddp"]
    sync_batch_norm: bool


class GlobalNet(_Workers):
    """Parameters are averaged at the end of every `period` epochs: the paper's section 5.2."""

    kind: Literal["global_net"]
    period: int = Field(ge=1)
    warmup: float = Field(ge=0, le=1)  # the fraction of all epochs that are cut by exchanges
    warmup_exchanges: int = Field(ge=1)  # in each of them
    outer_momentum: float = Field(ge=0, lt=1)
    exchange: Literal["synchronous", "asynchronous"]
    momentum: Literal["averaged", "kept", "reset"]
    batch_norm: Literal["measured", "averaged"]  # the global network's statistics
    staleness: int = Field(ge=1)

    def warms_up(self, epoch: int, epochs: int) -> bool:
        """Whether epoch `epoch` (from 0) is cut by exchanges."""
        return epoch < round(self.warmup * epochs, 9)  # 0.07 × 100 is a little more than 7

    @model_validator(mode="after")
    def _can_be_had(self) -> "GlobalNet":
        if self.exchange == "asynchronous" and self.staleness < self.workers - 1:
            raise ValueError(
                f"a staleness bound of {self.staleness} throws away the work of {self.workers} equally fast workers; "
                f"it takes {self.workers - 1} or more"
            )
        return self


Workers = Ddp | GlobalNet
DistributedConfig = Annotated[Single | Ddp | GlobalNet, Field(discriminator="kind")]


def identity(config: Workers) -> dict[str, Any]:
    """What of all this decides a run's weights: parameters and code."""
    code = {source: sha256(Path(__file__).parent / source) for source in _SOURCES}
    return config.model_dump(exclude={"backend", "timeout_minutes", "restarts"}) | {"source_sha256": code}


def check(config: Workers, train: TrainConfig, device: torch.device, n_train: int) -> str:
    """The backend to use. Raises UserError if this machine or the data can't feed the workers."""
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"distributed: workers compute on the CPU or on CUDA, not on {device.type}: compute.device=cpu")
    backend = {"cpu": "gloo", "cuda": "nccl"}[device.type] if config.backend == "auto" else config.backend
    here = dist.is_available() and {"gloo": dist.is_gloo_available, "nccl": dist.is_nccl_available}[backend]()
    if not here or (backend == "nccl" and device.type != "cuda"):
        raise UserError(f"distributed.backend: '{backend}' is not there for {device.type}; say auto")
    local = min(config.workers, int(os.environ.get("LOCAL_WORLD_SIZE", config.workers)))
    if device.type == "cuda" and local > torch.cuda.device_count():
        raise UserError(f"distributed.workers: {local} on one machine, which has {torch.cuda.device_count()} GPUs")
    smallest = n_train // steps_per_epoch(n_train, config.recipe(train).batch_size)
    if smallest < 2 * config.workers:
        raise UserError(
            f"distributed.workers: {config.workers} are more than batches of {smallest} images can feed: each needs "
            f"2 or more of every batch; {smallest // 2} workers at most, or a larger train.batch_size"
        )
    return backend


def share(turns: Sequence[np.ndarray], rank: int, world: int) -> list[np.ndarray]:
    """A worker's part of each of an epoch's turns: every image whose place in the epoch's order is `rank` mod `world`.

    The shares of all ranks are disjoint and cover the epoch; sizes differ by one at most.
    """
    starts = np.cumsum([0, *map(len, turns)])[:-1]
    return [turn[(rank - start) % world :: world] for turn, start in zip(turns, starts, strict=True)]


def launched() -> bool:
    """Whether this process is a worker, started by torchrun or `launch`."""
    return dist.is_torchelastic_launched()


def launch(config: Workers, work: Callable[..., str | None], *arguments: Any) -> None:
    """Call work(*arguments) in each of the workers, all on this machine, under torchrun's elastic agent.

    `work` returns what a person must mend, or None. Raises UserError with that, or when a worker fails once more than
    it may be started again.
    """
    # Only distributed runs pay for these imports.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # A store for each start: one that outlives them leads new workers to the addresses of those that failed.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory(prefix="frugalnet-") as logs:
        agent = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=config.workers,
            run_id=uuid.uuid4().hex,  # with a free port, two runs on one machine don't meet
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=config.restarts,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            shutdown_timeout=8,
        )
        try:
            outcomes = elastic_launch(agent, work)(*arguments)
        except SignalException as stop:
            sys.exit(128 + stop.sigval)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            said: Any = failure.message  # a signal's is a sentence, an exception's a dictionary with its stack
            reason = str(said["message"] if isinstance(said, dict) else said).strip().splitlines()[-1]
            raise UserError(f"worker {rank} failed once more than distributed.restarts allows: {reason}") from None
    for outcome in filter(None, outcomes.values()):
        raise UserError(outcome)


class Lost(Exception):
    """Another worker did not answer: hung, killed, or out of reach."""


def within(seconds: float, ask: Callable[[], T], otherwise: T) -> T:
    """What `ask` returns, or `otherwise` if it fails or takes longer: a store has no time limit of its own."""
    answers: list[T] = []

    def note() -> None:
        with suppress(RuntimeError):  # its connection is gone
            answers.append(ask())

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else otherwise


class Peers:
    """This process among the workers of a run, and what talking to them has cost since the last epoch."""

    def __init__(self, config: Workers, backend: str) -> None:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            raise UserError(
                "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 must be set for torchrun: its shared store would lead "
                "workers that are started again to those that failed"
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
        self.device = torch.device("cuda" if backend == "nccl" else "cpu")  # of what is averaged
        self.said = 0
        self.costs: list[dict[str, float]] = []  # one an epoch
        self.begin_costs()

    def begin_costs(self) -> None:
        self.bytes, self.seconds, self.waiting, self.all_reduces = 0, 0.0, 0.0, 0

    def end_costs(self) -> None:
        """Book what was given to the others since the last time, in bytes and seconds."""
        cost = {"bytes_given": self.bytes, "communication_seconds": self.seconds, "waiting_seconds": self.waiting}
        self.costs.append({"workers": self.world, **cost, "all_reduces": self.all_reduces})
        self.begin_costs()

    def book(self, size: int, seconds: float) -> None:
        """Book an all-reduce of so many bytes."""
        self.bytes += size
        self.seconds += seconds
        self.all_reduces += 1

    def say(self) -> None:
        """Let the others know how far this worker is: whoever is behind is whom they wait for."""
        self.said += 1
        self.store.set(f"said/{self.rank}", str(self.said))

    @contextmanager
    def expecting_answers(self, of: Sequence[int] = ()) -> Iterator[None]:
        """Name those that keep silent if talking to the workers `of` fails; or to all, who all say the same things."""
        started = time.monotonic()
        if not of:
            self.say()
        try:
            yield
        except RuntimeError as error:
            waited = time.monotonic() - started
            behind = of or within(10, self._behind, [0])  # worker 0 keeps the store, and does not answer if it hangs
            if not behind or isinstance(error, torch.OutOfMemoryError):  # something else is wrong
                raise
            raise self.lost(behind, waited) from error

    def lost(self, silent: Sequence[int], seconds: float) -> Lost:
        """What is said, at once, and raised where workers did not answer."""
        named = ", ".join(map(str, silent))
        error = Lost(f"worker {self.rank}: no word from worker {named} of {self.world} in {seconds:.0f} s")
        print(error, file=sys.stderr, flush=True)
        return error

    def _behind(self) -> list[int]:
        keys = [f"said/{rank}" for rank in range(self.world)]
        said = [int(self.store.get(key)) if self.store.check([key]) else 0 for key in keys]
        return [rank for rank, count in enumerate(said) if count < self.said]

    def meet(self, code: int) -> int:
        """Wait for all and agree: the largest of their codes."""
        started = time.monotonic()
        agreed = torch.tensor(code)
        with self.expecting_answers():
            dist.all_reduce(agreed, dist.ReduceOp.MAX)
        self.waiting += time.monotonic() - started
        self.all_reduces += 1
        return int(agreed)

    def gather(self, mine: T) -> list[T]:
        """Everyone's, in the order of ranks."""
        everyone: list[Any] = [None] * self.world
        with self.expecting_answers():
            dist.all_gather_object(everyone, mine)
        return everyone

    def hear(self, value: T | None, rank: int) -> T:
        """What worker `rank` has, for all."""
        box = [value]
        with self.expecting_answers():
            dist.broadcast_object_list(box, src=rank)
        return box[0]  # type: ignore[return-value]

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace the tensors by their averages over all workers; the weights add up to one.

        A ring or a tree adds in an order that the number of workers decides: the same inputs give the same bits.
        """
        if not tensors:  # a network without batch normalisation has no statistics
            return
        flat = flatten(tensors).to(self.device)
        if self.world > 1:
            started = time.monotonic()
            flat *= weight
            with self.expecting_answers():
                dist.all_reduce(flat)
            self.book(flat.nbytes, time.monotonic() - started)
        unflatten(flat, tensors)

    def agree(self, fingerprint: str, refusal: str | None) -> None:
        """Raise UserError on all workers if one has a reason to refuse, or another run than the others."""
        heard = self.gather((fingerprint, refusal))
        for reason in (reason for _, reason in heard if reason):
            raise UserError(reason)
        for rank, (other, _) in enumerate(heard):
            if other != heard[0][0]:
                raise UserError(
                    f"worker {rank} would train another run than worker 0 (fingerprints {other[:16]}, "
                    f"{heard[0][0][:16]}): code, params.yaml, data and kind of machine must be the same on all hosts"
                )

    def leave(self) -> None:
        dist.destroy_process_group()


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """All their numbers in one (n,) float32 tensor of its own."""
    return torch.cat([tensor.detach().reshape(-1).to(torch.float32) for tensor in tensors])


def unflatten(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Put the numbers back."""
    with torch.no_grad():
        chunks = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, numbers in zip(tensors, chunks, strict=True):
            tensor.copy_(numbers.view(tensor.shape))


def threads(config: ComputeConfig, workers: int) -> ComputeConfig:
    """Workers of one host, `workers` unless torchrun says otherwise, divide its cores among them, unless the number of
    threads is given."""
    each = config.threads or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", workers)))
    return config.model_copy(update={"threads": each})


class Resumption:
    """Checkpoints of a distributed run: what all workers share since the last exchange and, if it differs, each one's.

    The first worker on every host writes them there, so that any host that is left has them.
    """

    def __init__(self, folder: Path, own: Checkpoints, peers: Peers) -> None:
        self.folder, self.own, self.peers = folder, own, peers  # those of all hosts, and of this one

    def share(self, state: dict[str, Any]) -> None:
        """Remember a state as what all workers have in common."""
        self.shared = copy.deepcopy(state)

    def save(self, everyone: list[dict[str, Any]] | None = None, **more: object) -> None:
        """Write what is shared, and everyone's own state if it differs from that."""
        if self.peers.first_on_host:
            common = {"world": self.peers.world, "costs": self.peers.costs}
            state = {"shared": self.shared, "everyone": everyone, **common, **more}
            self.own.save(state, *_progress(state))

    def load(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The newest checkpoint of any host, and what of it is this worker's state; empty if there is none."""
        peers = self.peers
        hosts = [Checkpoints(folder) for folder in sorted(self.folder.glob("host-*/"))] if peers.first_on_host else []
        found = [saved for saved in (checkpoints.load() for checkpoints in hosts) if saved is not None]
        newest: dict[str, Any] = max(found, key=_progress, default={})
        offers = peers.gather(_progress(newest))
        state = peers.hear(newest, offers.index(max(offers)))
        if not state:
            return {}, {}
        everyone = state["everyone"]
        if (wrote := state["world"]) != peers.world:
            everyone = None
            if peers.rank == 0:
                print(
                    f"{wrote} workers wrote the checkpoint, {peers.world} go on from its last exchange",
                    file=sys.stderr,
                )
        self.shared, peers.costs = copy.deepcopy(state["shared"]), state["costs"]  # what is gone on from changes
        return state, everyone[peers.rank] if everyone else state["shared"]


def _progress(state: dict[str, Any]) -> tuple[int, int]:
    if not state:
        return -1, 0
    reached = state["everyone"][0] if state["everyone"] else state["shared"]
    return reached["epoch"], reached["step"]
