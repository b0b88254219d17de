import errno
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from frugalnet.distributed import launch
from frugalnet.errors import ENDING, UserError
from frugalnet.stage import run_stage

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """What a stage that runs in this process does to signals is undone."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stage(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["/project/pipeline/train.py", *words])


@pytest.mark.parametrize("words", [[], ["depthwise"], ["depthwise", "first"], ["depthwise", "0", "1"]])
def test_a_stage_says_which_arguments_it_takes(monkeypatch, words):
    def main(model: str, seed: int) -> None:
        raise AssertionError("it was called")

    stage(monkeypatch, *words)
    with pytest.raises(SystemExit, match=r"^usage: python -m pipeline\.train MODEL SEED$"):
        run_stage(main)


def test_a_module_outside_of_the_pipeline_is_called_by_its_own_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/project/src/frugalnet/reproduce.py"])

    def main(run_id: str) -> None:
        raise AssertionError("it was called")

    with pytest.raises(SystemExit, match=r"^usage: python -m frugalnet\.reproduce RUN_ID$"):
        run_stage(main)


@pytest.mark.parametrize(
    ("words", "item", "expected"),
    [
        (["depthwise", "7"], None, ("depthwise", 7)),
        (["depthwise", "7"], "train@residual-0", ("depthwise", 7)),
        ([], "train@residual-0", ("residual", 0)),
        ([], "some folder/dvc.yaml:train@shufflenet_v2_x0_5-12", ("shufflenet_v2_x0_5", 12)),
    ],
)
def test_a_stage_takes_its_arguments_from_the_command_line_or_else_from_its_matrix_item(
    monkeypatch, words, item, expected
):
    given = []
    stage(monkeypatch, *words)
    if item:
        monkeypatch.setenv("DVC_STAGE", item)

    def main(model: str, seed: int) -> None:
        given.append((model, seed))

    main.__annotations__ = {"model": "str", "seed": "int"}  # as under `from __future__ import annotations`
    run_stage(main)
    assert given == [expected]


@pytest.mark.parametrize("item", ["train", "train@residual", "train@residual-0; touch x", "train@residual-x"])
def test_an_item_that_is_not_a_model_and_a_seed_is_refused(monkeypatch, item):
    def main(model: str, seed: int) -> None:
        raise AssertionError("it was called")

    stage(monkeypatch)
    monkeypatch.setenv("DVC_STAGE", item)
    with pytest.raises(SystemExit, match=r"^usage: python -m pipeline\.train MODEL SEED$"):
        run_stage(main)


def test_a_stage_run_by_a_python_without_the_packages_says_so_in_one_line():
    bare = [sys.executable, "-S", "-m", "pipeline.download"]  # -S: no site-packages
    ended = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.endswith("run `make install`, then `source .venv/bin/activate`\n")
    assert ended.stderr.startswith(f"{sys.executable} lacks")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("a key: wrong"), r"train: a key: wrong"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), r"train: No space left on device: a\.npy"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"train: No space .* \(in main, .*test_errors.py, line \d+\)",
        ),
        (OSError("no number"), r"train: no number \(in main, .*test_errors.py, line \d+\)"),
    ],
)
def test_a_failure_ends_a_stage_in_one_line_that_names_the_place(monkeypatch, error, message):
    def main() -> None:
        raise error

    stage(monkeypatch)
    with pytest.raises(SystemExit, match=f"^{message}$"):
        run_stage(main)


def test_a_message_is_one_line_without_escapes_and_without_the_password_of_a_url():
    error = UserError("class \x1b[31mred\u202e\n of https://me:p@ss:w/rd@host/a.zip, 'http://host/b@c.zip' café")
    assert str(error) == r"class \x1b[31mred\u202e\n of https://***@host/a.zip, 'http://***@c.zip' café"
    assert str(UserError("ftp://me:p'a@host, http://me:p\"a ss@host")) == "ftp://***@host, http://***@host"
    for odd in ("//me:p@host", "http:me:p@host", "HTTP:/me:p@host", "http://me:p/w@host", "x+y:me:p@host"):
        assert re.fullmatch(r"found '[\w+]*:?/{0,2}\*\*\*@host'", str(UserError(f"found '{odd}'"))), odd
    for key in ("token", "X-Amz-Signature", "access_key", "sig", "password", "pw", "jwt", "session_id", "Policy"):
        assert str(UserError(f"url: /a?b=1&{key}=s%2Fx&c=2 is")) == f"url: /a?b=1&{key}=***&c=2 is"
    plain = "dvc.yaml:train@depthwise-0 file:///me@lab/a.zip me@host /me@lab?download=1"
    assert str(UserError(plain)) == plain
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301  # our own


# Processes of a stage of its own: two workers, one second of work

STAGE = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from frugalnet.stage import run_stage
from frugalnet.processes import init_worker

def main() -> None:
    with ProcessPoolExecutor(1, initializer=init_worker) as pool:
        print(os.getpid(), pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)

if __name__ == "__main__":
    run_stage(main)
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command of a stage in a package of its own, which starts as the project's stages do."""
    (tmp_path / "pipeline").mkdir()
    shutil.copy(ROOT / "pipeline/__init__.py", tmp_path / "pipeline")
    (tmp_path / "pipeline/stage.py").write_text(STAGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    return [sys.executable, "-m", "pipeline.stage"]


def assert_ended(*pids: int) -> None:
    deadline = time.monotonic() + 20  # of 60 that they would live by themselves
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, f"process {pid} lives on"
                time.sleep(0.01)


def test_ctrl_c_ends_a_stage_in_one_line_with_130_and_leaves_no_process(script):
    process = subprocess.Popen(
        script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    pids = map(int, process.stdout.readline().split())
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    assert process.communicate(timeout=10)[1] == "stage: interrupted\n"
    assert process.returncode == 130
    assert_ended(*pids)


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        ("numpy", ["pipeline.augment"], "interrupted\n"),
        ("argparse", ["frugalnet.use.entry", "networks"], "frugalnet: interrupted\n"),
    ],
    ids=["stage", "command"],
)
def test_ctrl_c_during_imports_ends_in_one_line_with_130(tmp_path, module, words, said):
    (tmp_path / f"{module}.py").write_text("print('importing', flush=True)\nimport time; time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "src")])},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1] == said
    assert process.returncode == 130


IMPORTING = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from frugalnet.stage import run_stage
from frugalnet.processes import init_worker, starting_workers

def main() -> None:
    {main}

if __name__ == "__main__":
    run_stage(main)
elif __name__ == "__mp_main__":
    import slow
"""
IN_A_WORKER = """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), init_worker) as pool:
        with starting_workers():
            future = pool.submit(int)
        future.result()
