"""Checkpoints that survive SIGKILL, a full disk and a damaged file."""

import hashlib
import io
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from frugalnet.files import atomic, locked, remove

_VERSION = b"frugalnet checkpoint 1\n"  # of a state's contents; other versions cannot be resumed
_DIGEST_BYTES = hashlib.sha256().digest_size


class Checkpoints:
    """The checkpoints of one run, in a folder named by everything that decides the run's bits.

    A file is a line with its version, the SHA-256 of the rest, then `torch.save`'s bytes, which load without unpickling
    code. The newest two are kept: if the newest is damaged, the one before is used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder; a second process with the same run waits for the first."""
        return locked(self.folder)

    def save(self, state: dict[str, Any], epoch: int, step: int) -> None:
        """Write the state reached after `step` steps of `epoch`, then drop all but the one before it."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getbuffer()
        with atomic(self.folder / f"{epoch:05d}-{step:08d}.ckpt") as partial, partial.open("wb") as file:
            file.write(_VERSION + hashlib.sha256(payload).digest())
            file.write(payload)
        for old in self._newest_first()[2:]:
            remove(old)

    def load(self) -> dict[str, Any] | None:
        """The newest whole state, on the CPU, or None. Files that cannot be used are reported and skipped."""
        for path in self._newest_first():
            content = path.read_bytes()
            if content[: len(_VERSION)] != _VERSION:
                print(f"{path}: damaged, or of another version of frugalnet; not used", file=sys.stderr)
                continue
            digest, payload = content[len(_VERSION) :][:_DIGEST_BYTES], content[len(_VERSION) + _DIGEST_BYTES :]
            if hashlib.sha256(payload).digest() != digest:
                print(f"{path}: damaged (wrong checksum); not used", file=sys.stderr)
                continue
            state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            return state
        return None

    def remove(self) -> None:
        """Remove the run's checkpoints."""
        remove(self.folder)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("*.ckpt"), reverse=True)
