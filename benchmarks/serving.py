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

CLIENTS = (1, 8, 32)
START_SECONDS = 300


def picture() -> bytes:
    """A JPEG file of the sample archive."""
    with TemporaryDirectory() as folder:
        write_sample(Path(folder) / "sample.zip")
        with zipfile.ZipFile(Path(folder) / "sample.zip") as archive:
            return archive.read(next(name for name in archive.namelist() if name.endswith("val_0.JPEG")))


def client(url: str, body: dict[str, object], until: float) -> list[float]:
    """Send requests, one after the other, until a time; the milliseconds that each took."""
    taken = []
    with requests.Session() as session:
        while time.perf_counter() < until:
            start = time.perf_counter()
            answer = session.post(url, json=body, timeout=60)
            taken.append(1000 * (time.perf_counter() - start))
            answer.raise_for_status()
            assert len(answer.json()["predictions"]) == 1
    return taken


def load(url: str, clients: int, seconds: float) -> str:
    """A row of the table."""
    body: dict[str, object] = {"dataframe_records": [{"image": base64.b64encode(picture()).decode()}]}
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        answers = threads.map(lambda _: client(url, body, start + seconds), range(clients))
        taken = [milliseconds for each in answers for milliseconds in each]
    rate = len(taken) / (time.perf_counter() - start)
    p50, p95, p99 = np.percentile(taken, [50, 95, 99])
    return f"| {clients} | {rate:.0f} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {len(taken):,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--alias", default="champion")
    arguments = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "frugalnet.use.cli", "serve", "--alias", arguments.alias, "--port", str(port)]
    server = subprocess.Popen(words, stdout=sys.stderr)
    try:
        deadline = time.monotonic() + START_SECONDS
        while server.poll() is None and time.monotonic() < deadline:
            try:
                requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(0.2)
        else:
            sys.exit(f"the server did not start within {START_SECONDS} s, or ended: see above")
        url = f"http://127.0.0.1:{port}/invocations"
        load(url, 8, min(3.0, arguments.seconds))  # warm-up
        print("| clients | requests per second | p50, ms | p95, ms | p99, ms | n |\n|--:|--:|--:|--:|--:|--:|")
        for clients in CLIENTS:
            print(load(url, clients, arguments.seconds), flush=True)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
