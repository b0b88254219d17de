"""Crash test of the whole pipeline: python -m tests.torture FOLDER [--rounds 50] [--seed 0].

Each round discards the results from a random stage on, starts `dvc repro` (sometimes twice at once, sometimes on a full
or read-only disk), and at a random moment of that stage sends a random signal to a random victim: the stage, one of its
workers, DVC, or all of them. Nothing may be left running. Then `dvc repro` must end well, with the hashes of the
uninterrupted run for every output that holds no time.

A round is a function of the seed and its number. FOLDER keeps the project and the finished rounds: the same command
resumes there.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from dvc.utils.hydra import compose_and_dump
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
SMALL = [
    *("data=sample", "train=demo", "train.epochs=2", "model=depthwise", "augment.views=2", "data.train_per_class=40"),
    *("robustness=demo", "adapt=demo"),
    *("measure.rounds=2", "measure.batch_size=32", "compute.threads=1", "compute.checkpoint_minutes=1e-9"),
]
STAGES = (
    *("download", "normalise", "augment", "teach", "train@depthwise-0", "measure", "evaluate@depthwise-0"),
    *("export@depthwise-0", "robustness", "adapt@depthwise-seen", "compare"),
)
HOLDS_TIME = {"timing.json", "cost.json", "compare", "summary.json"}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
VICTIMS = ("stage", "worker", "dvc", "all")
END_SECONDS = 60  # after DVC's end, in which its stages must end: they write a checkpoint, and tell MLflow


def clone(folder: Path) -> Path:
    """Copy the project as it stands into `folder`, committed in a repository of its own; no run is in its dvc.lock."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    settings = ["user.name=test", "user.email=test@example.org", f"core.hooksPath={os.devnull}", "core.compression=0"]
    configured = [word for setting in settings for word in ("-c", setting)]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "the project"]):
        subprocess.run(["git", *configured, *command], cwd=folder, check=True)
    return folder


