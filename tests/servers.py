"""Real servers for tests, on free ports of this machine."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from frugalnet.use.runtime import Network
from frugalnet.use.server.app import build_app
from frugalnet.use.server.hosts import Hosts
from frugalnet.use.server.metrics import Metrics
from frugalnet.use.server.run import Address, Server, listen
from frugalnet.use.server.service import Service


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def started(
    command: Sequence[str], port: int, log: Path, health: str | None = None, **options: Any
) -> Iterator[subprocess.Popen]:
    """Run a server for the block, once it listens or, with `health`, answers at that path. It prints to `log`."""
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options)
    try:
        deadline = time.monotonic() + 300
        while not answers(port, health):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield server
    finally:
        with suppress(ProcessLookupError):  # the block may have ended it
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(90)


def answers(port: int, health: str | None) -> bool:
    if health is None:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0
    try:
        return requests.get(f"http://127.0.0.1:{port}{health}", timeout=5).ok
    except requests.RequestException:
        return False


@contextmanager
def in_this_process(networks: Sequence[Network], examples: Sequence[Path] = ()) -> Iterator[str]:
    """frugalnet's own server in a thread, so that a test can hold its networks back. Yields its address."""
    service = Service(networks, Metrics(), threads=2)
    listening = listen(Address("127.0.0.1", 0))
    server = Server(build_app(service, Hosts(), examples), service)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
