"""Libraries that talk while they work, kept quiet."""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, log lines and what is printed: exporters' chatter on deprecations and passes."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def standard_error() -> Iterator[IO[bytes]]:
    """A file that gets what this process, C++ code included, prints to standard error."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(kept, 2)
            os.close(kept)
