"""Load on two servers of the same network: python -m benchmarks.serving [--seconds 5] [--rounds 3] [--model NAME].

`frugalnet serve` is compared with what it took the place of: MLflow's own server (`mlflow models serve`) of the
registered model, which PyTorch runs. Both run at once and are asked in alternating rounds, so that a machine that slows
down for a while favours neither. Each request holds one JPEG of 64×64 pixels; 1, 8 and 32 clients on this machine, each
with a connection of its own, send one after the other. Every answer is checked. Prints a Markdown table.
"""

import argparse
import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from frugalnet import registry
from frugalnet.data.sample import write_sample
from frugalnet.errors import UserError, in_one_line
from frugalnet.use import weights

CLIENTS = (1, 8, 32)
START_SECONDS = 300
JSON = "application/json"


@dataclass
class Server:
    """A server and what it is asked. By the number of clients: latencies in milliseconds; rates, one a round."""

    name: str
    port: int
    path: str
    content_type: str
    body: bytes
    latencies: dict[int, list[float]] = field(default_factory=lambda: {clients: [] for clients in CLIENTS})
    rates: dict[int, list[float]] = field(default_factory=lambda: {clients: [] for clients in CLIENTS})

    def rate(self, clients: int) -> float:
        """Requests per second, the median of the rounds."""
        return float(np.median(self.rates[clients]))

    def percentile(self, clients: int, percent: float) -> float:
        return float(np.percentile(self.latencies[clients], percent))


def sample_jpeg() -> bytes:
    """A picture of the sample archive."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sample.zip"
        write_sample(path)
        with zipfile.ZipFile(path) as archive:
            return archive.read(next(name for name in archive.namelist() if name.endswith("val_0.JPEG")))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(server: Server, command: Sequence[str], health: str) -> Iterator[Server]:
    """The server's process, for the block, once it answers."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where MLflow finds uvicorn
    words = [sys.executable, "-m", *command, "--port", str(server.port)]
    process = subprocess.Popen(words, stdout=sys.stderr, env={**os.environ, "PATH": path})
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(server.port, health):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"{server.name} did not start within {START_SECONDS} s, or ended: see above")
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait()


def answers(port: int, path: str) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def send_requests(server: Server, until: float) -> list[float]:
    """One after the other, until a time; the milliseconds that each took."""
    latencies = []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    while time.perf_counter() < until:
        start = time.perf_counter()
        connection.request("POST", server.path, server.body, {"Content-Type": server.content_type})
        answer = connection.getresponse()
        body = answer.read()
        latencies.append(1000 * (time.perf_counter() - start))
        assert answer.status == 200, body
        assert b"probability" in body
    return latencies


def measure_load(server: Server, clients: int, seconds: float) -> None:
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        tasks = [threads.submit(send_requests, server, start + seconds) for _ in range(clients)]
        latencies = [latency for task in tasks for latency in task.result()]
    server.rates[clients].append(len(latencies) / (time.perf_counter() - start))
    server.latencies[clients] += latencies


def row(server: Server, clients: int) -> str:
    p50, p95, p99 = (server.percentile(clients, percent) for percent in (50, 95, 99))
    spread = f"{min(server.rates[clients]):.0f} to {max(server.rates[clients]):.0f}"
    n = len(server.latencies[clients])
    rate = server.rate(clients)
    return f"| {server.name} | {clients} | {rate:.0f} ({spread}) | {p50:.1f} | {p95:.1f} | {p99:.1f} | {n:,} |"


def verdict(before: Server, now: Server) -> str:
    times = now.rate(8) / before.rate(8)
    share = now.percentile(32, 99) / before.percentile(32, 99)
    return (
        f"{times:.1f} times the requests per second at 8 clients (aim: at least 5); p99 at 32 clients {share:.2f} of "
        "what it was (aim: below 0.20)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round, for each server (default: 5)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="a network (default: the most accurate)")
    parser.add_argument("--weights", type=Path, default=weights.project_folder(), help="default: weights/")
    arguments = parser.parse_args()
    stored = weights.choose_network(arguments.model, arguments.weights)
    jpeg = sample_jpeg()
    records: dict[str, Any] = {"dataframe_records": [{"image": base64.b64encode(jpeg).decode()}]}
    before = Server("mlflow models serve", free_port(), "/invocations", JSON, json.dumps(records).encode())
    now = Server("frugalnet serve", free_port(), "/predict", "image/jpeg", jpeg)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        weights.write_weights(Path(folder) / "weights", [without_exports(stored)])
        model = registry.save(Path(folder) / "weights", Path(folder) / "model")
        mlflow = ["mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
        stack.enter_context(running(before, mlflow, "/ping"))
        ours = ["frugalnet.use.cli", "serve", "--weights", str(arguments.weights), "--model", stored.name]
        stack.enter_context(running(now, ours, "/health"))
        for clients in CLIENTS:
            for each in (before, now):
                send_requests(each, time.perf_counter() + min(1.0, arguments.seconds))  # warm-up
            for _ in range(arguments.rounds):
                for each in (before, now):
                    measure_load(each, clients, arguments.seconds)
    print(f"{stored.name}, {arguments.rounds} rounds of {arguments.seconds:g} s each:\n")
    print("| server | clients | requests per second (rounds) | p50, ms | p95, ms | p99, ms | n |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for clients in CLIENTS:
        print(row(before, clients), row(now, clients), sep="\n")
    print(f"\n{verdict(before, now)}")


def without_exports(stored: weights.Stored) -> weights.Stored:
    """So that PyTorch runs the network, as it did behind MLflow's server."""
    return stored.model_copy(update={"entry": stored.entry.model_copy(update={"onnx": None, "int8": None})})


if __name__ == "__main__":
    with in_one_line("bench-serve"):
        main()
