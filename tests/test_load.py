import subprocess
import sys
import time

import pytest

from frugalnet.metrics.load import OtherLoad


def test_the_cores_that_other_programs_use_are_those_that_are_not_our_own(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  1000 50 200 90000 300 10 20 30 0 0\ncpu0 1 2 3\n")
    load = OtherLoad(stat)
    time.sleep(0.2)
    load._wall = time.perf_counter() - 2  # two seconds ago
    load._own = load._own_seconds() - 1  # of which one core's second was ours
    stat.write_text("cpu  1300 50 300 90500 300 10 20 130 0 0\ncpu0 1 2 3\n")  # 5 s busy, of them 1 s stolen
    assert load.cores() == pytest.approx(2, abs=0.05)


def test_where_the_system_does_not_say_the_load_is_none(tmp_path):
    assert OtherLoad(tmp_path / "missing").cores() is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_another_program_is_seen():
    load = OtherLoad()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        time.sleep(2)
        cores = load.cores()
        other.kill()
    assert cores > 0.1
