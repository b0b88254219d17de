"""Errors that a person can act on, in one line."""

import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frugalnet import streams

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # signals that ask a process to end
# The last kind is a URL without slashes, scheme:user:password@host. A password may hold slashes or spaces, not both.
_BEFORE_HOST = re.compile(r"(\w(?<!file)://|(?<![\w:/])//|\bhttps?:/*|\w:(?=\S*:\S*@))(\S*|[^/]*)@", re.IGNORECASE)
_SECRET_IN_QUERY = re.compile(
    r"([?&;#][^\s=&;]*(?:token|key|secret|sig|pass|pw|auth|cred|jwt|session|policy)[^\s=&;]*=)[^\s&;'\"]*",
    re.IGNORECASE,
)


def printable(text: object) -> str:
    """Text that may quote data, on one line.

    What is not printable is escaped, very long words are cut, and what looks like a URL's user and password, or a token
    in its query, is left out.
    """
    escaped = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))
    return re.sub(r"\S{500,}", lambda match: f"{match[0][:200]}…{match[0][-100:]}", without_secrets(escaped))


def without_secrets(text: str) -> str:
    """The text with *** for what stands before a URL's @, however the URL is written, and for secrets in its query."""
    return _SECRET_IN_QUERY.sub(r"\1***", _BEFORE_HOST.sub(r"\1***@", text))


class UserError(Exception):
    """One line: what was wrong, where, what was expected and found, and what to do.

    The text may quote data: see `printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@contextmanager
def needing_study(what: str) -> Iterator[None]:
    """For the block that imports what only the extra `study` installs: raises UserError if it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "frugalnet":
            raise
        raise UserError(
            f"{what} needs the package {error.name}, which is not installed; in the project's folder: pip install "
            "'.[study]'"
        ) from error


class Interrupted(Exception):
    """A signal asked the process to stop, and what it had reached is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; a checkpoint is written; rerun to resume")
        self.exit_code = 128 + number


class Stopped(KeyboardInterrupt):
    """A signal ended the process as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def in_one_line(name: str) -> Iterator[None]:
    """End the process with one line, which `name` begins, and a non-zero exit code if the block raises.

    UserError and OSError end with exit code 1, Ctrl-C with 130, Interrupted and Stopped with their own; anything else
    is a defect and keeps its traceback. In the block, no character is lost for want of an encoding.
    """
    streams.make_usable()
    try:
        yield
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except Interrupted as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except OSError as error:
        sys.exit(f"{name}: {printable(_describe(error))}")
    except KeyboardInterrupt as stop:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the exit
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(stop.exit_code if isinstance(stop, Stopped) else 128 + signal.SIGINT)


def _describe(error: OSError) -> str:
    """The system's words, and the file or, where the system names none, the line of code."""
    text = error.strerror or str(error)
    if error.filename is not None:
        return f"{text}: {error.filename}"
    callers = {__file__, str(Path(__file__).with_name("stage.py"))}  # which call a stage, and are never the place
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in callers]
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path(__file__).parent)] or frames
    return f"{text} (in {own[-1].name}, {own[-1].filename}, line {own[-1].lineno})"
