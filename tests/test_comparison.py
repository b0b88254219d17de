import json
from dataclasses import replace

import fake_results
import numpy as np
import pytest

from frugalnet.comparison import compare as comparison
from frugalnet.comparison.comparable import comparable
from frugalnet.comparison.compare import Evidence
from frugalnet.comparison.networks import training_cost
from frugalnet.comparison.records import Epoch, Record, read_records
from frugalnet.errors import UserError
from frugalnet.metrics import statistics
from frugalnet.metrics.statistics import Interval
from frugalnet.study import tables
from frugalnet.study.findings import conclude

SHA = "d" * 64
SPLIT = "validation split"


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[Record]:
    return read_records(fake_results.make(tmp_path_factory.mktemp("results")))


@pytest.fixture(scope="module")
def compared(records) -> comparison.Comparison:
    return comparison.compare(records, SHA, SPLIT)


def test_load_gives_every_model_and_seed_with_its_predictions(records):
    assert [record.name for record in records] == [
        f"{m}-{s}" for m in ("alexnet", "depthwise", "residual") for s in (0, 1)
    ]
    for record in records:
        assert record.correct.mean() == pytest.approx(record.metrics.top1)
        assert record.history[0].epoch == 1


@pytest.mark.parametrize(
    "missing", ["evaluate/alexnet-1/predictions.npz", "evaluate/alexnet-1/layers.csv", "train/alexnet-1/run.json"]
)
def test_a_missing_file_is_named(tmp_path, missing):
    root = fake_results.make(tmp_path, models=("alexnet",))
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=rf"{missing}: missing or damaged .*run `dvc repro`, or remove .*alexnet-1 to"):
        read_records(root)


@pytest.mark.parametrize(
    "broken",
    ["evaluate/alexnet-0/predictions.npz", "evaluate/alexnet-0/metrics.json", "train/alexnet-0/history.csv"],
)
def test_a_broken_file_is_named(tmp_path, broken):
    root = fake_results.make(tmp_path, models=("alexnet",))
    (tmp_path / broken).write_bytes((tmp_path / broken).read_bytes()[:40])
    with pytest.raises(UserError, match=f"{broken}: missing or damaged") as raised:
        read_records(root)
    assert str(raised.value).count("run `dvc repro`") == 1


def test_the_empty_folder_that_dvc_leaves_is_ignored(tmp_path):
    root = fake_results.make(tmp_path, models=("alexnet",))
    (root / "evaluate" / "forgotten-0").mkdir()
    assert {record.model for record in read_records(root)} == {"alexnet"}


def test_only_networks_evaluated_on_the_same_data_are_compared(tmp_path, records):
    fake_results.make(tmp_path, models=("resnet18",), seeds=(0,), data_sha256="a" * 64)
    others = read_records(tmp_path)
    kept, left_out = comparable([*records, *others], SHA, SPLIT)
    assert kept == records
    assert [(one.name, one.reason) for one in left_out] == [
        ("resnet18-0", "trained and evaluated on other data (tiny-imagenet, aaaaaaaaaaaa)")
    ]
    kept, left_out = comparable(records, SHA, "hold-out of the training split")
    assert not kept
    assert left_out[0].reason == "evaluated on the validation split, not on the hold-out of the training split"


def test_a_seed_trained_differently_is_not_averaged_with_the_first(records):
    other = replace(records[1], run=records[1].run.changed(train=records[1].run.train | {"epochs": 5}))
    kept, left_out = comparable([records[0], other, *records[2:]], SHA, SPLIT)
    assert len(kept) == 5
    assert left_out[0].reason == "trained differently from alexnet-0, so the two cannot be averaged (epochs 8 and 5)"


def test_what_taught_a_network_belongs_to_its_recipe(records):
    taught = [
        replace(record, run=record.run.changed(teacher={"model": "alexnet", "sha256": digit * 64}))
        for record, digit in zip(records, "1211", strict=False)
    ]
    kept, left_out = comparable(taught, SHA, SPLIT)
    assert [one.name for one in left_out] == ["alexnet-1"]
    assert left_out[0].reason.endswith(f"(teacher alexnet {'1' * 12} and alexnet {'2' * 12})")
    facts = conclude(Evidence(comparison.compare(kept, SHA, SPLIT))).facts
    assert facts["recipe"].endswith(f"teacher alexnet {'1' * 12}")


