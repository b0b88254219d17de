"""What a node does with an item: it runs the item's stages as processes and reports what they print."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from frugalnet.cluster.items import (
    Accepted,
    Event,
    Failed,
    Finished,
    Item,
    Job,
    Line,
    Placed,
    Refusal,
    Refused,
    differences,
)
from frugalnet.cluster.workspace import is_own, open_workspace
from frugalnet.errors import UserError, printable

_STOP_SECONDS = 60  # in which a stage that was asked to end has to write its checkpoint


def run_task(job: Job, item: Item, expected: Mapping[str, Any] | None, known: Container[str]) -> Iterator[Event]:
    """`run_item` as a task of Ray. known: the ids of nodes whose environment is the expected one."""
    import ray

    node_id = ray.get_runtime_context().get_node_id()
    yield Placed(node_id, socket.gethostname())
    yield from run_item(job, item, expected, is_known=node_id in known)


def run_item(job: Job, item: Item, expected: Mapping[str, Any] | None, is_known: bool = False) -> Iterator[Event]:
    """Run the item's stages; see Event for what is reported.

    expected: what the bits depend on where other items run; None: this is the first.
    """
    try:
        workspace = open_workspace(job, item)
        if not is_known:
            environment = _environment(job, workspace)
            if expected and (other := differences(expected, environment)):
                raise Refusal(f"its bits would be others than the first node's: {other}")
            yield Accepted(environment)
    except (Refusal, UserError, OSError) as reason:
        yield Refused(str(reason))
        return
    own = is_own(job, workspace)
    # Without a server, MLflow's runs are where the command runs: there, `dvc repro` evaluates and logs them.
    evaluates = not own or _has_server(job)
    stages = tuple(stage for stage in item.stages if evaluates or stage.name.startswith("train@"))
    for stage in stages:
        last = "no output"
        process = _start(job, workspace, stage.name)
        try:
            for text in _lines(process):
                last = text or last
                yield Line(text)
            process.wait()
        finally:
            _end(process)
        if process.returncode:
            yield Failed(stage.name, last)
            return
    names = [name for stage in stages for name in stage.outs] if own else []
    yield Finished(stages, {name: (workspace / name).read_bytes() for name in names})


def _has_server(job: Job) -> bool:
    """Whether nodes with a clone of their own can log to MLflow."""
    return not job.variables.get("MLFLOW_TRACKING_URI", "sqlite:").startswith("sqlite:")


def _variables(job: Job, workspace: Path, stage: str) -> dict[str, str]:
    """A stage's environment: this node's, with the command's settings in place of its own."""
    own = ("OMP_NUM_THREADS", "MLFLOW_TRACKING", "DVC_", "RAY_", "GIT_")  # Ray sets the first one for its tasks
    here = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    path = os.pathsep.join([str(Path(sys.executable).parent), here.get("PATH", "")])
    source = {"PYTHONPATH": str(workspace / "src")}  # not the installed package: the project's
    names = {"DVC_ROOT": str(workspace), "DVC_STAGE": stage, "FRUGALNET_NODE": socket.gethostname()}
    if is_own(job, workspace):  # kept where a later command, with another folder, finds them
        kept = workspace.parents[3] / ".checkpoints"
        names["FRUGALNET_CHECKPOINTS"] = here.get("FRUGALNET_CHECKPOINTS") or str(kept)
        if not _has_server(job):
            names["FRUGALNET_TRACKING"] = "off"
    return here | {"PATH": path} | source | names | dict(job.variables)


def _start(job: Job, workspace: Path, stage: str) -> "subprocess.Popen[str]":
    """Start a stage. It ends with this process, as it does with DVC's."""
    return subprocess.Popen(
        [sys.executable, "-m", f"pipeline.{stage.partition('@')[0]}"],
        cwd=workspace,
        env=_variables(job, workspace, stage),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a terminal's Ctrl-C reaches the command alone, which then ends all in order
    )


def _lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    """What the process prints, line by line. Returns often to Python, so that Ray can interrupt the wait."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(printable(line.rstrip("\n")))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=0.2)
        except queue.Empty:
            continue
        if line is None:
            return
        yield line


def _end(process: "subprocess.Popen[str]") -> None:
    """Have a process that still runs write its checkpoint and end."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(job: Job, workspace: Path) -> dict[str, Any]:
    """`compute.bits_depend_on` of a process like the stages."""
    done = subprocess.run(
        [sys.executable, "-m", "frugalnet.cluster.environment", job.compute],
        cwd=workspace,
        env=_variables(job, workspace, "train"),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise Refusal(printable((done.stderr.strip() or "no output").splitlines()[-1]))
    environment: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return environment
