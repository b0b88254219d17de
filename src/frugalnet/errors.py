"""Errors that a person can act on, and how a stage ends when one is raised."""

import inspect
import signal
import sys
from collections.abc import Callable
from pathlib import Path


class UserError(Exception):
    """What was wrong, where, what was expected and found, and what to do, in one line."""


class Interrupted(Exception):
    """A signal asked the process to stop, and what it had reached is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; a checkpoint is written: run again to resume")
        self.exit_code = 128 + number


def run_stage(stage: Callable[..., None]) -> None:
    """Call a stage's main function with the command line's words, each as its parameter's type.

    A mistake of the user's ends it with one line and exit code 1. Anything else that is raised is a defect, and keeps
    its traceback.
    """
    name, words = Path(sys.argv[0]).stem, sys.argv[1:]
    parameters = inspect.signature(stage).parameters
    try:
        values = [parameter.annotation(word) for parameter, word in zip(parameters.values(), words, strict=True)]
    except ValueError:
        sys.exit(" ".join(["usage: python -m", f"pipeline.{name}", *map(str.upper, parameters)]))
    try:
        stage(*values)
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except Interrupted as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except OSError as error:
        # Disk full, read-only folder, too many open files: the system's own words and the file say it all.
        sys.exit(f"{name}: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
