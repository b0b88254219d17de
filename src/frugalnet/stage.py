"""How a stage of the pipeline is called, and how a signal ends it."""

import gc
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, get_type_hints

from frugalnet.errors import ENDING, Stopped, in_one_line

_LOOK_SECONDS = 0.05  # between two looks at whether an import is done


def run_stage(stage: Callable[..., None]) -> None:
    """Call a stage's main function and end the process with one line and a non-zero exit code if it fails.

    The arguments are the words of the command line. Without any they are the matrix item in DVC_STAGE, the part after
    the "@" split at its last hyphens: `train@residual-0` calls main("residual", 0). Each is converted to the type of
    its parameter. A failure ends the process as `in_one_line` says.
    """
    name = Path(sys.argv[0]).stem
    arguments = _arguments(stage, name)
    end_in_order()
    gc.freeze()  # what is imported stays
    gc.enable()
    with in_one_line(name):
        if "DVC_STAGE" in os.environ:
            from frugalnet.run_cache import tell_of_lost_results  # reads YAML

            tell_of_lost_results(os.environ["DVC_STAGE"])
        stage(*arguments)
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)  # in Python's own exit, an exception would be a traceback


def end_in_order() -> None:
    """Let the signals that end a process interrupt it, so that what it has begun is undone. `nohup` still works."""
    for number in ENDING:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise Stopped; within an import, when that is done: extension modules abort if theirs is interrupted."""
    if _is_importing(frame):
        signal.signal(signal.SIGALRM, lambda _, frame: interrupt(number, frame))
        signal.setitimer(signal.ITIMER_REAL, _LOOK_SECONDS)
    else:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise Stopped(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _arguments(stage: Callable[..., None], name: str) -> list[Any]:
    parameters = list(inspect.signature(stage).parameters)
    types = get_type_hints(stage)
    words = sys.argv[1:]
    item = os.environ.get("DVC_STAGE", "").rpartition("@")
    if parameters and not words and item[1]:
        words = item[2].rsplit("-", len(parameters) - 1)
    try:
        return [types[parameter](word) for parameter, word in zip(parameters, words, strict=True)]
    except ValueError:
        module = f"{Path(sys.argv[0]).parent.name}.{name}"
        sys.exit(" ".join(["usage: python -m", module, *map(str.upper, parameters)]))
