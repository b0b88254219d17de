"""A stage whose caller closed its streams, or whose terminal lacks characters: a real process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGE = """
import os, subprocess, sys
from frugalnet.stage import run_stage

def main() -> None:
    with open("written", "w") as file:
        assert file.fileno() > 2, "what C libraries print would end up in it"
        os.write(2, b"printed by a library\\n")
        subprocess.run([sys.executable, "-Sc", "import os; [os.fstat(number) for number in range(3)]"], check=True)
        print("41.5\\u00a0% ± 0.2, 64×64 …", "\\u65e5", sys.stdin.read())
    print("done", file=sys.stderr)

if __name__ == "__main__":
    run_stage(main)
"""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The command of a stage in a package of its own, which starts as the project's stages do."""
    (tmp_path / "pipeline").mkdir()
    shutil.copy(ROOT / "pipeline/__init__.py", tmp_path / "pipeline")
    (tmp_path / "pipeline/stage.py").write_text(STAGE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    return f"{sys.executable} -m pipeline.stage"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_stage_works_with_closed_streams_and_nothing_is_printed_into_its_files(stage, tmp_path, closed):
    shell = f"{stage} {closed}" if "<" in closed else f"{stage} {closed} < /dev/null"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.returncode == 0, done.stderr
    assert done.stderr == ("" if "2>" in closed else "printed by a library\ndone\n")
    assert (tmp_path / "written").read_text() == ""


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "41.5 % +- 0.2, 64x64"), ("latin-1", "41.5\u00a0% ± 0.2, 64×64")]
)
def test_characters_that_the_output_lacks_are_replaced(stage, encoding, shown):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(stage.split(), capture_output=True, env=environment, input=b"", check=True)
    assert done.stdout.decode(encoding) == f"{shown} ... \\u65e5 \n"


@pytest.mark.parametrize("command", ["predict", "adapt", "export"])
def test_help_is_printed_in_any_encoding(command):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "frugalnet.use.cli", command, "--help"]
    subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=True)


SLOW = """
import sys, tempfile, time
from frugalnet.use import cli, commands

def slow(_):
    with tempfile.TemporaryDirectory() as folder:
        print(folder, flush=True)
        time.sleep(60)

slow.__doc__ = commands.check.__doc__
commands.check = slow
sys.argv = ["frugalnet", "check"]
cli.main()
"""


def test_a_command_that_is_ended_removes_its_temporary_folders():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen([sys.executable, "-c", SLOW], env=environment, stdout=subprocess.PIPE, text=True) as command:
        folder = Path(command.stdout.readline().strip())
        assert folder.is_dir()
        command.terminate()
        assert command.wait(30) == 128 + 15
    assert not folder.exists()