def test_all_that_taught_a_network_belong_to_its_recipe(records):
    alone = {"model": "alexnet", "sha256": "1" * 64}
    together = alone | {"others": [{"model": "residual", "sha256": "2" * 64}]}
    taught = [replace(record, run=record.run.changed(teacher=together)) for record in records[:1]]
    taught += [replace(record, run=record.run.changed(teacher=alone)) for record in records[1:2]]
    _, left_out = comparable(taught, SHA, SPLIT)
    assert left_out[0].reason.endswith(f"(teacher alexnet {'1' * 12} and residual {'2' * 12} and alexnet {'1' * 12})")


def test_models_trained_differently_are_noted(records):
    changed = [
        replace(r, run=r.run.changed(train=r.run.train | {"epochs": 5})) if r.model == "residual" else r
        for r in records
    ]
    notes = comparison.compare(changed, SHA, SPLIT).notes
    assert notes[:-1] == ["alexnet and residual were trained differently: epochs 8 and 5."]
    assert notes[-1].startswith("Intervals of networks trained with 5 seeds or fewer are approximate")


@pytest.mark.parametrize(("seeds", "is_told"), [(1, False), (2, True), (5, True), (6, False)])
def test_how_intervals_of_few_seeds_are_made_is_noted(tmp_path, seeds, is_told):
    root = fake_results.make(tmp_path, models=("alexnet",), seeds=tuple(range(seeds)), n=60)
    notes = " ".join(comparison.compare(read_records(root), SHA, SPLIT).notes)
    assert ("5 seeds or fewer" in notes) == is_told
    assert ("with one seed" in notes) == (seeds == 1)


def test_nothing_on_the_present_data_is_refused_with_what_was_found(records):
    with pytest.raises(UserError, match=r"no network was evaluated on the present data \(hash bbb.*alexnet-0: trained"):
        comparison.compare(records, "b" * 64, SPLIT)
    with pytest.raises(UserError, match="found: none"):
        comparison.compare([], SHA, SPLIT)


def test_rows_hold_means_and_deviations_over_seeds(records, compared):
    row = compared.row("residual")
    values = [record.metrics.top1 for record in records if record.model == "residual"]
    assert (row.top1.mean, row.top1.deviation, row.top1.n) == (
        pytest.approx(np.mean(values)),
        pytest.approx(np.std(values, ddof=1)),
        2,
    )
    assert row.top1_interval.low < row.top1.mean < row.top1_interval.high
    assert row.confusion.sum() == 2 * 600
    assert [one.model for one in compared.rows] == ["alexnet", "residual", "depthwise"]


def test_what_was_not_measured_is_none(tmp_path):
    root = fake_results.make(tmp_path, models=("alexnet",), measured=False)
    row = comparison.compare(read_records(root), SHA, SPLIT).rows[0]
    assert row.latency_ms is None
    assert row.throughput is None


@pytest.mark.parametrize(("num_classes", "is_shown"), [(5, False), (6, True)])
def test_top5_is_not_shown_where_it_is_always_100_percent(tmp_path, num_classes, is_shown):
    rows = comparison.compare(read_records(fake_results.make(tmp_path, num_classes=num_classes)), SHA, SPLIT).rows
    table = tables.networks(rows, "More on accuracy", tables.ACCURACY)
    assert ("Top-5" in table.header) == is_shown
    assert "Top-5" not in table.note
    assert ("Top-5" in tables.terminal(rows)) == is_shown


def test_a_measurement_that_serves_several_seeds_counts_once(compared):
    assert compared.row("alexnet").latency_ms.n == 100


def test_times_from_different_machines_are_noted(records):
    other = replace(records[-1], run=records[-1].run.changed(environment={"device": "cuda"}))
    notes = comparison.compare([*records[:-1], other], SHA, SPLIT).notes
    assert [note for note in notes if "their epoch times are not comparable" in note]


