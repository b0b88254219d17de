"""What the server does at once, bounded: the bodies that it holds, and the requests that wait for its threads."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from threading import BoundedSemaphore
from typing import TypeVar

from starlette.requests import Request

from frugalnet.use.server.api import Refusal

T = TypeVar("T")
MAX_BODY = 32 * 2**20  # bytes; a photograph of 50 megapixels has some 20 million
MAX_HELD = 8 * MAX_BODY  # of all bodies together
BODY_SECONDS = 10.0  # for the body to arrive
MAX_REQUESTS = 64  # that are worked on, or wait for it
RETRY_SECONDS = 1


class Intake:
    """Reads the bodies of requests into a bounded memory."""

    def __init__(self) -> None:
        self._held = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """A body, for the block. Raises Refusal if it is too large or too slow, or while there is no room for it."""
        chunks: list[bytes] = []
        size = 0
        try:
            self._check(int(request.headers.get("content-length", 0)), 0)
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    chunks.append(chunk)
                    size += len(chunk)
                    self._held += len(chunk)
                    self._check(size, size)
            yield b"".join(chunks)
        except TimeoutError as error:
            raise Refusal(408, f"the body did not arrive within {BODY_SECONDS:g} s") from error
        finally:
            self._held -= size

    def _check(self, size: int, arrived: int) -> None:
        if size > MAX_BODY:
            raise Refusal(413, f"the body is larger than {MAX_BODY // 2**20} MiB; send fewer or smaller pictures")
        if self._held + size - arrived > MAX_HELD:
            raise busy()


class Workers:
    """Threads, and a bounded number of calls that run or wait for one."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="worker")
        self._free = BoundedSemaphore(MAX_REQUESTS)

    async def call(self, work: Callable[[], T]) -> T:
        """What a call in a thread returns. Raises Refusal, at once, if too many wait."""
        if not self._free.acquire(blocking=False):
            raise busy()
        future = self._threads.submit(work)
        future.add_done_callback(lambda _: self._free.release())  # when the thread is free, not whoever waits for it
        return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """Without waiting for what runs."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def busy() -> Refusal:
    return Refusal(503, f"too many requests at once; try again in {RETRY_SECONDS} s", RETRY_SECONDS)
