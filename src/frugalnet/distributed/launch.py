"""How several workers are configured, checked and started. torchrun's elastic agent starts and watches them."""

import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from frugalnet.compute_config import ComputeConfig
from frugalnet.distributed.config import LaunchConfig, Workers
from frugalnet.errors import UserError
from frugalnet.processes import asked_threads, check_workers_can_start, cores, supervising_workers
from frugalnet.sources import sha256_of_code
from frugalnet.stage import interrupt
from frugalnet.training.batches import steps_per_epoch
from frugalnet.training.config import TrainConfig


def identity(config: Workers) -> dict[str, Any]:
    """The parameters and the code of this package that decide a run's weights."""
    code = {path.name: sha256_of_code(path.read_bytes()) for path in sorted(Path(__file__).parent.glob("*.py"))}
    return config.model_dump() | {"source_sha256": code}


def check_workers(config: Workers, launch: LaunchConfig, train: TrainConfig, device: torch.device, n_train: int) -> str:
    """Return the backend to use. Raises UserError if this machine or the data does not suffice for the workers."""
    if device.type not in ("cpu", "cuda") or device != torch.device(device.type):
        raise UserError(
            f"distributed: workers compute on the CPU or each on a GPU of its own, not on {device}; "
            "set compute.device to cpu or cuda"
        )
    backend = {"cpu": "gloo", "cuda": "nccl"}[device.type] if launch.backend == "auto" else launch.backend
    available = dist.is_available() and {"gloo": dist.is_gloo_available, "nccl": dist.is_nccl_available}[backend]()
    if not available or (backend == "nccl" and device.type != "cuda"):
        raise UserError(f"launch.backend: '{backend}' is not available for {device.type}; use auto")
    local = min(config.workers, int(os.environ.get("LOCAL_WORLD_SIZE", config.workers)))
    if device.type == "cuda" and local > torch.cuda.device_count():
        raise UserError(
            f"distributed.workers: {local} workers on a machine with {torch.cuda.device_count()} GPUs; each needs one"
        )
    smallest = n_train // steps_per_epoch(n_train, config.recipe(train).batch_size)
    if smallest < 2 * config.workers:
        raise UserError(
            f"distributed.workers: {config.workers} workers are too many for batches of {smallest} images, since each "
            f"needs at least 2 of every batch; use at most {smallest // 2} workers or a larger train.batch_size"
        )
    return backend


def divide_cores(config: ComputeConfig, workers: int) -> ComputeConfig:
    """Divide a host's cores among its workers (`workers`, unless torchrun set it), if no number of threads is given.

    An OMP_NUM_THREADS of 1 says nothing: torchrun sets it for several workers.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", workers))
    asked = asked_threads()
    if asked == 1 and local > 1:
        asked = None
    return config.model_copy(update={"threads": config.threads or asked or max(1, cores() // local)})


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # after a terminal's Ctrl-C the agent sends another
    interrupt(number, frame)


def _in_worker(work: Callable[..., str | None], *arguments: Any) -> str | None:
    """Let Ctrl-C through, which `supervising_workers` held back while this process imported modules, and work."""
    signal.signal(signal.SIGINT, _interrupt_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return work(*arguments)


def start(workers: int, config: LaunchConfig, work: Callable[..., str | None], *arguments: Any) -> None:
    """Run work(*arguments) in each of the workers, all on this machine, and wait for them.

    work: returns a message for the user if only the user can help, else None. Raises UserError with that message, or
    if workers fail more often than `config.restarts` allows. Exits with 128 + n after signal n.
    """
    # Imported here, since only distributed runs pay for them.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher import api

    # A new store for each start: a shared one would give restarted workers the addresses of those that failed.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    check_workers_can_start(workers)
    with tempfile.TemporaryDirectory(prefix="frugalnet-") as logs:
        agent = api.LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=workers,
            run_id=uuid.uuid4().hex,  # with a free port, keeps two runs on one machine apart
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=config.restarts,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            shutdown_timeout=8,
        )
        try:
            with supervising_workers():
                messages = api.elastic_launch(agent, _in_worker)(work, *arguments)
        except SignalException as stop:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # another Ctrl-C must not interrupt the exit
            sys.exit(128 + stop.sigval)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            message: Any = failure.message  # text after a signal, a dictionary with a stack trace after an exception
            reason = str(message["message"] if isinstance(message, dict) else message).strip().splitlines()[-1]
            raise UserError(f"worker {rank} failed, and launch.restarts allows no further restart: {reason}") from None
    for message in filter(None, messages.values()):
        raise UserError(message)
