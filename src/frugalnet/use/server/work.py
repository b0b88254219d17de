"""What the server does at once, bounded: bodies in memory, time for each, calls that run or wait for a thread."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from threading import BoundedSemaphore
from typing import Any, TypeVar

from starlette.requests import Request

from frugalnet.use.server.api import Refusal

T = TypeVar("T")
MAX_BODY = 32 * 2**20  # bytes; a photograph of 50 megapixels has some 20 million
MAX_HELD = 8 * MAX_BODY  # of all bodies together
MAX_REQUESTS = 64  # that are worked on, or wait for it
RETRY_SECONDS = 1


class Limits:
    """Times for what requests wait for. All are over when the server ends."""

    def __init__(self) -> None:
        self._timeouts: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def within(self, seconds: float, otherwise: Callable[[], Refusal]) -> AsyncIterator[None]:
        """Raise what `otherwise` gives in the block when the time is over."""
        timeout = asyncio.timeout(seconds)
        self._timeouts.add(timeout)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            raise otherwise() from error
        finally:
            self._timeouts.remove(timeout)

    def end(self) -> None:
        for timeout in self._timeouts:
            timeout.reschedule(asyncio.get_running_loop().time())


class Intake:
    """Reads the bodies of requests into a bounded memory."""

    def __init__(self) -> None:
        self._held = 0

    @asynccontextmanager
    async def body(self, request: Request, limit: AbstractAsyncContextManager[None]) -> AsyncIterator[bytes]:
        """A body, for the block. limit: of the time in which it has to arrive.

        Raises Refusal if it is too large or too slow, or while there is no room for it.
        """
        chunks: list[bytes] = []
        size = 0
        self._check(int(request.headers.get("content-length", 0)), 0)
        try:
            async with limit:
                async for chunk in request.stream():
                    chunks.append(chunk)
                    size += len(chunk)
                    self._held += len(chunk)
                    self._check(size, size)
            yield b"".join(chunks)
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
        self._calls: set[Future[Any]] = set()

    async def call(self, work: Callable[[], T]) -> T:
        """What a call in a thread returns. Raises Refusal, at once, if too many wait."""
        if not self._free.acquire(blocking=False):
            raise busy()
        future = self._threads.submit(work)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        future.add_done_callback(lambda _: self._free.release())  # when the thread is free, not whoever waits for it
        return await asyncio.wrap_future(future)

    def are_busy(self) -> bool:
        return bool(self._calls)


def busy() -> Refusal:
    return Refusal(503, f"too many requests at once; try again in {RETRY_SECONDS} s", RETRY_SECONDS)
