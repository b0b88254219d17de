"""A team at work, on real parts: PostgreSQL, MLflow's server with passwords, SSH and S3 servers, three clones.

The server is started by the command in compose.yaml. Debian's packages postgresql and openssh-server are needed.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import servers
from ruamel.yaml import YAML
from torture import clone

ROOT = Path(__file__).parents[1]
BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/missing"))
SSHD = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
SMALL = [
    *("data=sample", "train=demo", "train.epochs=2", "model=depthwise", "augment.views=1", "compute.threads=1"),
    *("measure.rounds=1", "measure.batch_size=32", "data.train_per_class=40"),
]
ADMIN, SECRET = "a-long-password-of-admin", "the-database's-own"
NEEDED = {
    "Debian's package postgresql": BIN.exists(),
    "Debian's package openssh-server": SSHD is not None,
    "root": os.geteuid() == 0,
    "make install EXTRAS=team": all(map(importlib.util.find_spec, ("psycopg", "dvc_ssh", "dvc_s3"))),
}
MISSING = ", ".join(what for what, is_there in NEEDED.items() if not is_there)
# `make team-test` fails where it cannot run
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING) and "TEST_REQUIRED" not in os.environ, reason=f"needs {MISSING}"),
]


class Database:
    """PostgreSQL, as its own user: it refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, servers.free_port()
        folder.mkdir()
        shutil.chown(folder, "postgres")
        (folder.parent / "secret").write_text(SECRET)
        self._run("initdb", "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={folder.parent / 'secret'}", "-D", "data")
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "mlflow")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://mlflow:{SECRET.replace(chr(39), '%27')}@127.0.0.1:{self.port}/mlflow"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-w", "-D", "data", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-D", "data", "-m", "fast", "stop")

    def _run(self, name: str, *words: str) -> None:
        command = ["runuser", "-u", "postgres", "--", "env", f"PGPASSWORD={SECRET}", str(BIN / name), *words]
        done = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


class Team:
    """The parts, and what its members do."""

    def __init__(self, folder: Path, database: Database, tracking: int, ssh: int) -> None:
        self.folder, self.database, self.tracking, self.ssh = folder, database, tracking, ssh
        self.url = f"http://127.0.0.1:{tracking}"

    def add(self, user: str) -> None:
        answer = requests.post(
            f"{self.url}/api/2.0/mlflow/users/create",
            json={"username": user, "password": self.password(user)},
            auth=("admin", ADMIN),
            timeout=30,
        )
        answer.raise_for_status()

    def password(self, user: str) -> str:
        return f"the-password-of-{user}"

    def environment(self, user: str, password: str | None = None) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "MLFLOW_", "DVC_"))}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "HOME": str(self.folder / user),
            "DVC_NO_ANALYTICS": "true",
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password or self.password(user),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that is down is given up within seconds
        }

    def run(self, user: str, *command: str, code: int = 0, password: str | None = None) -> str:
        """Run a command in a member's clone; all that it printed."""
        done = subprocess.run(
            command,
            cwd=self.folder / user / "frugalnet",
            env=self.environment(user, password),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def join(self, user: str) -> None:
        """A home with a key, a clone of the shared repository, and the way to the DVC remote."""
        home = self.folder / user
        home.mkdir()
        (home / ".gitconfig").write_text(
            f"[user]\nname = {user}\nemail = {user}@example.org\n[core]\nhooksPath = /dev/null\n"
        )
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / "key"], check=True)
        with (self.folder / "authorized_keys").open("a") as keys:
            keys.write((home / "key.pub").read_text())
        shared = self.folder / "shared.git"
        subprocess.run(["git", "clone", "-q", shared, home / "frugalnet"], check=True, env=self.environment(user))
        self.run(user, "dvc", "remote", "modify", "--local", "team", "keyfile", str(home / "key"))

    def runs(self) -> list[dict[str, Any]]:
        """All trainings on the server, as the administrator sees them."""
        answer = requests.post(
            f"{self.url}/api/2.0/mlflow/runs/search",
            json={"experiment_ids": self.experiments(), "filter": "tags.fingerprint != ''", "max_results": 100},
            auth=("admin", ADMIN),
            timeout=30,
        )
        answer.raise_for_status()
        return list(answer.json().get("runs", []))

    def experiments(self) -> list[str]:
        answer = requests.post(
            f"{self.url}/api/2.0/mlflow/experiments/search",
            json={"max_results": 100},
            auth=("admin", ADMIN),
            timeout=30,
        )
        return [one["experiment_id"] for one in answer.json()["experiments"]]


