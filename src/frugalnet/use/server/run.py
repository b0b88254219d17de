"""The server's process: which networks it runs, its socket, its end."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from frugalnet.errors import UserError
from frugalnet.processes import cores
from frugalnet.use import runtime, weights
from frugalnet.use.runtime import Network
from frugalnet.use.server.app import build_app
from frugalnet.use.server.hosts import Hosts
from frugalnet.use.server.metrics import Metrics
from frugalnet.use.server.service import Service

EXAMPLES = "examples"  # a folder of pictures beside weights
_SHOWN = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}  # by browsers
_MOST_EXAMPLES = 12
FINISH_SECONDS = 0.6  # for what runs when the server is told to end
END_SECONDS = 1


@dataclass(frozen=True)
class Address:
    """Where the server listens. names: by which requests may call it, besides addresses and localhost."""

    host: str
    port: int
    names: Sequence[str] = ()

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def open_networks(where: Path | None, model: str | None) -> list[Network]:
    """The networks of a folder of weights, the most accurate first; or one, of a file, an exported folder or by name.

    Raises UserError if there are none, or if one cannot be run.
    """
    if model is not None or (where is not None and not (where / "weights.json").is_file()):
        return [runtime.load(model, where)]
    return [runtime.open_stored(stored) for stored in weights.list_networks(where)]


def find_examples(folder: Path | None, weights_folder: Path | None) -> list[Path]:
    """Pictures for the page that a browser shows, at most twelve: those in the folder, and the first in each folder in
    it. By default in `examples` beside the weights, if there is such a folder."""
    if folder is None:
        folder = (weights_folder or weights.project_folder()) / EXAMPLES
        if not folder.is_dir():
            return []
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of examples")
    found = _pictures(folder)
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        found += _pictures(inner)[:1]
    return found[:_MOST_EXAMPLES]


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SHOWN and path.is_file())


def serve(networks: Sequence[Network], address: Address, examples: Sequence[Path]) -> None:
    """Serve until SIGTERM or Ctrl-C; what runs then is finished. Raises UserError if the address cannot be used."""
    with listen(address) as listening:
        service = Service(networks, Metrics(), cores())
        hosts = Hosts([address.host, *address.names])
        names = ", ".join(network.name for network in networks)
        print(f"{names}: {address.url} (API: {address.url}/docs; Ctrl-C ends it)", flush=True)
        Server(build_app(service, hosts, examples), service).run([listening])


class Server(uvicorn.Server):
    """uvicorn's server. Told to end, it first finishes what runs, then cuts it short with an answer."""

    def __init__(self, app: FastAPI, service: Service) -> None:
        super().__init__(_configuration(app))
        self.service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(FINISH_SECONDS, self.service.limits.end)
        await super().shutdown(sockets)
        if signal.SIGTERM in self._captured_signals and self.service.workers.are_busy():
            print("frugalnet: interrupted", file=sys.stderr, flush=True)
            os._exit(128 + signal.SIGTERM)  # Python would wait for what nobody waits for any more: a huge picture


def _configuration(app: FastAPI) -> uvicorn.Config:
    """How the application is served. What clients do wrong is counted and answered, not logged."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    return uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="error",
        server_header=False,
        timeout_graceful_shutdown=END_SECONDS,
    )


def listen(address: Address) -> socket.socket:
    """A socket at the address. Raises UserError if it cannot be used, for example because another process uses it."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listening = socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # behind it is the address again
        hint = f"choose another with --port, for example {address.port % 65535 + 1}"
        raise UserError(f"{address.host}, port {address.port}: {reason}; {hint}") from error
    # Inherited by connections. Without it an answer's second packet waits for the first one's receipt, 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
