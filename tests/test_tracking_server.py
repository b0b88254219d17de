"""The team's server, a real process: the database's password, which it is given, is in no file that it leaves."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests
import servers

ROOT = Path(__file__).parents[1]
ADMIN, SECRET = "a-long-password-of-admin", "the-database's-own"
pytestmark = pytest.mark.skipif(
    not (find_spec("psycopg") and find_spec("flask_wtf") and sys.platform == "linux")
    and "TEST_REQUIRED" not in os.environ,
    reason="needs make install EXTRAS=team, and Linux",
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_runs_or_has_ended_leaves_no_file_with_the_password(tmp_path, number):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    port = servers.free_port()
    environment = os.environ | {
        "DATABASE_URL": f"sqlite:///{tmp_path}/{SECRET}.db",  # a name stands for the password
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret",
        "ARTIFACTS": str(tmp_path / "artifacts"),
        "PORT": str(port),
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT, os.environ.get("PYTHONPATH", "")))),
    }
    command = [sys.executable, "-m", "tools.tracking_server"]
    with servers.started(command, port, tmp_path / "log", "/health", cwd=tmp_path, env=environment) as server:
        users = f"http://127.0.0.1:{port}/api/2.0/mlflow/users/get?username=admin"
        assert requests.get(users, auth=("admin", ADMIN), timeout=30).ok
        assert requests.get(users, auth=("admin", "another"), timeout=30).status_code == 401
        assert files_with_the_password(temporary) == []
        assert_nobody_chooses_where_files_are(f"http://127.0.0.1:{port}", tmp_path / "elsewhere")
        server.send_signal(number)
        server.wait(60)
    assert files_with_the_password(temporary) == []


def assert_nobody_chooses_where_files_are(server: str, elsewhere: Path) -> None:
    """A path, which the server itself would write to and read from."""
    create = f"{server}/api/2.0/mlflow/experiments/create"
    alice = ("alice", "a-long-password-of-alice")
    user = {"username": alice[0], "password": alice[1]}
    assert requests.post(f"{server}/api/2.0/mlflow/users/create", json=user, auth=("admin", ADMIN), timeout=30).ok
    for key in ("artifact_location", "artifactLocation"):
        answer = requests.post(create, json={"name": key, key: str(elsewhere)}, auth=alice, timeout=30)
        assert answer.status_code == 400
        assert answer.text == "artifact_location: this server chooses where files are; leave it out"
    twice = json.dumps({"name": "twice", "artifact_location": str(elsewhere)})  # as MLflow takes it from old clients
    assert requests.post(create, json=twice, auth=alice, timeout=30).status_code == 400
    for name, asked in (("plain", {}), ("empty", {"artifact_location": ""})):  # as the page sends it
        assert requests.post(create, json={"name": name, **asked}, auth=alice, timeout=30).ok


def files_with_the_password(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_without_its_secrets_it_says_which_are_missing():
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT / "src", ROOT, os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-m", "tools.tracking_server"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("tracking-server: DATABASE_URL, ")


def test_a_database_that_cannot_be_reached_is_said_in_one_line_without_its_password():
    environment = os.environ | {
        "DATABASE_URL": f"postgresql+psycopg://mlflow:{SECRET}@127.0.0.1:9/mlflow",  # nobody listens
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT, os.environ.get("PYTHONPATH", "")))),
    }
    command = [sys.executable, "-m", "tools.tracking_server"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("tracking-server: DATABASE_URL: the database does not answer: ")
    assert "refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert SECRET not in done.stderr