def experiment(name: str, *overrides: str) -> list[str]:
    sets = [word for override in (*SMALL, *overrides) for word in ("-S", override)]
    return ["dvc", "exp", "run", "--name", name, *sets]


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    """The servers run; `alice` has trained the small study and shared it; `bob` has cloned it."""
    if MISSING:
        pytest.fail(f"needs {MISSING}")
    folder = Path(tempfile.mkdtemp(prefix="frugalnet-team-"))  # pytest's own folders are closed to other users
    folder.chmod(0o711)
    database, tracking, ssh = Database(folder / "database"), servers.free_port(), servers.free_port()
    service = YAML(typ="safe").load(ROOT / "compose.yaml")["services"]["tracking"]
    server = [sys.executable if word == "python" else word for word in service["command"]]
    environment = os.environ | {
        "DATABASE_URL": database.url,
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret",
        "ARTIFACTS": str(folder / "artifacts"),
        "PORT": str(tracking),
        "MLFLOW_WORKERS": "1",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    }
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key"], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    settings = ["UsePAM no", "StrictModes no", "PidFile none", "Subsystem sftp internal-sftp"]
    (folder / "sshd_config").write_text("\n".join(settings) + "\n")
    (folder / "authorized_keys").touch()
    sshd = [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config"), "-h", str(folder / "host_key")]
    sshd += ["-p", str(ssh), "-o", "ListenAddress=127.0.0.1", "-o", f"AuthorizedKeysFile={folder / 'authorized_keys'}"]
    try:
        with (
            servers.started(sshd, ssh, folder / "sshd.log"),
            servers.started(server, tracking, folder / "tracking.log", cwd=folder, env=environment),
        ):
            members = Team(folder, database, tracking, ssh)
            first = clone(folder / "first")
            (folder / "storage").mkdir()
            for command in (
                ["dvc", "remote", "add", "--default", "team", f"ssh://root@127.0.0.1:{ssh}{folder / 'storage'}"],
                ["git", "add", ".dvc/config"],
                ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "A remote"],
            ):
                subprocess.run(command, cwd=first, check=True, env=members.environment("alice"))
            subprocess.run(["git", "clone", "-q", "--bare", first, folder / "shared.git"], check=True)
            for user in ("alice", "bob"):
                members.add(user)
            members.join("alice")
            members.run("alice", *experiment("first"))
            members.run("alice", "git", "add", "dvc.lock", "params.yaml")
            members.run("alice", "git", "commit", "-qm", "The small study")
            members.run("alice", "dvc", "push")
            members.run("alice", "git", "push", "-q")
            members.join("bob")
            yield members
    finally:
        database.stop()
        shutil.rmtree(folder)


def test_what_one_pushed_another_pulls_and_has_nothing_to_do(team):
    team.run("bob", "dvc", "pull")
    assert "Data and pipelines are up to date" in team.run("bob", "dvc", "repro")
    assert "Data and pipelines are up to date" in team.run("bob", "dvc", "status")


