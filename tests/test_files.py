import fcntl
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from disks import small_disk

from frugalnet.errors import UserError
from frugalnet.files import atomic, locked, read_history, read_table, write_json, write_table


@dataclass
class Row:
    name: str
    value: float | None


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, [Row('a "name", with\na line', 0.1 + 0.2), Row("", None)])
    assert read_table(path) == [
        {"name": 'a "name", with\na line', "value": "0.30000000000000004"},
        {"name": "", "value": ""},
    ]
    write_table(path, [])
    assert read_table(path) == []


@pytest.mark.parametrize("content", [None, b"a,b\n1\n", b"a,b\n1,2,3\n", b"a,b\n\xff,2\n"])
def test_a_damaged_table_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: missing or damaged"):
        read_table(path)


def test_a_history_without_numbers_is_refused_by_name(tmp_path: Path) -> None:
    write_table(tmp_path / "history.csv", [{"epoch": "one"}])
    with pytest.raises(UserError, match=r"history\.csv: missing or damaged .*'one'"):
        read_history(tmp_path / "history.csv")


# Writing: whole or not at all, one process at a time

WRITER = """
import sys, time
from pathlib import Path
from frugalnet.files import atomic, write_json

with atomic(Path("out")) as partial:
    partial.mkdir()
    (partial / "a").write_text(sys.argv[1])
    print("writing", flush=True)
    sys.stdin.read()
    write_json(partial / "b.json", sys.argv[1])
"""


def writer(folder: Path, text: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, text],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process


def test_a_second_process_waits_for_the_first_and_names_it_and_both_leave_a_whole_folder(tmp_path: Path) -> None:
    first = writer(tmp_path, "first")
    assert first.stdout.readline() == "writing\n"
    second = writer(tmp_path, "second")
    assert second.stderr.readline() == f"out: waiting for process {first.pid}, which is writing it\n"
    assert [path.name for path in tmp_path.glob("*.partial")] == [f"out.{first.pid}.partial"]
    first.communicate("")
    second.communicate("")
    assert (first.returncode, second.returncode) == (0, 0)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {"out", "out/a", "out/b.json"}
    assert (tmp_path / "out/a").read_text() == "second"


def test_what_a_killed_process_left_is_removed_and_its_lock_does_not_hold(tmp_path: Path) -> None:
    killed = writer(tmp_path, "killed")
    assert killed.stdout.readline() == "writing\n"
    killed.kill()
    killed.communicate()
    (tmp_path / "out.partial").mkdir()  # of an earlier version
    (tmp_path / "out.txt.1.partial").mkdir()  # another output's
    assert len(list(tmp_path.glob("*.partial"))) == 3
    with atomic(tmp_path / "out") as partial:
        partial.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.txt.1.partial"}


def test_a_partial_folder_that_was_deleted_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError, match="partial"), atomic(tmp_path / "out") as partial:  # noqa: PT012
        partial.mkdir()
        partial.rmdir()
        write_json(partial / "b.json", 1)
    with pytest.raises(FileNotFoundError, match="partial"), atomic(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # what was there stays


def test_a_full_disk_names_the_path_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", kilobytes=100) as disk:
        with pytest.raises(OSError, match=f"No space left on device: '{disk}/table.csv.*partial'"):
            write_table(disk / "table.csv", [{"a": "x" * 200_000}])
        assert list(disk.iterdir()) == []


def test_who_waited_for_a_lock_file_that_is_gone_waits_for_the_new_one(tmp_path: Path, capfd) -> None:
    lock, entered = tmp_path / ".out.lock", threading.Event()

    def enter() -> None:
        with locked(tmp_path / "out"):
            entered.set()

    with lock.open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        waiting = threading.Thread(target=enter)
        waiting.start()
        while "waiting for process" not in capfd.readouterr().err:
            time.sleep(0.01)
        lock.unlink()  # as its holder does at the end
        second = lock.open("w")
        fcntl.flock(second, fcntl.LOCK_EX)
    assert not entered.wait(0.5)
    second.close()
    waiting.join(10)
    assert entered.is_set()


def test_what_must_be_new_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/kept").touch()
    with pytest.raises(UserError, match="already exists"), atomic(tmp_path / "net", is_new=True) as partial:
        partial.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["net", "kept"]
