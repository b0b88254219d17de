"""Trainings in parallel: on Ray where the extra is installed (`make cluster-test`), a node's part without it."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from disks import small_disk
from dvc.utils.hydra import compose_and_dump
from servers import free_port
from torture import clone, hashes

from frugalnet.cluster.items import TOKEN, Failed, Finished, Item, Job, Line, Refused, Stage
from frugalnet.cluster.node import run_item
from frugalnet.cluster.stages import Committer, Pipeline
from frugalnet.errors import UserError
from frugalnet.mlflow_store import connect
from frugalnet.run_cache import tell_of_lost_results
from frugalnet.sources import weights_sha256

ROOT = Path(__file__).parents[1]
NAMES = ("depthwise-0", "residual-0")
SMALL = [
    *("data=sample", "train=demo", "train.epochs=2", "data.train_per_class=40", "augment.views=1"),
    *("model.names=[depthwise,residual]", "compute.threads=1", "compute.checkpoint_minutes=1e-9"),
    *("robustness=none", "adapt=none"),
]
# `make cluster-test` fails where Ray is not installed
without_ray = not importlib.util.find_spec("ray") and "TEST_REQUIRED" not in os.environ
on_ray = pytest.mark.skipif(without_ray, reason="needs Ray: make install EXTRAS=cluster")


def variables(**more: str) -> dict[str, str]:
    own = ("GIT_", "MLFLOW_", "DVC_", "RAY_", "OMP_", "FRUGALNET_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": path, "DVC_NO_ANALYTICS": "true"} | more


def run(project: Path, *command: str, code: int = 0, **more: str) -> str:
    """Run a command in a project; all that it printed."""
    done = subprocess.run(
        command, cwd=project, env=variables(**more), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == code, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A project in which the stages before the trainings have run. Not to be changed."""
    folder = clone(tmp_path_factory.mktemp("prepared") / "project")
    compose_and_dump(folder / "params.yaml", str(ROOT / "conf"), None, "config", "", SMALL)
    run(folder, "dvc", "repro", "augment", "teach", "start")
    connect(folder)  # an empty database, which takes seconds to make
    del os.environ["MLFLOW_TRACKING_URI"]  # which mlflow sets
    return folder


@pytest.fixture
def project(prepared, tmp_path) -> Path:
    return copy(prepared, tmp_path / "project")


def copy(prepared: Path, folder: Path) -> Path:
    shutil.copytree(prepared, folder, symlinks=True)
    return folder


@pytest.fixture(scope="module")
def serial(prepared, tmp_path_factory) -> dict[str, str]:
    """The hashes of what `dvc repro` makes, one training after another."""
    folder = copy(prepared, tmp_path_factory.mktemp("serial") / "project")
    run(folder, "dvc", "repro", *(f"evaluate@{name}" for name in NAMES))
    return hashes(folder)


def training_runs(project: Path) -> list[Any]:
    client, experiment_id = connect(project)
    return client.search_runs([experiment_id], "tags.fingerprint != ''")


# A node's part, without Ray


COMPUTE = {
    "device": "cpu",
    "threads": 1,
    "processes": 1,
    "compile": "off",
    "deterministic": False,
    "checkpoint_minutes": 5.0,
    "records": "none",
}


def job(root: Path, **changes: Any) -> Job:
    files = {name: (root / name).read_bytes() for name in ("params.yaml", "dvc.yaml", "dvc.lock")}
    settings = {"root": root, "token": "here", "files": files, "remote": None, "variables": {}}
    settings["compute"] = json.dumps(COMPUTE)
    return Job(**(settings | changes))


def item(root: Path, name: str = NAMES[0]) -> Item:
    train = Stage(f"train@{name}", (f"models/{name}.safetensors",))
    sources = weights_sha256(name.partition("-")[0].partition("_x")[0], root / "src/frugalnet")
    return Item(name, (train,), sources, ("data/arrays", "data/views"), {})


