"""Load on the server of `make serve`: python -m benchmarks.serving [--seconds 30], after `python -m frugalnet.promote`.

It starts the server, sends one JPEG of 64×64 pixels a request from 1, 8 and 32 clients on this machine, each with a
connection of its own, and prints requests per second and latencies as a Markdown table. Every answer is checked.
"""

import argparse
import base64
import socket
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import requests

from frugalnet.data.sample import write_sample
from frugalnet.errors import UserError, in_one_line

CLIENTS = (1, 8, 32)
START_SECONDS = 300


def sample_request() -> dict[str, object]:
    """A request with a picture of the sample archive."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sample.zip"
        write_sample(path)
        with zipfile.ZipFile(path) as archive:
            jpeg = archive.read(next(name for name in archive.namelist() if name.endswith("val_0.JPEG")))
    return {"dataframe_records": [{"image": base64.b64encode(jpeg).decode()}]}


def wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            return requests.get(f"{url}/ping", timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.2)
    raise UserError(f"the server did not start within {START_SECONDS} s, or ended: see above")


def send_requests(url: str, request: dict[str, object], until: float) -> list[float]:
    """One after the other, until a time; the milliseconds that each took."""
    latencies = []
    with requests.Session() as session:
        while time.perf_counter() < until:
            start = time.perf_counter()
            answer = session.post(f"{url}/invocations", json=request, timeout=60)
            latencies.append(1000 * (time.perf_counter() - start))
            answer.raise_for_status()
            assert len(answer.json()["predictions"]) == 1
    return latencies


def measure_load(url: str, request: dict[str, object], clients: int, seconds: float) -> str:
    """A row of the table."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        tasks = [threads.submit(send_requests, url, request, start + seconds) for _ in range(clients)]
        latencies = np.concatenate([task.result() for task in tasks])
    rate = len(latencies) / (time.perf_counter() - start)
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    return f"| {clients} | {rate:.0f} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {len(latencies):,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--alias", default="champion")
    arguments = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "frugalnet.use.cli", "serve", "--alias", arguments.alias, "--port", str(port)]
    server = subprocess.Popen(command, stdout=sys.stderr)
    try:
        wait_until_ready(server, url)
        request = sample_request()
        measure_load(url, request, 8, min(3.0, arguments.seconds))  # warm-up
        print("| clients | requests per second | p50, ms | p95, ms | p99, ms | n |\n|--:|--:|--:|--:|--:|--:|")
        for clients in CLIENTS:
            print(measure_load(url, request, clients, arguments.seconds), flush=True)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    with in_one_line("bench-serve"):
        main()