def repro(project: Path, log: Path, targets: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
    """Start `dvc repro` in a session of its own; its output goes to a file, which no process that lives on holds up."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "MLFLOW_", "DVC_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with log.open("wb") as output:
        return subprocess.Popen(
            ["dvc", "repro", *targets],
            cwd=project,
            env=environment | {"DVC_NO_ANALYTICS": "true"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def hashes(project: Path, stages: Sequence[str] | None = None) -> dict[str, str]:
    """What dvc.lock records of every output, of these stages or of all, that holds no time."""
    lock = YAML(typ="safe").load(project / "dvc.lock")
    outputs = [
        output for name, stage in lock["stages"].items() if name in (stages or [name]) for output in stage["outs"]
    ]
    return {output["path"]: output["md5"] for output in outputs if Path(output["path"]).name not in HOLDS_TIME}


def discard(project: Path, stage: str) -> None:
    """Remove the results of a stage and of all later ones, and DVC's memory of how they were made."""
    lock_path = project / "dvc.lock"
    lock = YAML(typ="safe").load(lock_path) if lock_path.exists() else {"stages": {}}
    for name in STAGES[STAGES.index(stage) :]:
        for output in lock["stages"].pop(name, {"outs": []})["outs"]:
            path = project / output["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if lock["stages"]:
        YAML().dump(lock, lock_path)
    else:
        lock_path.unlink(missing_ok=True)
    for folder in (".dvc/cache/runs", ".checkpoints"):
        shutil.rmtree(project / folder, ignore_errors=True)


@contextlib.contextmanager
def bad_disk(project: Path, kind: str | None) -> Iterator[bool]:
    """A full or read-only disk for checkpoints and downloads, if this user may mount one; whether there is one."""
    folder = project / ".checkpoints"
    if kind is None:
        yield False
        return
    folder.mkdir(exist_ok=True)
    options = "size=8k" if kind == "full" else "size=1m,ro"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)


def strike(dvc: psutil.Process, victim: str, sent: signal.Signals) -> bool:
    """Send a signal to the victim among a running DVC's processes, or to the next best; whether there was one."""
    with contextlib.suppress(psutil.NoSuchProcess):
        below = dvc.children(recursive=True)
        stages = [one for one in below if "pipeline." in " ".join(one.cmdline()[:4])]
        # Python's resource tracker, killed alone, is replaced by one that prints tracebacks (docs/reliability.md).
        others = [one for one in below if one.name() != "sh" and "resource_tracker" not in " ".join(one.cmdline())]
        workers = [one for one in others if stages and one.pid not in {stage.pid for stage in stages}]
        stage = stages[-1:] or [dvc]  # between two stages, and where a stage has no worker
        chosen = {"dvc": [dvc], "all": [*below, dvc], "stage": stage, "worker": workers[-1:] or stage}[victim]
        for process in chosen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(sent)
        return bool(chosen)
    return False


@dataclass(frozen=True)
class Plan:
    """One round: whom a signal strikes, and when, in seconds after the stage has begun."""

    stage: str
    victim: str
    signal: str
    delay: float
    disk: str | None = None
    twin: bool = False  # two `dvc repro` at once
    trained: bool = False  # the delay begins with the first checkpoint


def draw(seed: int, number: int, whole: "Whole") -> Plan:
    """The plan of a round. Of as many rounds as there are stages, each stage has one."""
    turn, position = divmod(number, len(STAGES))
    stage = random.Random(f"{seed}-turn-{turn}").sample(STAGES, len(STAGES))[position]
    chance = random.Random(f"{seed}-{number}")
    victim, sent = chance.choice(VICTIMS), chance.choice(SIGNALS).name
    delay, disk = chance.uniform(0, whole.seconds[stage]), chance.choice([None] * 8 + ["full", "read-only"])
    twin, trained = chance.random() < 0.2, stage.startswith("train") and chance.random() < 0.8
    return Plan(stage, victim, sent, delay / 4 if trained else delay, disk, twin, trained)


def play(project: Path, plan: Plan, whole: "Whole", targets: Sequence[str] = ()) -> dict[str, Any]:
    """Play one round. Returns its plan, the stage that was struck, if any, and as `failure` what is wrong.

    targets: the stages that are run, with what they need; none means all.
    """
    done = asdict(plan) | {"struck": None, "checkpoints": 0, "dvc_lock_damaged": False}
    discard(project, plan.stage)
    logs = [project.parent / f"{project.name}.{name}.log" for name in ("first", "second", "last")]
    with bad_disk(project, plan.disk) as done["bad_disk"]:
        started = list(zip(logs, [repro(project, log, targets) for log in logs[: 1 + plan.twin]], strict=False))
        at_work: list[tuple[Path, subprocess.Popen[bytes]]] = []
        while not at_work and any(dvc.poll() is None for _, dvc in started):
            time.sleep(0.02)
            at_work = [(log, dvc) for log, dvc in started if plan.stage in stages_begun(log)]
            if plan.trained and at_work and stages_begun(at_work[0][0])[-1] == plan.stage and not checkpoints(project):
                at_work = []
        time.sleep(plan.delay)
        family: list[psutil.Process] = []
        for log, dvc in at_work[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(dvc.pid)
                family = root.children(recursive=True)
                if dvc.poll() is None and strike(root, plan.victim, signal.Signals[plan.signal]):
                    done["struck"] = stages_begun(log)[-1]
                    done["checkpoints"] = len(checkpoints(project))
        for _, dvc in started:
            dvc.wait()
        left = still_running(family)
    last = repro(project, logs[2], targets).wait()
    # DVC writes this file in place: killed at that moment, it leaves it empty and refuses to run (docs/reliability.md).
    if last and "Unable to read RWLock-file" in logs[2].read_text():
        done["dvc_lock_damaged"] = True
        (project / ".dvc/tmp/rwlock").unlink()
        last = repro(project, logs[2], targets).wait()
    said = "".join(log.read_text() for log in logs if log.exists())
    found = hashes(project) if last == 0 else {}
    if left:
        done["failure"] = f"still running {END_SECONDS} s after DVC's end: {left}"
    elif "Traceback" in said:
        done["failure"] = f"a traceback: {said[said.index('Traceback') :][:3000]}"
    elif last:
        done["failure"] = f"dvc repro ended with {last}: {logs[2].read_text()[-1500:]}"
    elif found != whole.hashes:
        other = sorted(path for path in found | whole.hashes if found.get(path) != whole.hashes.get(path))
        done["failure"] = f"other hashes: {other}"
    for log in logs:
        log.unlink(missing_ok=True)
    return done


def checkpoints(project: Path) -> list[Path]:
    return list(project.glob(".checkpoints/train/*/*.ckpt"))


def stages_begun(log: Path) -> list[str]:
    return [line.split("'")[1] for line in log.read_text().splitlines() if line.startswith("Running stage '")]


def running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def still_running(family: list[psutil.Process]) -> list[int]:
    """The processes that DVC's end does not end in END_SECONDS; they are killed."""
    deadline = time.monotonic() + END_SECONDS
    while any(map(running, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [process for process in family if running(process)]
    for process in left:
        process.kill()
    return [process.pid for process in left]


@dataclass(frozen=True)
class Whole:
    """The uninterrupted run: the hashes of its outputs, and the seconds that each stage took."""

    hashes: dict[str, str]
    seconds: dict[str, float]


def prepare(folder: Path) -> tuple[Path, Whole]:
    """The project in `folder`, in which the pipeline has run without interruption."""
    project, known = folder / "project", folder / "uninterrupted.json"
    if not known.exists():
        shutil.rmtree(project, ignore_errors=True)
        compose_and_dump(clone(project) / "params.yaml", str(ROOT / "conf"), None, "config", "", SMALL)
        known.write_text(json.dumps(asdict(run_whole(project))))
    return project, Whole(**json.loads(known.read_text()))


def run_whole(project: Path) -> Whole:
    """Run the pipeline to its end."""
    log, started = project.with_name("uninterrupted.log"), dict[str, float]()
    process = repro(project, log)
    while process.poll() is None:
        for stage in stages_begun(log):
            started.setdefault(stage, time.monotonic())
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"the uninterrupted run failed:\n{log.read_text()}")
    ends = [*started.values(), time.monotonic()][1:]
    return Whole(hashes(project), {name: end - began for (name, began), end in zip(started.items(), ends, strict=True)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    project, whole = prepare(arguments.folder)
    log = arguments.folder / f"rounds-{arguments.seed}.jsonl"
    rounds = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for number in range(len(rounds), arguments.rounds):
        rounds.append({"round": number, **play(project, draw(arguments.seed, number, whole), whole)})
        with log.open("a") as file:
            file.write(json.dumps(rounds[-1]) + "\n")
        print(" ".join(f"{key}={value}" for key, value in rounds[-1].items() if value is not None), flush=True)
    struck = collections.Counter(played["struck"] for played in rounds if played["struck"])
    failures = sum("failure" in played for played in rounds)
    facts = (
        f"{len(rounds)} rounds",
        f"{struck.total()} struck ({', '.join(f'{stage} {n}' for stage, n in struck.items())})",
        f"{sum(bool(played['checkpoints']) for played in rounds)} with a checkpoint to resume from",
        f"{sum(played['twin'] for played in rounds)} with two dvc at once",
        f"{sum(played['bad_disk'] for played in rounds)} on a bad disk",
        f"{sum(played['dvc_lock_damaged'] for played in rounds)} in which DVC damaged its lock file",
        f"{failures} failures",
    )
    print(", ".join(facts))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
