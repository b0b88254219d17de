"""Every picture read once: whether it can be, and the hash of its bytes; by several processes."""

import hashlib
import multiprocessing
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from tqdm import tqdm

from frugalnet.data.container import File
from frugalnet.errors import UserError
from frugalnet.pictures import MAX_BYTES, why_not_whole
from frugalnet.processes import cores, init_worker, starting_workers, worker_pool

CHUNK = 1000  # files of a task; fewer are not worth a second process


@dataclass(frozen=True)
class Examined:
    """The SHA-256 of a picture's bytes, in hexadecimal, or why it is no picture that can be read."""

    sha256: str
    reason: str | None


def examine(files: Sequence[File], processes: int) -> list[Examined]:
    """Read each file. `processes`: 0 means one per core. Raises OSError, or UserError, for what can't be read."""
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    workers = min(processes or cores(), len(chunks))
    if workers < 2:
        return _examine(files)
    executor = worker_pool(workers, multiprocessing.get_context("spawn"), init_worker)
    examined: list[Examined] = []
    try:
        with starting_workers():
            results = executor.map(_examine, chunks)
        with tqdm(desc="read", total=len(files), unit=" files", disable=None) as bar:
            for chunk in results:
                examined += chunk
                bar.update(len(chunk))
    except (BrokenProcessPool, ConnectionError) as error:
        raise UserError("a reading process was killed (out of memory?); try compute.processes=1") from error
    finally:
        executor.shutdown(cancel_futures=True)
    return examined


def _examine(files: Sequence[File]) -> list[Examined]:
    return [_examine_file(file) for file in files]


def _examine_file(file: File) -> Examined:
    if file.size_bytes > MAX_BYTES:
        return Examined("", f"larger than {MAX_BYTES // 2**20} MiB")
    data = file.read()
    return Examined(hashlib.sha256(data).hexdigest(), why_not_whole(data))
