"""Where worker processes cannot work, a stage says so in one line. In namespaces and control groups of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
POOL = """
import multiprocessing
from frugalnet.stage import run_stage
from frugalnet.processes import init_worker, starting_workers, worker_pool

def main() -> None:
    with worker_pool(2, multiprocessing.get_context("spawn"), init_worker) as pool, starting_workers():
        print(pool.submit(int).result())

if __name__ == "__main__":
    run_stage(main)
"""
TORCHRUN = """
from frugalnet.stage import run_stage

def main() -> None:
    from frugalnet.distributed.config import LaunchConfig
    from frugalnet.distributed.launch import start

    start(2, LaunchConfig(backend="auto", timeout_minutes=1, restarts=0), print)

if __name__ == "__main__":
    run_stage(main)
"""


def run(folder: Path, stage: str, *before: str) -> subprocess.CompletedProcess[str]:
    """Run a stage by a command that begins with these words."""
    (folder / "stage.py").write_text(stage)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    words = [*before, sys.executable, str(folder / "stage.py")]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("stage", "options", "reason"),
    [
        (POOL, "ro", "Read-only file system"),
        (POOL, "nr_inodes=1", "No space left on device"),
        (TORCHRUN, "ro", "Read-only file system"),
    ],
    ids=["pool", "full", "torchrun"],
)
def test_a_dev_shm_that_cannot_be_used_is_said_in_one_line(tmp_path, stage, options, reason):
    mount = f'mount -t tmpfs -o {options} none /dev/shm && exec "$@"'
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount, "sh", "true"], check=False).returncode:
        pytest.skip("no mounts of its own here")
    done = run(tmp_path, stage, "unshare", "--mount", "sh", "-c", mount, "sh")
    assert done.returncode == 1
    assert done.stderr.startswith(f"stage: /dev/shm cannot be used ({reason}), and 2 worker processes need it; ")
    assert len(done.stderr.splitlines()) == 1


@contextmanager
def group_of(processes: int) -> Iterator[Path]:
    """A control group of at most so many processes and threads; skips the test where none can be made."""
    mounted = Path("/sys/fs/cgroup")
    group = (mounted / "pids" if (mounted / "pids").is_dir() else mounted) / f"frugalnet-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "pids.max").write_text(str(processes))
    except OSError as error:
        group.rmdir() if group.exists() else None
        pytest.skip(f"no control groups here: {error}")
    try:
        yield group
    finally:
        deadline = time.monotonic() + 20
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:  # helpers end after their parent
            time.sleep(0.05)
        group.rmdir()


@pytest.mark.parametrize("processes", [8, 10, 40])
def test_too_few_allowed_processes_are_said_in_one_line(tmp_path, processes):
    with group_of(processes) as group:
        enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        done = run(tmp_path, POOL, "env", "OPENBLAS_NUM_THREADS=1", "sh", "-c", enter, "sh")
    if processes == 40:
        assert done.stdout == "0\n", done.stderr
        return
    assert done.returncode == 1
    assert "more processes and threads are allowed here, and" in done.stderr
    assert len(done.stderr.splitlines()) == 1