def test_a_remote_on_s3_serves_a_third_member_and_refuses_a_wrong_key(team):
    port, folder, (key, secret) = servers.free_port(), team.folder / "s3", ("the-key", "the-secret-key")
    (folder / "frugalnet").mkdir(parents=True)
    rclone = str(Path(sys.executable).with_name("rclone"))
    serve = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{key},{secret}", str(folder)]
    team.join("carol")
    with servers.started(serve, port, team.folder / "s3.log"):
        for user in ("alice", "carol"):
            team.run(user, "dvc", "remote", "add", "--local", "bucket", "s3://frugalnet")
            team.run(user, "dvc", "remote", "modify", "--local", "bucket", "endpointurl", f"http://127.0.0.1:{port}")
            team.run(user, "dvc", "remote", "modify", "--local", "bucket", "access_key_id", key)
            team.run(user, "dvc", "remote", "modify", "--local", "bucket", "secret_access_key", secret)
        team.run("alice", "dvc", "push", "--remote", "bucket", "--all-commits")
        team.run("carol", "dvc", "remote", "modify", "--local", "bucket", "secret_access_key", "another-secret")
        said = team.run("carol", "dvc", "pull", "--remote", "bucket", code=1)
        assert "Forbidden" in said
        assert "Traceback" not in said
        assert not (team.folder / "carol/frugalnet/models").exists()
        team.run("carol", "dvc", "remote", "modify", "--local", "bucket", "secret_access_key", secret)
        team.run("carol", "dvc", "pull", "--remote", "bucket")
    assert "Data and pipelines are up to date" in team.run("carol", "dvc", "repro")


def test_runs_of_both_stand_side_by_side_with_their_files_on_the_server(team):
    team.run("bob", "dvc", "pull")
    assert len(team.runs()) == 1
    team.run("bob", *experiment("faster", "train.learning_rate=0.2"))
    runs = team.runs()
    assert len(runs) == 2
    assert sorted(one["info"]["user_id"] for one in runs) == ["alice", "bob"]
    for one in runs:
        assert one["info"]["status"] == "FINISHED"
        assert one["info"]["artifact_uri"].startswith("mlflow-artifacts:/"), "through the server"
    assert list((team.folder / "artifacts").rglob("depthwise-0.safetensors"))


def test_a_wrong_password_is_said_in_one_line_and_costs_no_training(team):
    before = len(team.runs())
    said = team.run("alice", *experiment("refused", "train.learning_rate=0.3"), password="wrong-password")
    lines = [line for line in said.splitlines() if line.startswith("tracking: ")]
    assert len(lines) == 4, "train, evaluate, export and compare each say it once"
    assert "not authenticated" in lines[0]
    assert "Traceback" not in said
    assert (team.folder / "alice/frugalnet/models/depthwise-0.safetensors").is_file()
    assert len(team.runs()) == before
    # With the right password, evaluating again writes the whole run.
    team.run("alice", "dvc", "repro", "--force", "--single-item", "evaluate@depthwise-0")
    assert len(team.runs()) == before + 1


def test_a_database_that_is_stopped_in_mid_run_and_started_again_loses_nothing(team):
    home = team.folder / "bob/frugalnet"
    team.run("bob", "dvc", "pull", "--force")
    with subprocess.Popen(
        experiment("longer", "train.learning_rate=0.1", "train.epochs=12"),
        cwd=home,
        env=team.environment("bob"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("epoch 2/12"):
                team.database.stop()
            if line.startswith("epoch 6/12"):
                team.database.start()
    text = "".join(said)
    assert process.returncode == 0, text
    longest = max(team.runs(), key=lambda one: one["info"]["start_time"])
    figures = {metric["key"]: metric for metric in longest["data"]["metrics"]}
    assert longest["info"]["status"] == "FINISHED"
    assert figures["curves/validation_top1"]["step"] == 12
    answer = requests.get(
        f"{team.url}/api/2.0/mlflow/metrics/get-history",
        params={"run_id": longest["info"]["run_id"], "metric_key": "curves/train_loss"},
        auth=("admin", ADMIN),
        timeout=30,
    )
    assert [one["step"] for one in answer.json()["metrics"]] == [*range(1, 13)]