"""
BY_TORCHRUN = """
    from frugalnet.distributed.config import LaunchConfig
    from frugalnet.distributed.launch import start

    start(1, LaunchConfig(backend="auto", timeout_minutes=1, restarts=0), print)
"""


def interrupted_while_importing(tmp_path, main: str) -> subprocess.Popen:
    """A stage in whose `main`, or in a worker of it, a module was being imported when Ctrl-C came."""
    (tmp_path / "stage.py").write_text(IMPORTING.format(main=main))
    # Code in a string, as dataclasses and named tuples run it: Python exits in another way if that is interrupted.
    (tmp_path / "slow.py").write_text("exec('import time; print(1, flush=True); time.sleep(0.5)')")
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "stage.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "1\n"
    os.killpg(process.pid, signal.SIGINT)
    return process


# numpy, albumentations and torch take seconds to import, within `main` and in each worker.
@pytest.mark.parametrize("main", [IN_A_WORKER, "import slow, time; time.sleep(60)"])
def test_ctrl_c_while_modules_are_imported_ends_a_stage_in_one_line_with_130(tmp_path, main):
    process = interrupted_while_importing(tmp_path, main)
    assert process.communicate(timeout=10)[1] == "stage: interrupted\n"
    assert process.returncode == 130


LEAVING = """
import sys, tempfile, time
from frugalnet.processes import temporary_folder
from frugalnet.stage import run_stage

