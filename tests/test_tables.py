import re
from dataclasses import replace

import pytest

from frugalnet.document.blocks import Table
from frugalnet.document.wording import NOT_MEASURED
from frugalnet.metrics.statistics import Quantiles
from frugalnet.study import cost, tables, training
from frugalnet.study.tables import BY_KEY


@pytest.fixture(scope="module")
def rows(sample_findings):
    return sample_findings.comparison.rows


def shown(table: Table, row: int = 0) -> dict[str, str]:
    return {title: cell.text for title, cell in zip(table.header, table.rows[row], strict=True)}


def test_measured_energy_is_shown_per_image_and_per_epoch(rows):
    cost = {"energy_joules_per_image": 0.012, "energy_joules_per_training_image": 0.5}
    changed = replace(rows[0].records[0], cost=cost)
    row = replace(rows[0], records=[changed], epoch_joules=Quantiles(3000, 2900, 3100, 8), epoch_cpu_seconds=None)
    costs = tables.networks([row], "", tables.COST)
    trainings = tables.networks([row], "", tables.TRAINING)
    assert shown(costs)["Energy per image"] == "12.0 mJ"
    assert shown(costs)["Energy per training image"] == "500 mJ"
    assert shown(trainings)["Energy per epoch"] == "3.00 kJ"
    assert shown(trainings)["MACs per epoch"] == "1.00 T"
    assert trainings.note == "Not measured on this machine: CPU time per epoch."


def test_what_no_network_has_is_one_sentence_and_what_some_lack_a_cell(rows):
    table = tables.networks(rows, "", tables.COST)
    assert "Energy per image" not in table.header
    assert table.note == "Not measured on this machine: Energy per image, Energy per training image."
    some = [replace(rows[0], latency_ms=None), *rows[1:]]
    assert shown(tables.networks(some, "", tables.SUMMARY))["Latency, batch\u00a01"] == NOT_MEASURED
    assert shown(tables.networks(some, "", tables.SUMMARY), 1)["Latency, batch\u00a01"] == "2.37 ms"


def test_repeated_measurements_show_their_range_and_number(rows):
    cell = BY_KEY["latency_ms"].cell(rows[0], rows)
    assert (cell.text, cell.below) == ("7.38 ms", ("6.87 to 8.86 ms", "n\u00a0100"))
    slow = replace(rows[0], epoch_seconds=Quantiles(500, 400, 900, 8))
    assert BY_KEY["epoch_seconds"].cell(slow, [slow]).below[0] == "6.67 to 15.00 min"
    assert BY_KEY["top1"].cell(rows[0], rows).below == ("42.2 to 50.2\u00a0%", "2 seeds")


def test_times_of_separate_trainings_are_never_marked_best(rows):
    table = tables.networks(rows, "", tables.TRAINING)
    assert len({row.epoch_seconds.median for row in rows}) > 1
    assert not [cell for row in table.rows for cell in row if cell.best]


def test_the_best_of_a_column_is_marked_and_none_if_all_are_equal(rows):
    def best(key: str, of) -> list[str]:
        return [row.model for row in of if BY_KEY[key].cell(row, of).best]

    assert best("top1", rows) == ["alexnet"]
    assert best("macs", rows) == ["residual", "depthwise"]
    assert best("train_top1", rows) == []
    assert not [key for key in BY_KEY if best(key, [rows[0]] * 2)]


def test_the_table_for_the_terminal_is_aligned_and_marks_the_best(rows):
    lines = tables.terminal(rows).split("\n")
    assert lines[0].split()[:3] == ["network", "seeds", "Top-1"]
    assert len(lines) == 4
    assert re.search(r"alexnet +2 +46.2 ± 0.2\s%\*", lines[1])
    assert "73,800*" in lines[2]


def test_layers_have_their_fractions_of_macs_and_time(rows):
    found = cost.layers(rows[0])
    macs, time = zip(*(row[-2:] for row in found.rows), strict=True)
    assert [cell.bar for cell in macs] == pytest.approx([i / 15 for i in range(1, 6)])
    assert [cell.bar for cell in time] == pytest.approx([(6 - i) / 15 for i in range(1, 6)])
    unmeasured = replace(rows[0], records=[replace(rows[0].records[0], cost={})])
    assert [row[-1].text for row in cost.layers(unmeasured).rows] == [NOT_MEASURED] * 5


def test_an_accuracy_that_some_seeds_reached_says_how_many(rows):
    reached = [replace(rows[0].reached[0], epochs=None, seeds_reached=1), rows[0].reached[1]]
    (row,) = training.training_cost([replace(rows[0], reached=reached)]).rows
    assert row[1].text == "1 of 2 seeds"
    assert len(row[2].below) == 1, "MACs, and no times: those of separate trainings do not compare"
    assert "TMACs" in row[2].below[0] or "GMACs" in row[2].below[0]


def test_costs_that_were_measured_on_a_busy_machine_are_marked_with_what_to_do(rows):
    cost = rows[0].records[0].cost
    busy = replace(rows[0], records=[replace(rows[0].records[0], cost=cost | {"other_cores": 0.4})])
    idle = replace(rows[0], records=[replace(rows[0].records[0], cost=cost | {"other_cores": 0.1})])
    assert BY_KEY["latency_ms"].cell(idle, [idle]).text == "7.38 ms"
    assert BY_KEY["latency_ms"].cell(busy, [busy]).text == "~7.38 ms"
    assert BY_KEY["macs"].cell(busy, [busy]).text == BY_KEY["macs"].cell(idle, [idle]).text
    assert BY_KEY["epoch_seconds"].cell(busy, [busy]).text[0] != "~", "of the training, not of this measurement"
    assert "~: measured while other programs" in tables.networks([busy, idle], "", tables.SUMMARY).note
    assert tables.networks([idle], "", tables.SUMMARY).note == ""
    assert tables.terminal([busy]).endswith("dvc repro --force --single-item measure && dvc repro")
    assert "~" not in tables.terminal([idle])


def test_older_measurements_are_marked_by_the_spread_of_their_latencies(rows):
    calm = replace(rows[0], latency_ms=Quantiles(1.0, 0.9, 2.7, 100))
    assert not calm.was_busy
    assert replace(rows[0], latency_ms=Quantiles(1.0, 0.9, 4.6, 100)).was_busy
