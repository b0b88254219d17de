"""How the processes of a stage start and end. Imported by every worker, so it imports neither torch nor OpenCV."""

import multiprocessing
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path


def cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


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