@temporary_folder()
def main() -> None:
    tempfile.mkdtemp()  # as libraries do
    {main}

if __name__ == "__main__":
    sys.path.insert(0, sys.argv.pop())
    run_stage(main)
"""


@pytest.fixture
def _hangup() -> Iterator[None]:
    """SIGHUP ends a process, though the tests may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_hangup")
@pytest.mark.parametrize(
    ("number", "main"),
    [
        (signal.SIGINT, "import slow; time.sleep(60)"),
        (signal.SIGTERM, "print(1, flush=True); time.sleep(60)"),
        (signal.SIGHUP, "print(1, flush=True); time.sleep(60)"),
    ],
)
def test_a_stage_that_a_signal_ends_leaves_no_temporary_folder_of_a_library(tmp_path, number, main):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "stage.py").write_text(LEAVING.format(main=main))
    (tmp_path / "slow.py").write_text("print(1, flush=True); import time; time.sleep(0.5)")
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "stage.py"), str(tmp_path)],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "1\n"
        assert list(temporary.glob("frugalnet-*/tmp*"))
        process.send_signal(number)
        assert process.communicate(timeout=10)[1] == "stage: interrupted\n"
    assert process.returncode == 128 + number
    assert not list(temporary.iterdir())


def test_ctrl_c_while_torchruns_workers_import_modules_ends_a_stage_without_traceback(tmp_path):
    process = interrupted_while_importing(tmp_path, BY_TORCHRUN)
    said = process.communicate(timeout=60)[1]
    assert all("torch/distributed/elastic" in line for line in said.splitlines()), said
    assert "Unable to shutdown" not in said  # it ends by itself as soon as its imports are done
    assert process.returncode == 130


def test_a_worker_of_torchrun_ignores_the_second_ctrl_c_which_the_agent_sends():
    before = signal.signal(signal.SIGINT, launch._interrupt_once)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("through", ["", "; exit"])  # a shell that may make way for its command, one that stays
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_a_stage_ends_with_the_dvc_that_started_it(script, kind, through):
    # Like DVC: through a shell, with the stage's name in the environment.
    command = " ".join(script) + through
    start = f"import subprocess; subprocess.run({command!r}, shell=True)"
    dvc = subprocess.Popen(
        [sys.executable, "-c", start], env={**os.environ, "DVC_STAGE": "stage"}, stdout=subprocess.PIPE, text=True
    )
    pids = map(int, dvc.stdout.readline().split())
    dvc.send_signal(kind)
    dvc.wait()  # not until its output ends: the stage holds that open
    assert_ended(*pids)
    dvc.stdout.close()


def test_a_stage_ends_with_the_dvc_that_dies_while_the_stage_imports_modules(script, tmp_path):
    slow = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n"
    (tmp_path / "pipeline/slow.py").write_text(slow)
    (tmp_path / "pipeline/stage.py").write_text("import pipeline.slow\n" + STAGE)
    start = f"import subprocess; subprocess.run({' '.join(script)!r}, shell=True)"
    dvc = subprocess.Popen(
        [sys.executable, "-c", start], env={**os.environ, "DVC_STAGE": "stage"}, stdout=subprocess.PIPE, text=True
    )
    pid = int(dvc.stdout.readline())
    dvc.kill()
    dvc.wait()
    assert_ended(pid)
    dvc.stdout.close()


def test_a_stage_started_by_hand_outlives_its_parent(script):
    start = f"import subprocess; print(subprocess.Popen({script!r}, stdout=subprocess.PIPE).stdout.readline().decode())"
    parent = subprocess.run([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True)
    pid, worker = map(int, parent.stdout.split())
    time.sleep(0.5)  # longer than a look at the parent takes
    os.kill(pid, signal.SIGTERM)  # raises if it has ended
    assert_ended(pid, worker)
