"""`frugalnet serve` as a process: what it serves, how it starts and fails to, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import networks
import numpy as np
import pytest
import requests
import servers

import frugalnet
from frugalnet.pictures import encode_png

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "frugalnet.use.cli", "serve"]
RED = networks.png()


def environment(**others: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **others}


@contextmanager
def serving(log: Path, *words: str, **others: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The process, and its address."""
    port = servers.free_port()
    command = [*COMMAND, "--port", str(port), *words]
    with servers.started(command, port, log, "/health", env=environment(**others)) as process:
        yield process, f"http://127.0.0.1:{port}"


def names(url: str) -> list[str]:
    return [one["name"] for one in requests.get(f"{url}/networks", timeout=60).json()["networks"]]


def test_the_networks_of_the_project_are_served_the_most_accurate_first(tmp_path):
    picture = encode_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    (tmp_path / "a.png").write_bytes(picture)
    with serving(tmp_path / "log") as (_, url):
        served = names(url)
        assert set(served) == {path.stem for path in (ROOT / "weights").glob("*.safetensors")}
        answer = requests.post(f"{url}/predict?network=all", data=picture, timeout=60).json()
        (picture,) = answer["pictures"]
        assert [one["network"] for one in picture["predictions"]] == served
        for opinion in picture["predictions"]:
            (expected,) = frugalnet.load(opinion["network"]).predict([tmp_path / "a.png"])
            assert [one["id"] for one in opinion["top"]] == [one["id"] for one in expected.named(5)]
            given = [one["probability"] for one in opinion["top"]]
            assert np.allclose(given, [one["probability"] for one in expected.named(5)], atol=1e-5)
    best = frugalnet.load()
    assert served[0] == best.name
    assert (tmp_path / "log").read_text().startswith(f"{', '.join(served)}: {url} (API: ")


def test_an_exported_folder_is_served_with_its_examples(tmp_path):
    export = [*COMMAND[:-1], "export", str(tmp_path / "out"), "--model", "depthwise", "--copy"]
    subprocess.run(export, env=environment(), check=True, capture_output=True)
    (tmp_path / "out/examples/red").mkdir(parents=True)
    (tmp_path / "out/examples/red/one.png").write_bytes(RED)
    with serving(tmp_path / "log", "--weights", str(tmp_path / "out")) as (_, url):
        assert names(url) == ["depthwise-0"]
        (example,) = requests.get(f"{url}/examples", timeout=60).json()["examples"]
        assert example["name"] == "red"
        shown = requests.get(url + example["url"], timeout=60)
        assert (shown.content, shown.headers["Content-Type"]) == (RED, "image/png")


def failure(*words: str) -> str:
    done = subprocess.run(
        [*COMMAND, *words], env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert failure("--model", "depthwise", "--port", str(port)) == (
            f"frugalnet: 127.0.0.1, port {port}: Address already in use; choose another with --port, for example "
            f"{port % 65535 + 1}\n"
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nix"], ", alexnet-0, "),
        (["--weights", "nix"], "nix: no such file or folder of weights"),
        (["--model", "depthwise", "--host", "nix.invalid"], "nix.invalid, port 5001: "),
        (["--model", "depthwise", "--examples", "nix"], "nix: no such folder of examples"),
        (["--weights", "weights", "--alias", "champion"], "--alias and --weights: give one of them"),
    ],
)
def test_what_cannot_be_served_is_one_line(words, message):
    assert message in failure(*words)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_ends_cuts_short_what_takes_long_and_leaves_nothing(tmp_path, number):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with serving(tmp_path / "log", "--model", "depthwise", TMPDIR=str(temporary)) as (process, url):
        port = int(url.rpartition(":")[2])
        many = [("picture", networks.png(side=6000))] * 60  # at least a second each
        with (
            requests.Session() as idle,
            socket.create_connection(("127.0.0.1", port)) as slow,
            ThreadPoolExecutor() as threads,
        ):
            idle.get(f"{url}/health", timeout=60)  # the connection stays
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nxx")
            running = threads.submit(requests.post, f"{url}/predict", files=many, timeout=60)
            while "frugalnet_requests_running 3.0" not in requests.get(f"{url}/metrics", timeout=60).text:
                time.sleep(0.01)
            process.send_signal(number)
            code = process.wait(60)
            assert running.result().status_code == 503
        assert code == 128 + number
        assert list(temporary.iterdir()) == []
    assert (tmp_path / "log").read_text().splitlines()[1:] == ["frugalnet: interrupted"]


def test_a_server_that_is_told_to_end_does_not_wait_for_work_that_it_has_given_up(tmp_path):
    port = servers.free_port()
    code = (
        f"import signal, sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "import networks; from frugalnet.use.server.run import Address, serve\n"
        "signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))\n"
        f"serve([networks.network(run=networks.Gate())], Address('127.0.0.1', {port}), [])"  # its work takes a minute
    )
    with (
        servers.started([sys.executable, "-c", code], port, tmp_path / "log", "/health", env=environment()) as process,
        ThreadPoolExecutor() as threads,
    ):
        url = f"http://127.0.0.1:{port}"
        running = threads.submit(requests.post, f"{url}/predict", data=RED, timeout=60)
        while "frugalnet_requests_running 2.0" not in requests.get(f"{url}/metrics", timeout=60).text:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert running.result().status_code == 503


def test_onnx_runtime_keeps_and_reports_nothing_of_what_it_runs(tmp_path):
    """Otherwise it writes a session's number to TMPDIR when it is imported, and its maker's server gets its events."""
    code = "import frugalnet, onnxruntime; print(onnxruntime.__version__)"
    homes = environment(TMPDIR=str(tmp_path), HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    subprocess.run([sys.executable, "-c", code], env=homes, check=True)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.slow
def test_20_000_requests_do_not_fill_the_memory(tmp_path):
    """A tenth of them wrong, from eight clients; after the first 4,000, which warm caches and allocators."""
    with serving(tmp_path / "log", "--model", "depthwise") as (_, url):

        def send(count: int) -> None:
            with requests.Session() as session:
                for number in range(count):
                    data = RED if number % 10 else b"nothing"
                    status = session.post(f"{url}/predict?network=all&pixels=true", data=data, timeout=60).status_code
                    assert status == (200 if number % 10 else 422)

        def memory(requests_each: int) -> float:
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(send, [requests_each] * 8))
            text = requests.get(f"{url}/metrics", timeout=60).text
            (line,) = re.findall(r"^process_resident_memory_bytes (.*)$", text, re.MULTILINE)
            return float(line) / 2**20

        before = memory(500)
        after = memory(2500)
        assert after - before < 8, f"{before:.0f} → {after:.0f} MiB"
