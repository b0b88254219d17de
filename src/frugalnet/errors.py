"""Errors that a person can act on, and how a stage ends when one is raised."""

import inspect
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, get_type_hints

from frugalnet.processes import end_with_parent


class UserError(Exception):
    """One line: what was wrong, where, what was expected and found, and what to do.

    The text may quote data: what is not printable is escaped, very long words are cut, and the user and password of a
    URL are left out.
    """

    def __init__(self, message: str) -> None:
        message = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)
        message = re.sub(r"(\w://)(\S*|[^/]*)@", r"\1***@", message)
        super().__init__(re.sub(r"\S{500,}", lambda match: f"{match[0][:200]}…{match[0][-100:]}", message))


class Interrupted(Exception):
    """A signal asked the process to stop, and what it had reached is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; a checkpoint is written; rerun to resume")
        self.exit_code = 128 + number


def run_stage(stage: Callable[..., None]) -> None:
    """Call a stage's main function and end the process with one line and a non-zero exit code if it fails.

    The arguments are the words of the command line. Without any they are the matrix item in DVC_STAGE, the part after
    the "@" split at its last hyphens: `train@residual-0` calls main("residual", 0). Each is converted to the type of
    its parameter. UserError and OSError end with exit code 1, Ctrl-C with 130; anything else is a defect and keeps its
    traceback. A stage that DVC has started receives SIGTERM when DVC dies.
    """
    name = Path(sys.argv[0]).stem
    arguments = _arguments(stage, name)
    signal.signal(signal.SIGINT, interrupt)
    if "DVC_STAGE" in os.environ:
        end_with_parent()
    with in_one_line(name):
        stage(*arguments)


@contextmanager
def in_one_line(name: str) -> Iterator[None]:
    """End the process as `run_stage` does if the block raises; `name` begins the line."""
    try:
        yield
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except Interrupted as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except OSError as error:
        sys.exit(f"{name}: {UserError(_describe(error))}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the exit
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; within an import exit at once: extension modules abort if theirs is interrupted."""
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, f"{Path(sys.argv[0]).stem}: interrupted\n".encode())
            os._exit(128 + signal.SIGINT)
        frame = frame.f_back
    raise KeyboardInterrupt


def _arguments(stage: Callable[..., None], name: str) -> list[Any]:
    parameters, types = list(inspect.signature(stage).parameters), get_type_hints(stage)
    words, item = sys.argv[1:], os.environ.get("DVC_STAGE", "").rpartition("@")
    if parameters and not words and item[1]:
        words = item[2].rsplit("-", len(parameters) - 1)
    try:
        return [types[parameter](word) for parameter, word in zip(parameters, words, strict=True)]
    except ValueError:
        module = f"{Path(sys.argv[0]).parent.name}.{name}"
        sys.exit(" ".join(["usage: python -m", module, *map(str.upper, parameters)]))


def _describe(error: OSError) -> str:
    """The system's words, and the file or, where the system names none, the line of code."""
    text = error.strerror or str(error)
    if error.filename is not None:
        return f"{text}: {error.filename}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if frame.filename != __file__ and Path(frame.filename).is_relative_to(Path(__file__).parent)
    ] or frames
    return f"{text} (in {own[-1].name}, {own[-1].filename}, line {own[-1].lineno})"
