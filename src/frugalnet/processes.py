"""What the processes that decode and augment pictures have in common. They start fast: nothing here needs torch."""

import multiprocessing
import os
import signal
import threading

import cv2


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def settle() -> None:
    """What a worker process does first: it leaves Ctrl-C to its parent, dies with it, and keeps to one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
