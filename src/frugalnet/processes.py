"""How the processes of a stage start and end. Imported by every worker, so it imports neither torch nor OpenCV."""

import math
import multiprocessing
import os
import platform
import re
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from frugalnet.errors import UserError


def cores(process: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """The number of processor cores that this process may use: its affinity, or a container's CPU quota rounded up.

    process: lists the process's control groups, of version 1 and 2. groups: where their files are.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = min(_cpu_quotas(process, groups), default=float(allowed))
    return max(1, min(allowed, math.ceil(quota)))


def _cpu_quotas(process: Path, groups: Path) -> Iterator[float]:
    """The CPU quotas, in cores, of a process's control groups and of the groups that hold them."""
    for line in process.read_text().splitlines() if process.exists() else []:
        _, controllers, name = line.split(":", 2)
        top = groups / controllers
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = top / name.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield from _cpu_quota(folder)


def _cpu_quota(folder: Path) -> Iterator[float]:
    """The quota of one control group, if it has one. In a container, a group above its own cannot be read."""
    with suppress(OSError):
        quota, period = (folder / "cpu.max").read_text().split()  # version 2
        if quota != "max":
            yield int(quota) / int(period)
    with suppress(OSError):
        quota = (folder / "cpu.cfs_quota_us").read_text()  # version 1
        if int(quota) > 0:
            yield int(quota) / int((folder / "cpu.cfs_period_us").read_text())


def asked_threads() -> int | None:
    """The number of threads that OMP_NUM_THREADS asks for, or None."""
    asked = re.match(r"\s*0*([1-9]\d{0,3})\b", os.environ.get("OMP_NUM_THREADS", ""))
    return int(asked[1]) if asked else None


def worker_pool(
    processes: int, context: BaseContext, initializer: Callable[..., None], *arguments: Any
) -> ProcessPoolExecutor:
    """A pool of worker processes. Raises UserError where they could not work, as `check_workers_can_start`."""
    check_workers_can_start(processes)
    return ProcessPoolExecutor(processes, context, initializer, arguments)


def check_workers_can_start(processes: int) -> None:
    """Raises UserError if there is no shared memory, or no room for so many processes and their threads."""
    try:
        multiprocessing.Semaphore()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"/dev/shm cannot be used ({reason}), and {processes} worker processes need it; mount it, or make it "
            "writable or larger (Docker: --shm-size=1g)"
        ) from error
    _check_room(5 + processes * (2 + cores()))  # with the pool's own threads, and those of the workers' linear algebra


def _check_room(threads: int) -> None:
    """Raises UserError unless this user, or container, may have so many more threads: processes count as such."""
    done = threading.Event()
    waiting = [threading.Thread(target=done.wait, daemon=True) for _ in range(threads)]
    started = 0
    try:
        for thread in waiting:
            thread.start()
            started += 1
    except RuntimeError as error:
        raise UserError(
            f"only {started} more processes and threads are allowed here, and {threads} are needed; allow more (ulimit "
            "-u; Docker: --pids-limit) or use fewer compute.processes"
        ) from error
    finally:
        done.set()
        for thread in waiting[:started]:
            thread.join()


def peak_bytes() -> int:
    """The most memory that this process ever held, resident, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux's ru_maxrss includes what the parent held when it started this process
        (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        return 1024 * int(kilobytes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def starting_workers() -> Iterator[None]:
    """For the block that starts workers: they don't see Ctrl-C while they import."""
    resource_tracker.ensure_running()  # its start would let Ctrl-C through again
    with ctrl_c_held_back():
        yield


@contextmanager
def supervising_workers() -> Iterator[None]:
    """For the block that starts workers at any time and, meanwhile, has to see Ctrl-C itself.

    The workers inherit that Ctrl-C is held back, and have to let it through when they have imported what they need.
    """
    done = threading.Event()
    threading.Thread(target=done.wait, daemon=True).start()  # receives Ctrl-C; Python handles it in the main thread
    try:
        with starting_workers():
            yield
    finally:
        done.set()


@contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """Hold Ctrl-C back in the block, and for good in the processes that it starts, which inherit that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder for the block. What libraries and child processes put into one meanwhile goes with it.

    Some leave theirs behind where a signal ends them.
    """
    outer = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="frugalnet-") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            os.environ["TMPDIR"] = tempfile.tempdir = outer


def init_worker() -> None:
    """Set up a worker process: it leaves Ctrl-C to its parent, ends with its parent, and OpenCV uses one thread."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def end_with_parent() -> None:
    """Have SIGTERM sent to this process when the process that started it dies.

    DVC starts a stage through a shell. Some shells replace themselves with their command, others stay as its parent, so
    the parent of a shell is watched too. The kernel's own parent-death signal would not notice that it died.
    """
    threading.Thread(target=_watch, args=(_ancestors(),), daemon=True).start()


def _watch(ancestors: list[int]) -> None:
    while _ancestors() == ancestors:  # an orphan gets another parent at once
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)


def _ancestors() -> list[int]:
    parent = os.getppid()
    try:
        name, _, fields = Path(f"/proc/{parent}/stat").read_text().rpartition(")")
    except OSError:  # no /proc: macOS, whose zsh replaces itself
        return [parent]
    return [parent, int(fields.split()[1])] if name.endswith("sh") else [parent]


def cpu_model_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