def test_better_is_said_only_where_the_interval_excludes_zero():
    def wording(low: float, high: float) -> str:
        return comparison.Difference("a", "b", Interval((low + high) / 2, low, high), {}).wording

    assert wording(0.01, 0.03) == "a is better than b"
    assert wording(-0.03, -0.01) == "a is worse than b"
    assert wording(-0.01, 0.03) == "a and b are not significantly different"


def test_a_difference_has_both_directions(compared):
    forward = compared.difference("alexnet", "depthwise")
    backward = compared.difference("depthwise", "alexnet")
    assert (backward.estimate, backward.low, backward.high) == (-forward.estimate, -forward.high, -forward.low)


def test_mcnemar_is_computed_for_each_common_seed(records):
    alexnet, depthwise = ([record for record in records if record.model == model] for model in ("alexnet", "depthwise"))
    found = comparison.difference(alexnet, depthwise[1:])
    assert found.mcnemar == {1: statistics.mcnemar(alexnet[1].correct, depthwise[1].correct)}


def test_training_cost_of_a_hand_made_history(records):
    def history(*top1: float) -> list[Epoch]:
        return [
            fake_results.of_epoch(epoch=e, validation_top1=v, train_macs=e * 100) for e, v in enumerate(top1, start=1)
        ]

    timing = {"epoch_seconds": [10.0, 20.0, 40.0]}
    first = replace(records[0], history=history(0.1, 0.2, 0.3), timing=timing)
    second = replace(records[0], history=history(0.2, 0.1, 0.2), timing=timing)
    twenty, thirty, forty = training_cost([first, second], (0.20, 0.30, 0.40))
    assert (twenty.epochs, twenty.seconds, twenty.macs) == (1.5, 20.0, (100 + 100 + 200) / 2)
    assert (thirty.seeds_reached, thirty.seeds, thirty.epochs) == (1, 2, None)
    assert forty.seeds_reached == 0


def test_training_cost_without_times_still_has_epochs(records):
    found = training_cost([replace(records[0], timing={})], (0.05,))[0]
    assert found.epochs == 1
    assert found.seconds is None


def test_metrics_that_are_not_those_of_the_predictions_are_refused(tmp_path):
    root = fake_results.make(tmp_path, models=("alexnet",), seeds=(0,))
    path = root / "evaluate" / "alexnet-0" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"top1": 0.5}))
    with pytest.raises(
        UserError, match=r"metrics.json: top1 is 0.5, but 0.4\d+ by predictions.npz; .* evaluate@alexnet-0$"
    ):
        read_records(root)


def test_a_network_without_an_entry_in_cost_json_has_no_measured_cost(tmp_path):
    root = fake_results.make(tmp_path, models=("alexnet", "residual"), seeds=(0,))
    costs = json.loads((root / "cost.json").read_text())
    (root / "cost.json").write_text(json.dumps({"alexnet": costs["alexnet"]}))
    alexnet, residual = read_records(root)
    assert alexnet.cost == costs["alexnet"]
    assert "latency_ms" in alexnet.efficiency()
    assert residual.cost == {}
    assert residual.efficiency().keys() == {"epoch_seconds", "epoch_cpu_seconds", "train_seconds"}


def test_a_missing_cost_json_is_named_without_advice_to_remove_the_results(tmp_path):
    root = fake_results.make(tmp_path, models=("alexnet",), seeds=(0,))
    (root / "cost.json").unlink()
    with pytest.raises(UserError, match=r"cost.json: missing or damaged .*; delete it and run `dvc repro`$"):
        read_records(root)


def test_efficiency_is_one_number_for_each_cost_that_was_measured(records):
    cost = {
        "latency_ms": {"median": 2.0, "p5": 1.0, "p95": 9.0, "n": 3},
        "peak_memory_forward_bytes": 5,
        "energy_joules_per_image": None,
        "layer_ms": {"conv1": 1.0},
        "machine": {"cores": 2},
    }
    timing = {
        "epoch_seconds": [1.0, 2.0, 9.0],
        "epoch_joules": [1.0, None, 1.0],
        "machine": {},
        "mlflow.source.git.commit": "a",
    }
    assert replace(records[0], cost=cost, timing=timing).efficiency() == {
        "latency_ms": 2.0,
        "peak_memory_forward_bytes": 5.0,
        "epoch_seconds": 2.0,
        "train_seconds": 12.0,
    }