@pytest.fixture
def stub(tmp_path) -> Path:
    """A project, shared with its node, whose stage `train` is what a test writes into it. No stage has run."""
    folder = clone(tmp_path / "project")
    compose_and_dump(folder / "params.yaml", str(ROOT / "conf"), None, "config", "", SMALL)
    (folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    (folder / TOKEN).parent.mkdir(parents=True, exist_ok=True)
    (folder / TOKEN).write_text("here")
    return folder


def test_a_node_reports_what_a_stage_prints_and_its_last_line_if_it_fails(stub):
    (stub / "pipeline/train.py").write_text("import os\nprint(os.environ['DVC_STAGE'])\nraise SystemExit('no luck')\n")
    events = list(run_item(job(stub), item(stub), None, is_known=True))
    assert events == [Line("train@depthwise-0"), Line("no luck"), Failed("train@depthwise-0", "no luck")]


def test_a_network_of_another_width_has_its_architectures_code(stub):
    (stub / "pipeline/train.py").write_text("import os\nprint(os.environ['DVC_STAGE'])\n")
    *_, line, finished = run_item(job(stub), item(stub, "depthwise_x0_5-0"), None, is_known=True)
    assert line == Line("train@depthwise_x0_5-0")
    assert isinstance(finished, Finished)


def test_what_a_node_shares_is_not_sent_and_the_commands_threads_and_server_are_the_stages(stub, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other")
    names = ("OMP_NUM_THREADS", "MLFLOW_TRACKING_URI", "DVC_ROOT")
    (stub / "pipeline/train.py").write_text(f"import os\nprint([os.environ.get(name) for name in {names}])\n")
    settings = {"OMP_NUM_THREADS": "2", "MLFLOW_TRACKING_URI": "http://server"}
    *_, line, finished = run_item(job(stub, variables=settings), item(stub), None, is_known=True)
    assert line == Line(str(["2", "http://server", str(stub)]))
    assert finished == Finished(item(stub).stages, {})


def test_a_stage_gets_a_signal_and_time_for_a_checkpoint_when_its_task_is_ended(stub, tmp_path):
    (stub / "pipeline/train.py").write_text(
        "import signal, sys, time\n"
        f"def end(*_): time.sleep(1); open({str(tmp_path / 'checkpoint')!r}, 'w'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    events = run_item(job(stub), item(stub), None, is_known=True)
    assert next(events) == Line("ready")
    events.close()  # what an interruption by Ray comes to
    assert (tmp_path / "checkpoint").exists()


def test_a_node_with_another_environment_or_other_code_is_refused_in_one_line(stub):
    (refused,) = run_item(job(stub), item(stub), {"torch": "1.0", "threads": 1})
    assert isinstance(refused, Refused)
    assert "torch: 2." in refused.reason
    assert "1.0 expected" in refused.reason
    assert "threads" not in refused.reason
    layers = stub / "src/frugalnet/models/layers.py"
    expected = item(stub)
    layers.write_text(layers.read_text().replace("x + self.block(x)", "x - self.block(x)"))
    (refused,) = run_item(job(stub), expected, None)
    assert refused.reason.endswith("for depthwise-0; check out the same commit")


# On Ray


class Nodes:
    """A cluster on this machine, of nodes with a core and a pretend GPU each, that listens on loopback only."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self.all: list[Any] = []

    def add(self, **more: str) -> Any:
        extra: dict[str, Any] = {"env_vars": more} if more else {}
        self.all.append(self.cluster.add_node(num_cpus=1, num_gpus=1, **extra))
        return self.all[-1]

    def train_all(self, project: Path, code: int = 0, **more: str) -> str:
        """Run the command to its end; all that it printed."""
        command = (sys.executable, "-m", "frugalnet.train_all")
        return run(project, *command, code=code, **self.variables, **more)

    @property
    def variables(self) -> dict[str, str]:
        return {"RAY_ADDRESS": self.cluster.address, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

    def start(self, project: Path) -> "subprocess.Popen[str]":
        return start(project, **self.variables)


def start(project: Path, **more: str) -> "subprocess.Popen[str]":
    """Start the command; what it prints is in said.txt."""
    with (project / "said.txt").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "frugalnet.train_all"],
            cwd=project,
            env=variables(**more),
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def nodes(monkeypatch) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    started = Nodes()
    try:
        yield started
    finally:
        started.cluster.shutdown()


def trainings(project: Path, stage: str = "train") -> list[psutil.Process]:
    """The stages `train`, or others, that run for a project."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        with contextlib.suppress(psutil.Error):
            if f"pipeline.{stage}" in (process.info["cmdline"] or []) and str(project) in (process.info["cwd"] or ""):
                found.append(process)
    return found


def wait_for(condition: Any, process: "subprocess.Popen[str] | None" = None, project: Path | None = None) -> Any:
    deadline = time.monotonic() + 300
    while not (met := condition()):
        assert process is None or process.poll() is None, (project / "said.txt").read_text() if project else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return met


def epochs(project: Path) -> set[str]:
    """The networks of which an epoch has ended and not yet the training."""
    logs = project.glob("logs/train_all/*.log")
    return {log.stem for log in logs if "epoch 1/" in (text := log.read_text()) and "top-5" not in text}


def listeners(process: psutil.Process) -> list[Any]:
    with contextlib.suppress(psutil.Error):
        return [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    return []


def said_by(process: "subprocess.Popen[str]", project: Path, code: int) -> str:
    process.wait(timeout=600)
    said = (project / "said.txt").read_text()
    assert process.returncode == code, said
    return said


def assert_as_serial(project: Path, serial: dict[str, str]) -> None:
    assert hashes(project) == serial
    said = run(project, "dvc", "repro", *(f"evaluate@{name}" for name in NAMES))
    assert "Running stage" not in said
    runs = training_runs(project)
    assert sorted(each.data.tags["dvc_stage"] for each in runs) == [f"train@{name}" for name in NAMES]
    assert {each.info.status for each in runs} == {"FINISHED"}
    assert all(each.data.tags["node"] for each in runs)
    assert all(each.data.metrics["final/top1"] > 0 for each in runs)


@on_ray
def test_trainings_on_two_nodes_are_those_of_a_serial_run_in_one_mlflow_run_each(project, nodes, serial):
    nodes.add()
    nodes.add()
    nodes.train_all(project)
    assert_as_serial(project, serial)
    assert "nothing to do" in nodes.train_all(project)
    assert not list((project / ".checkpoints").rglob("*.ckpt"))


@on_ray
@pytest.mark.slow
def test_a_worker_that_is_killed_and_a_node_that_is_removed_cost_only_what_follows_their_checkpoints(
    project, nodes, serial
):
    nodes.add()
    nodes.add()
    command = nodes.start(project)
    wait_for(lambda: epochs(project), command, project)
    (training, *_) = wait_for(lambda: trainings(project), command, project)
    training.parent().kill()  # Ray's worker
    wait_for(lambda: "was lost" in (project / "said.txt").read_text(), command, project)
    wait_for(lambda: trainings(project), command, project)
    nodes.cluster.remove_node(nodes.all[1], allow_graceful=False)
    said = said_by(command, project, 0)
    assert said.count("was lost") >= 1
    assert "raylet" not in said
    logs = "".join(log.read_text() for log in (project / "logs/train_all").glob("*.log"))
    assert "resuming from the checkpoint" in logs
    assert_as_serial(project, serial)
    assert trainings(project) == []


@on_ray
@pytest.mark.slow
def test_an_item_that_fails_is_named_with_its_log_the_others_finish_and_later_it_alone_runs(project, nodes, serial):
    obstacle = project / "models/residual-0.safetensors/file"
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    nodes.add()
    nodes.add()
    said = nodes.train_all(project, code=1)
    assert "residual-0: train@residual-0 failed: train: Is a directory: " in said
    assert "log: logs/train_all/residual-0.log" in said
    assert "Traceback" not in said
    assert "train@depthwise-0" in (project / "dvc.lock").read_text()
    shutil.rmtree(obstacle.parent)
    again = nodes.train_all(project)
    assert "1 of 2 on " in again
    assert "depthwise-0" not in again
    assert_as_serial(project, serial)


@on_ray
@pytest.mark.slow
def test_a_node_with_other_code_is_left_out_and_the_others_do_its_work(project, tmp_path, nodes, serial):
    other = clone(tmp_path / "other")
    layers = other / "src/frugalnet/models/layers.py"
    layers.write_text(layers.read_text().replace("x + self.block(x)", "x - self.block(x)"))
    nodes.add(FRUGALNET_PROJECT=str(other))
    nodes.add()
    said = nodes.train_all(project)
    assert said.count(" is not used: ") == 1
    assert "other code than where the command runs" in said
    assert_as_serial(project, serial)


@on_ray
@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_commands_end_leaves_checkpoints_and_nothing_running(project, serial, sent):
    command = start(project)
    wait_for(lambda: epochs(project) and trainings(project), command, project)
    below = psutil.Process(command.pid).children(recursive=True)
    listening = {address.laddr.ip for process in below for address in listeners(process)}
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert listening
    command.send_signal(sent)
    said = said_by(command, project, -sent if sent == signal.SIGKILL else 128 + sent)
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(below, timeout=120)  # killed, the command waits for nobody
    assert [process.name() for process in alive] == []
    assert list(project.glob(".checkpoints/train/*/*.ckpt"))
    again = run(project, sys.executable, "-m", "frugalnet.train_all")
    assert "all 2 are trained and evaluated" in again
    assert hashes(project) == serial


@on_ray
@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_trainings_ends_dvc_and_what_it_runs(project, sent):
    params = [*SMALL, "augment.views=60"]  # which are not there
    compose_and_dump(project / "params.yaml", str(ROOT / "conf"), None, "config", "", params)
    command = start(project)
    wait_for(lambda: trainings(project, "augment"), command, project)
    below = psutil.Process(command.pid).children(recursive=True)
    assert "pipeline.augment" in str([process.cmdline() for process in below])
    command.send_signal(sent)
    said = said_by(command, project, 128 + sent)
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(below, timeout=60)
    assert [process.name() for process in alive] == []
    assert trainings(project, "augment") == []


@on_ray
@pytest.mark.slow
def test_a_full_disk_and_a_lost_mlflow_server_are_those_of_a_serial_run(project, nodes, serial):
    nodes.add()
    nodes.add()
    lost = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    with small_disk(project / "models", 4):
        said = nodes.train_all(project, code=1, **lost)
    assert "Traceback" not in said
    for name in NAMES:
        assert f"{name}: train@{name} failed: train: No space left on device: " in said
    said = nodes.train_all(project, **lost)
    assert {line.split()[1] for line in said.splitlines() if line.startswith("tracking: ")} == {"depthwise", "residual"}
    assert "resuming from the checkpoint" in (project / f"logs/train_all/{NAMES[0]}.log").read_text()
    assert hashes(project) == serial


@on_ray
@pytest.mark.slow
@pytest.mark.parametrize("storage", ["shared", "remote"])
def test_nodes_with_a_clone_of_their_own_get_data_from_a_shared_cache_or_a_remote(
    prepared, tmp_path, nodes, serial, storage
):
    project = copy(prepared, tmp_path / "project")
    clones = [clone(tmp_path / name) for name in ("first", "second")]
    more = {}
    if storage == "shared":
        more["FRUGALNET_CHECKPOINTS"] = str(tmp_path / "checkpoints")
        for folder in clones:
            run(folder, "dvc", "cache", "dir", "--local", str(project / ".dvc/cache"))
    else:
        for folder in (project, *clones):
            run(folder, "dvc", "remote", "add", "--local", "store", str(tmp_path / "store"))
        params = [*SMALL, "cluster.remote=store"]
        compose_and_dump(project / "params.yaml", str(ROOT / "conf"), None, "config", "", params)
    for folder in clones:
        nodes.add(FRUGALNET_PROJECT=str(folder), **more)
    nodes.train_all(project)
    weights = [f"models/{name}.safetensors" for name in NAMES]
    assert {name: hashes(project)[name] for name in weights} == {name: serial[name] for name in weights}
    run(project, "dvc", "repro", *(f"evaluate@{name}" for name in NAMES))
    assert_as_serial(project, serial)
    if storage == "remote":
        third = clone(tmp_path / "third")
        for name in ("dvc.lock", "params.yaml"):
            shutil.copy(project / name, third / name)
        run(third, "dvc", "remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
        assert "Running stage" not in run(third, "dvc", "repro", "--pull", *(f"train@{name}" for name in NAMES))


TIMING = "results/train/depthwise-0/timing.json"
OUTS = (
    "models/depthwise-0.safetensors",
    *(f"results/train/depthwise-0/{name}" for name in ("history.csv", "run.json")),
)


def train_stub(project: Path, seconds: str) -> None:
    """Commit results of train@depthwise-0 that took so long; neither they nor their entry in dvc.lock stay."""
    lock = (project / "dvc.lock").read_bytes()
    for path in Pipeline(project, None).needs("train@depthwise-0"):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(path)
    for path, content in {**dict.fromkeys(OUTS, "the same each time"), TIMING: seconds}.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(content)
    Pipeline(project, None).commit("train@depthwise-0")
    (project / "dvc.lock").write_bytes(lock)
    for path in (*OUTS, TIMING):
        (project / path).unlink()


def lose(project: Path, content: str) -> None:
    """Remove the files with this content from DVC's cache."""
    for path in (project / ".dvc/cache/files/md5").glob("*/*"):
        if path.is_file() and path.read_bytes() == content.encode():
            path.unlink()


def test_of_several_results_of_one_training_a_whole_one_is_restored_and_a_loss_is_said(stub, capsys, monkeypatch):
    monkeypatch.chdir(stub)
    lock = (stub / "dvc.lock").read_bytes()
    train_stub(stub, "1")
    train_stub(stub, "2")
    lose(stub, "2")  # the newest
    assert Pipeline(stub, None).is_done("train@depthwise-0")
    assert (stub / TIMING).read_text() == "1"
    assert {(stub / path).read_text() for path in OUTS} == {"the same each time"}
    (stub / "dvc.lock").write_bytes(lock)
    tell_of_lost_results("train@depthwise-0")
    assert "DVC's run cache" not in capsys.readouterr().err  # a forced rerun
    (stub / TIMING).unlink()
    lose(stub, "1")
    for stage in ("train@depthwise-0", "train@wise-0", "train@residual-0", "evaluate@depthwise-0"):
        tell_of_lost_results(stage)
    said = capsys.readouterr().err
    assert said.startswith("train@depthwise-0: DVC's run cache lists results of this stage and these inputs (2), but")
    assert said.count("DVC's run cache") == 1
    assert not Pipeline(stub, None).is_done("train@depthwise-0")
    assert "train@depthwise-0: DVC's run cache lists results whose files are missing" in capsys.readouterr().err
    for entry in (stub / ".dvc/cache/runs").glob("??/*/[!.]*"):
        before, outs, after = entry.read_text().partition("outs:")
        entry.write_text(f"{before}{outs}{after.replace('md5:', 'etag:')}")  # as another version of DVC might
    tell_of_lost_results("train@depthwise-0")
    assert capsys.readouterr().err == ""


def test_what_was_trained_before_an_edit_is_refused_and_what_a_clone_sends_is_committed(stub, monkeypatch):
    monkeypatch.chdir(stub)
    train = Stage("train@depthwise-0", (*OUTS, TIMING))
    trained = Item("depthwise-0", (train,), "", (), {})
    finished = Finished((train,), dict.fromkeys(train.outs, b"sent"))
    train_stub(stub, "1")  # what it reads is there
    committer = Committer(Pipeline(stub, None), [trained])
    params = (stub / "params.yaml").read_text()
    (stub / "params.yaml").write_text(params.replace("epochs: 2", "epochs: 3"))
    with pytest.raises(UserError, match=r"^train@depthwise-0 was run, but its parameters or data have changed mean"):
        committer(trained, finished)
    assert not (stub / TIMING).exists()
    (stub / "params.yaml").write_text(params)
    committer(trained, finished)
    assert {(stub / path).read_bytes() for path in train.outs} == {b"sent"}
    assert not Pipeline(stub, None).repo.status(["train@depthwise-0"])


@pytest.mark.slow
def test_dvc_repro_says_that_results_are_lost_before_it_trains_again(project):
    lock = (project / "dvc.lock").read_bytes()
    command = ("dvc", "repro", "train@depthwise-0")
    lost = "train@depthwise-0: DVC's run cache lists results of this stage and these inputs (1), but"
    assert lost not in run(project, *command)
    lose(project, (project / TIMING).read_text())
    (project / TIMING).unlink()
    (project / "dvc.lock").write_bytes(lock)
    said = run(project, *command)
    assert "Running stage 'train@depthwise-0'" in said
    assert lost in said


def test_results_come_from_the_remote_that_is_named_and_one_that_fails_is_said_in_one_line(stub, tmp_path, monkeypatch):
    monkeypatch.chdir(stub)
    (stub / ".dvc/config.local").write_text(f"['remote \"store\"']\n    url = {tmp_path / 'store'}\n")  # not default
    lock = (stub / "dvc.lock").read_bytes()
    train_stub(stub, "1")
    assert Pipeline(stub, None).is_done("train@depthwise-0")
    recorded = (stub / "dvc.lock").read_bytes()
    Pipeline(stub, "store").push(["train@depthwise-0"])
    for present in (recorded, lock):  # what dvc.lock names, then what the run cache does
        (stub / "dvc.lock").write_bytes(present)
        (stub / TIMING).unlink()
        lose(stub, "1")
        assert Pipeline(stub, "store").is_done("train@depthwise-0")
        assert (stub / TIMING).read_text() == "1"
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").touch()  # no folder
    with pytest.raises(UserError, match=r"^cluster.remote: 'store' could not be pushed to \("):
        Pipeline(stub, "store").push(["train@depthwise-0"])


@pytest.fixture
def started(tmp_path) -> Iterator[dict[str, str]]:
    """Two nodes, started as docs/cluster.md says, but on loopback; the variables for the command."""
    shared = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    run(tmp_path, "ray", "get-auth-token", "--generate", **shared)
    address = f"127.0.0.1:{free_port()}"
    size = ("--num-cpus=1", "--node-ip-address=127.0.0.1", "--block")
    head = ("ray", "start", "--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false", *size)
    processes = []
    try:
        for command in (head, ("ray", "start", f"--address={address}", *size)):
            with (tmp_path / "ray.log").open("a") as log:
                processes.append(subprocess.Popen(command, env=variables(**shared), stdout=log, stderr=log))
            wait_for(lambda: (tmp_path / "ray.log").read_text().count("Ray runtime started.") == len(processes))
        yield shared | {"RAY_ADDRESS": address}
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=120)


@on_ray
@pytest.mark.slow
def test_a_cluster_that_is_started_as_documented_trains_and_one_without_its_token_is_said(project, serial, started):
    command = (sys.executable, "-m", "frugalnet.train_all")
    missing = run(project, *command, code=1, **{key: value for key, value in started.items() if "AUTH" not in key})
    assert missing.splitlines()[-1].startswith(f"train_all: no Ray cluster at {started['RAY_ADDRESS']} (RAY_ADDRESS): ")
    assert missing.endswith("; set RAY_AUTH_MODE=token if it asks for a token\n")
    run(project, *command, **started)
    assert_as_serial(project, serial)


SBATCH = """#!/bin/bash
for word in "$@"; do
    case $word in --array=1-*) last=${word#--array=1-};; esac
    command=$word
done
for task in $(seq "$last"); do SLURM_ARRAY_TASK_ID=$task bash -c "$command" & done
wait
"""


@pytest.mark.slow
def test_the_line_for_slurm_trains_every_item_at_once_and_each_is_committed(stub, tmp_path, monkeypatch):
    monkeypatch.chdir(stub)
    pipeline = Pipeline(stub, None)
    for path in pipeline.needs("train@depthwise-0") + pipeline.needs("train@residual-0"):
        (stub / path).parent.mkdir(parents=True, exist_ok=True)
        (stub / path).write_text(path)
    (stub / "pipeline/train.py").write_text(
        "import os\nfrom pathlib import Path\nname = os.environ['DVC_STAGE'].partition('@')[2]\n"
        "names = [f'results/train/{name}/{each}' for each in ('history.csv', 'run.json', 'timing.json')]\n"
        "for path in map(Path, [f'models/{name}.safetensors', *names]):\n"
        "    path.parent.mkdir(parents=True, exist_ok=True)\n    path.write_text(name)\n"
    )
    sbatch = tmp_path / "bin/sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(SBATCH)
    sbatch.chmod(0o755)
    documented = (ROOT / "docs/cluster.md").read_text().splitlines()
    (line,) = [line for line in documented if line.startswith("    ") and "sbatch --array" in line]
    path = f"{sbatch.parent}{os.pathsep}{variables()['PATH']}"
    run(stub, "bash", "-c", line, PATH=path)
    assert {stage for stage in (stub / "dvc.lock").read_text().split() if stage.startswith("train@")} == {
        f"train@{name}:" for name in NAMES
    }
    pipeline = Pipeline(stub, None)
    assert all(pipeline.is_done(f"train@{name}") for name in NAMES)
