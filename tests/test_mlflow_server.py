"""`make ui`: MLflow's own server, a real process, on a project that never logged anything."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests
import servers

from frugalnet import registry
from frugalnet.errors import UserError
from frugalnet.mlflow_store import connect
from tools.tracking_server import check_database
from tools.ui import without_password

ROOT = Path(__file__).parents[1]


def environment(port: int, **changes: str) -> dict[str, str]:
    paths = os.pathsep.join(map(str, (ROOT / "src", ROOT)))
    return os.environ | {"PORT": str(port), "PYTHONPATH": paths, "MLFLOW_DISABLE_TELEMETRY": "true"} | changes


def test_the_store_of_a_project_named_by_a_relative_path_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client, identity = connect(Path())
    assert client.get_experiment(identity).artifact_location == (tmp_path / "mlruns/artifacts").as_uri()


@pytest.mark.slow
def test_the_pages_of_a_project_that_never_logged_anything_are_served_by_one_worker_without_jobs(tmp_path):
    port = servers.free_port()
    options = {"cwd": tmp_path, "env": environment(port)}
    command = [sys.executable, "-m", "tools.ui"]
    with servers.started(command, port, tmp_path / "log", "/health", **options) as server:
        named = {"experiment_name": "frugalnet"}
        url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name"
        assert requests.get(url, params=named, timeout=30).ok
        for host, status in (("localhost", 200), ("evil.example", 403)):  # a page whose name leads here
            assert requests.get(f"http://127.0.0.1:{port}/", headers={"Host": host}, timeout=30).status_code == status
        workers = [" ".join(child.cmdline()) for child in psutil.Process(server.pid).children(recursive=True)]
        assert len([words for words in workers if "uvicorn" in words]) == 1
        assert not [words for words in workers if "huey" in words or "jobs" in words]
    assert f"http://127.0.0.1:{port}/#/experiments/1/runs" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("port", ["in use", "0", "65536", "5000x"])
def test_a_port_that_cannot_be_used_is_said_in_one_line(tmp_path, port):
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        said = f"ui: cannot listen on 127.0.0.1:{number} (address already in use); choose another port with PORT=…\n"
        if port != "in use":
            number, said = port, f"ui: PORT: expected a number from 1 to 65535, found '{port}'\n"
        command = [sys.executable, "-m", "tools.ui"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(number), capture_output=True, text=True, check=False
        )
    assert done.stderr == said
    assert done.returncode == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("odd", ["//u:pass@", "//u:pass/word@", "//u:pa?ss@", "//u@", "//", "u:pass@", "/u:pass@"])
@pytest.mark.parametrize("end", ["", "/", "?token=secret", "#token=secret", ";token=secret"])
def test_the_password_of_a_server_is_not_printed(odd, end):
    slashes = odd[: len(odd) - len(odd.lstrip("/"))]
    assert without_password(f"http:{odd}host:5000{end}") == f"http:{slashes}host:5000"


def test_a_database_that_does_not_answer_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^DATABASE_URL: the database does not answer: .*unable to open database file"):
        check_database(f"sqlite:///{tmp_path}/missing/mlflow.db")


@pytest.mark.parametrize("uri", [None, "sqlite:///{}/mlflow.db"])
def test_in_a_folder_without_runs_reading_the_registry_says_so_and_leaves_nothing(tmp_path, monkeypatch, uri):
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(tmp_path))
    for call in (
        lambda: registry.find_version(tmp_path, "champion"),
        lambda: registry.download(tmp_path, "run", tmp_path / "out"),
        lambda: registry.promote(tmp_path),
    ):
        with pytest.raises(UserError, match=r"mlflow\.db: no such file; nothing was logged here\. Call this in"):
            call()
    assert not list(tmp_path.iterdir())
