"""Errors that a person can act on, and how a stage ends when one is raised."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """What was wrong, where, what was expected and found, and what to do, in one line."""


def run_stage(stage: Callable[..., None], *arguments: str) -> None:
    """Run a stage's main function; a mistake of the user's ends it with one line and exit code 1."""
    try:
        stage(*arguments)
    except UserError as error:
        sys.exit(f"{stage.__module__.rpartition('.')[2]}: {error}")
    except OSError as error:
        # Disk full, read-only folder, too many open files: the file and the system's own words say it all.
        sys.exit(f"error: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
