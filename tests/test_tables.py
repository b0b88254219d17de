import re
from dataclasses import replace

import fake_results
import pytest

from frugalnet.report import tables
from frugalnet.report.comparison import Measured
from frugalnet.report.wording import NOT_MEASURED


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return fake_results.compared(tmp_path_factory.mktemp("sample"), is_sample=True)


def test_measured_energy_is_shown_for_an_image_and_an_epoch(sample):
    cost = {"energy_joules_per_image": 0.012, "energy_joules_per_training_image": 0.5}
    row = replace(sample.rows[0], epoch_joules=Measured(3000, 2900, 3100, 8), epoch_cpu_seconds=None)
    details = tables.cost_details(replace(sample.first, cost=cost), row)
    found = details["Processor, memory and energy"]
    assert [found[f"energy {per}"] for per in ("an image", "a training image", "an epoch")] == [
        "0.012 J",
        "0.5 J",
        "3 kJ",
    ]
    assert found["CPU seconds an epoch"] == details["Times"]["forward, batch 1"] == NOT_MEASURED
    assert found["MACs an epoch"] == "1 T"  # 28 M × 3 × 6,000 images


def test_the_table_for_the_terminal_is_aligned_and_marks_the_best(sample):
    lines = tables.table_text(sample.rows).split("\n")
    assert lines[0].split()[:3] == ["network", "seeds", "Top-1"]
    assert len(lines) == 4
    assert re.search(r"alexnet +2 +46.2 ± 0.2\s%\*", lines[1])
    assert "73,800*" in lines[2]
