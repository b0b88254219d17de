"""Standard input and output as the caller left them: closed, or in an encoding that lacks characters."""

import codecs
import os
import sys

_PLAIN = {"\u00a0": " ", "−": "-", "–": "-", "×": "x", "±": "+-", "…": "...", "·": "-", "→": "->", "’": "'"}


def make_usable() -> None:
    """Let printing never fail for a character, and open closed streams on the null device.

    Call it first of all: whatever a process with a closed stream opens next takes that stream's number, and what C
    libraries print ends up in it.
    """
    codecs.register_error("frugalnet.plain", _in_ascii)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(null, True)  # for worker processes, and the program that this one may become
            setattr(sys, name, os.fdopen(null, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where a test or a notebook has put its own
            stream.reconfigure(errors="frugalnet.plain")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that the encoding lacks: a similar one, else its escape."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    plain = (_PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in lacking)
    return "".join(plain), error.end
