import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from frugalnet.training.checkpoint import Checkpoints


def test_the_newest_state_comes_back_and_the_one_before_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    for epoch in (9, 10, 11):
        checkpoints.save({"epoch": epoch, "weights": torch.full((3,), float(epoch))}, epoch, 0)
    state = checkpoints.load()
    assert state["epoch"] == 11
    assert torch.equal(state["weights"], torch.full((3,), 11.0))
    assert len(list((tmp_path / "run").glob("*.ckpt"))) == 2


def test_no_checkpoint_is_no_state(tmp_path):
    assert Checkpoints(tmp_path / "none").load() is None


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(tmp_path, capfd, damage):
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save({"epoch": 1}, 1, 0)
    checkpoints.save({"epoch": 2}, 2, 0)
    newest = max((tmp_path / "run").glob("*.ckpt"))
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    newest.write_bytes({"truncated": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    assert checkpoints.load() == {"epoch": 1}
    assert f"{newest}: damaged" in capfd.readouterr().err


def test_a_checkpoint_of_another_version_is_said_and_not_used(tmp_path, capfd):
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save({"epoch": 1}, 1, 0)
    (path,) = (tmp_path / "run").glob("*.ckpt")
    path.write_bytes(path.read_bytes().replace(b"checkpoint 1", b"checkpoint 9", 1))
    assert checkpoints.load() is None
    assert f"{path}: damaged, or of another version of frugalnet; not used" in capfd.readouterr().err


def test_loading_runs_no_code(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save({"danger": os.getcwd}, 1, 0)
    with pytest.raises(Exception, match="weights_only"):
        checkpoints.load()


def test_a_process_killed_while_it_writes_leaves_a_whole_checkpoint(tmp_path):
    writer = (
        "import sys, torch; from pathlib import Path; from frugalnet.training.checkpoint import Checkpoints\n"
        "checkpoints = Checkpoints(Path(sys.argv[1])); epoch = 0\n"
        "while True:\n"
        "    epoch += 1\n"
        "    checkpoints.save({'epoch': epoch, 'weights': torch.full((500_000,), float(epoch))}, epoch, 0)\n"
        "    print(epoch, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", writer, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    while int(process.stdout.readline()) < 3:
        pass
    time.sleep(0.0123)
    process.send_signal(signal.SIGKILL)
    written = process.communicate()[0].split()
    state = Checkpoints(tmp_path / "run").load()
    assert state["epoch"] >= (int(written[-1]) if written else 3)
    assert (state["weights"] == state["epoch"]).all()


def test_a_second_process_waits_for_the_first(tmp_path):
    other = (
        "import sys; from pathlib import Path; from frugalnet.training.checkpoint import Checkpoints\n"
        "with Checkpoints(Path(sys.argv[1])).locked(): print('has it', flush=True)\n"
    )
    with Checkpoints(tmp_path / "run").locked():
        process = subprocess.Popen(
            [sys.executable, "-c", other, str(tmp_path / "run")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "waiting" in process.stderr.readline()
        assert process.poll() is None
    assert process.communicate(timeout=60)[0] == "has it\n"
