import json
from dataclasses import replace

import fake_results
import numpy as np
import pytest

from frugalnet.errors import UserError
from frugalnet.metrics import statistics
from frugalnet.metrics.statistics import Interval, Spread
from frugalnet.report import claims, comparison
from frugalnet.report.comparison import COLUMNS, Measured, Record, pareto_front

SHA = "d" * 64
SPLIT = "validation split"


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[Record]:
    return comparison.load(*fake_results.make(tmp_path_factory.mktemp("results")))


@pytest.fixture(scope="module")
def compared(records) -> comparison.Comparison:
    return comparison.compare(records, SHA, SPLIT)


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> comparison.Comparison:
    """200 classes and no sample: the paper's claims can be judged."""
    folders = fake_results.make(tmp_path_factory.mktemp("full"), num_classes=200, n=2000)
    return comparison.compare(comparison.load(*folders), SHA, SPLIT)


def test_load_gives_every_model_and_seed_with_its_predictions(records):
    assert [record.name for record in records] == [
        f"{m}-{s}" for m in ("alexnet", "depthwise", "residual") for s in (0, 1)
    ]
    for record in records:
        assert record.correct.mean() == pytest.approx(record.metrics["top1"])
        assert record.history[0]["epoch"] == 1


@pytest.mark.parametrize("missing", ["evaluate/alexnet-1/predictions.npz", "train/alexnet-1/run.json"])
def test_a_missing_file_is_named(tmp_path, missing):
    folders = fake_results.make(tmp_path, models=("alexnet",))
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=rf"{missing} is missing: run `dvc repro`"):
        comparison.load(*folders)


@pytest.mark.parametrize("broken", ["evaluate/alexnet-0/predictions.npz", "evaluate/alexnet-0/metrics.json"])
def test_a_broken_file_is_named(tmp_path, broken):
    folders = fake_results.make(tmp_path, models=("alexnet",))
    (tmp_path / broken).write_bytes((tmp_path / broken).read_bytes()[:40])
    with pytest.raises(UserError, match=f"{broken} cannot be read"):
        comparison.load(*folders)


def test_the_empty_folder_that_dvc_leaves_of_another_network_is_passed_over(tmp_path):
    evaluated, trained = fake_results.make(tmp_path)
    (evaluated / "forgotten-0").mkdir()
    assert "forgotten" not in {record.model for record in comparison.load(evaluated, trained)}


def test_only_entries_of_the_same_data_stand_in_one_table(tmp_path, records):
    fake_results.make(tmp_path, models=("resnet18",), seeds=(0,), data_sha256="a" * 64)
    others = comparison.load(tmp_path / "evaluate", tmp_path / "train")
    kept, left_out = comparison.comparable([*records, *others], SHA, SPLIT)
    assert kept == records
    assert [(one.name, one.reason) for one in left_out] == [
        ("resnet18-0", "trained and measured on other data (tiny-imagenet, hash aaaaaaaaaaaa)")
    ]
    kept, left_out = comparison.comparable(records, SHA, "hold-out of the training split")
    assert not kept
    assert left_out[0].reason == "measured on the validation split, not on the hold-out of the training split"


def test_a_seed_trained_otherwise_is_not_averaged_with_the_first(records):
    other = replace(records[1], run=records[1].run | {"train": records[1].run["train"] | {"epochs": 5}})
    kept, left_out = comparison.comparable([records[0], other, *records[2:]], SHA, SPLIT)
    assert len(kept) == 5
    assert left_out[0].reason == ("trained otherwise than alexnet-0, with which it would be averaged (epochs 8 and 5)")


def test_models_trained_otherwise_are_noted(records):
    changed = [
        replace(r, run=r.run | {"train": r.run["train"] | {"epochs": 5}}) if r.model == "residual" else r
        for r in records
    ]
    notes = comparison.compare(changed, SHA, SPLIT).notes
    assert notes == ["residual was not trained like alexnet: epochs 8 and 5."]


def test_nothing_on_the_present_data_is_refused_with_what_was_found(records):
    with pytest.raises(UserError, match=r"nothing evaluated on the present data \(hash bbb.*alexnet-0: trained"):
        comparison.compare(records, "b" * 64, SPLIT)
    with pytest.raises(UserError, match="found: none"):
        comparison.compare([], SHA, SPLIT)


def test_rows_hold_means_and_deviations_over_seeds(records, compared):
    row = compared.row("residual")
    values = [record.metrics["top1"] for record in records if record.model == "residual"]
    assert (row.top1.mean, row.top1.deviation, row.top1.n) == (
        pytest.approx(np.mean(values)),
        pytest.approx(np.std(values, ddof=1)),
        2,
    )
    assert row.top1_interval.low < row.top1.mean < row.top1_interval.high
    assert row.confusion.sum() == 2 * 600
    assert [one.model for one in compared.rows] == ["alexnet", "residual", "depthwise"]


def test_what_was_not_measured_is_none(tmp_path):
    folders = fake_results.make(tmp_path, models=("alexnet",), measured=False)
    row = comparison.compare(comparison.load(*folders), SHA, SPLIT).rows[0]
    assert row.latency_ms is None
    assert row.throughput is None
    latency = next(column for column in COLUMNS if column.key == "latency_ms")
    assert comparison.best_in(latency, [row]) is None


def test_a_measurement_that_serves_several_seeds_counts_once(compared):
    assert compared.row("alexnet").latency_ms.n == 100


def test_times_from_different_machines_are_noted(records):
    other = replace(
        records[-1], run=records[-1].run | {"environment": {"device": "cuda"}}, cost={"machine": {"device": "cuda"}}
    )
    notes = comparison.compare([*records[:-1], other], SHA, SPLIT).notes
    assert len([note for note in notes if "same machine" in note]) == 2


def test_best_is_the_highest_accuracy_and_the_lowest_cost_and_none_where_all_tie(compared):
    best = {column.key: comparison.best_in(column, compared.rows) for column in COLUMNS}
    assert best["top1"] == compared.row("alexnet").top1.mean
    assert best["macs"] == compared.row("depthwise").macs
    alexnet_only = [compared.row("alexnet")] * 2
    assert all(comparison.best_in(column, alexnet_only) is None for column in COLUMNS)


def test_pareto_front_of_hand_made_points():
    costs = np.array([1, 2, 3, 3, 4, 1.0])
    accuracies = np.array([10, 30, 30, 40, 35, 10.0])
    #            equal points both stand; same accuracy for more does not; same cost for less does not
    assert pareto_front(costs, accuracies).tolist() == [True, True, False, True, False, True]


def test_pareto_front_leaves_nothing_that_another_beats():
    generator = np.random.default_rng(0)
    costs, accuracies = generator.random(60), generator.random(60)
    expected = [
        not any(c <= cost and a >= acc and (c < cost or a > acc) for c, a in zip(costs, accuracies, strict=True))
        for cost, acc in zip(costs, accuracies, strict=True)
    ]
    assert pareto_front(costs, accuracies).tolist() == expected


def test_better_is_said_only_where_the_interval_excludes_zero():
    def wording(low: float, high: float) -> str:
        return comparison.Difference("a", "b", Interval((low + high) / 2, low, high), {}).wording

    assert wording(0.01, 0.03) == "a is better than b"
    assert wording(-0.03, -0.01) == "a is worse than b"
    assert wording(-0.01, 0.03) == "a and b cannot be told apart"


def test_differences_turn_around(compared):
    forward = compared.difference("alexnet", "depthwise")
    backward = compared.difference("depthwise", "alexnet")
    assert (backward.estimate, backward.low, backward.high) == (-forward.estimate, -forward.high, -forward.low)
    assert compared.difference("alexnet", "resnet18") is None


def test_mcnemar_stands_for_each_seed_in_common(records):
    alexnet, depthwise = ([record for record in records if record.model == model] for model in ("alexnet", "depthwise"))
    found = comparison.difference(alexnet, depthwise[1:])
    assert found.mcnemar == {1: statistics.mcnemar(alexnet[1].correct, depthwise[1].correct)}


def test_training_cost_of_a_hand_made_history(records):
    def history(*top1: float) -> list[dict[str, float]]:
        return [{"epoch": e, "validation_top1": v, "train_macs": e * 100} for e, v in enumerate(top1, start=1)]

    timing = {"epoch_seconds": [10.0, 20.0, 40.0]}
    first = replace(records[0], history=history(0.1, 0.2, 0.3), timing=timing)
    second = replace(records[0], history=history(0.2, 0.1, 0.2), timing=timing)
    twenty, thirty, forty = comparison.training_cost([first, second], (0.20, 0.30, 0.40))
    assert (twenty.epochs, twenty.seconds, twenty.macs) == (1.5, 20.0, (100 + 100 + 200) / 2)
    assert (thirty.seeds_reached, thirty.seeds, thirty.epochs) == (1, 2, None)
    assert forty.seeds_reached == 0


def test_training_cost_without_times_still_has_epochs(records):
    found = comparison.training_cost([replace(records[0], timing={})], (0.05,))[0]
    assert found.epochs == 1
    assert found.seconds is None


def test_the_verdict_is_three_sentences_that_keep_to_the_intervals(compared):
    first, second, third = comparison.verdict(compared)
    assert first.startswith("Of the 600 images of the validation split, alexnet gets the largest share right, 46.2")
    assert "15 % of alexnet's MACs and 18 % of its parameters" in second.replace("\u00a0", " ")
    assert third.startswith(
        "By their means, alexnet and residual stand on the front of accuracy against MACs; depthwise"
    )
    same = replace(
        compared, differences=[replace(d, interval=Interval(0.01, -0.01, 0.03)) for d in compared.differences]
    )
    text = " ".join(comparison.verdict(same))
    assert "better" not in text
    assert "worse" not in text
    assert "cannot be told apart from residual" in text


def test_a_network_is_beaten_on_the_front_only_where_the_interval_says_so(compared):
    clear = [replace(d, interval=Interval(0.02, 0.01, 0.03)) for d in compared.differences]
    assert comparison.verdict(replace(compared, differences=clear))[2].endswith("; depthwise does not.")
    unclear = [replace(d, interval=Interval(0.01, -0.01, 0.03)) for d in compared.differences]
    said = comparison.verdict(replace(compared, differences=unclear))[2]
    assert said.endswith("accuracy against MACs; depthwise cannot be told apart from residual at as many MACs.")


def test_the_verdict_says_when_the_data_are_a_sample(tmp_path):
    folders = fake_results.make(tmp_path, models=("alexnet",), seeds=(0,), is_sample=True)
    found = comparison.compare(comparison.load(*folders), SHA, SPLIT)
    assert comparison.verdict(found)[0].startswith("On sample data, which say nothing about Tiny ImageNet")
    assert len(comparison.verdict(found)) == 3
    assert {claim.outcome for claim in claims.claims(found)} == {"not measured"}


def test_the_papers_parameter_counts_are_judged_exactly(full):
    by_text = {claim.says: claim for claim in claims.claims(full)}
    assert by_text["The AlexNet-like network has 415,656 parameters"].outcome == "agrees"
    depthwise = by_text["The depthwise network has 74,818 parameters"]
    assert depthwise.outcome == "differs"
    assert depthwise.measured == "74,760 in Keras's count (73,800 trainable), 58 fewer"
    assert by_text["The residual network has as many parameters as the depthwise one"].outcome == "agrees"
    size = next(claim for claim in by_text.values() if claim.says.startswith("Depthwise convolutions bring"))
    assert (size.measured.replace("\u00a0", " "), size.outcome) == ("17.99 %", "agrees")


def test_every_claim_of_the_paper_has_a_row_and_an_outcome(full):
    table = claims.claims(full)
    assert len(table) == 17
    assert "not measured" not in {claim.outcome for claim in table if "hardest" not in claim.says}


@pytest.mark.parametrize(
    ("top1", "low", "high", "expected"),
    [
        (0.02, 0.01, 0.03, "agrees"),
        (0.02, -0.01, 0.05, "undecided"),
        (-0.02, -0.03, -0.01, "differs"),
        (0.2, 0.1, 0.3, "differs"),
    ],
)
def test_the_residual_claim_is_undecided_where_the_interval_spans_zero(full, top1, low, high, expected):
    changed = [
        replace(d, interval=Interval(top1, low, high)) if (d.first, d.second) == ("residual", "depthwise") else d
        for d in full.differences
    ]
    found = [c for c in claims.claims(replace(full, differences=changed)) if c.says.startswith("Shortcuts raise")]
    assert [claim.outcome for claim in found] == [expected]


@pytest.mark.parametrize(("depthwise", "expected"), [(35.0, "agrees"), (90.0, "differs"), (None, "not measured")])
def test_the_epoch_times_are_compared_by_their_ratio(full, depthwise, expected):
    times = {"alexnet": 100.0, "residual": 40.0, "depthwise": depthwise}
    rows = [
        replace(row, train_step_ms=None, epoch_seconds=Measured(t, t, t, 8) if (t := times[row.model]) else None)
        for row in full.rows
    ]
    found = [c for c in claims.claims(replace(full, rows=rows)) if c.says.startswith("An epoch takes")]
    assert [claim.outcome for claim in found] == [expected]


def timed(full, **times):
    """The rows with these medians, or medians and percentiles, of each network under each key."""
    return [
        replace(row, **{key: Measured(*of[row.model], 8) if of[row.model] else None for key, of in times.items()})
        for row in full.rows
    ]


NOT_TIMED = dict.fromkeys(("alexnet", "depthwise", "residual"))


@pytest.mark.parametrize("key", ["train_step_ms", "epoch_seconds"])
@pytest.mark.parametrize(
    ("residual", "expected"),
    [((50, 48, 52), "agrees"), ((30, 29, 31), "differs"), ((40.4, 39, 42), "undecided"), (None, "not measured")],
)
def test_the_price_of_shortcuts_is_judged_by_what_was_measured(full, key, residual, expected):
    times = {"alexnet": (100, 99, 101), "depthwise": (40, 39, 41), "residual": residual}
    rows = timed(full, **{"train_step_ms": NOT_TIMED, "epoch_seconds": NOT_TIMED, key: times})
    found = [c for c in claims.claims(replace(full, rows=rows)) if c.says.startswith("Shortcuts make")]
    assert [claim.outcome for claim in found] == [expected]


@pytest.mark.parametrize(
    ("epoch", "step", "expected"), [(35, 35, "agrees"), (47, 43, "undecided"), (60, 60, "differs")]
)
def test_a_claim_of_speed_is_undecided_where_epochs_and_passes_differ(full, epoch, step, expected):
    rows = timed(
        full,
        epoch_seconds={"alexnet": (100,) * 3, "depthwise": (epoch,) * 3, "residual": (epoch,) * 3},
        train_step_ms={"alexnet": (100,) * 3, "depthwise": (step,) * 3, "residual": (step,) * 3},
    )
    (found,) = [c for c in claims.claims(replace(full, rows=rows)) if c.says.startswith("An epoch takes")]
    assert found.outcome == expected
    assert f"{epoch}.0 against 100.0 s an epoch ({epoch}\u00a0%); {step}.0 against 100.0 ms" in found.measured


@pytest.mark.parametrize("key", ["epoch_seconds", "train_step_ms"])
def test_times_of_different_machines_are_not_judged(full, key):
    rows = timed(
        full, **{"train_step_ms": NOT_TIMED, "epoch_seconds": NOT_TIMED, key: dict.fromkeys(NOT_TIMED, (9,) * 3)}
    )
    one = {"run": {"environment": {"threads": 7}}} if key == "epoch_seconds" else {"cost": {"machine": {"threads": 7}}}
    others = [
        replace(r, **{part: getattr(r, part) | changed for part, changed in one.items()})
        for r in full.records["depthwise"]
    ]
    table = claims.claims(replace(full, rows=rows, records=full.records | {"depthwise": others}))
    found = [claim for claim in table if claim.says.startswith(("An epoch takes", "Shortcuts make"))]
    assert [claim.outcome for claim in found] == ["not measured"] * 2
    assert all("different machines" in claim.measured for claim in found)


def test_a_network_that_was_not_evaluated_leaves_its_claims_unmeasured(full):
    table = claims.claims(replace(full, rows=[row for row in full.rows if row.model != "residual"]))
    residual = [claim for claim in table if claim.measured == "residual not evaluated"]
    assert len(residual) == 4
    assert {claim.outcome for claim in residual} == {"not measured"}


def test_ranks_count_from_the_easiest_and_ties_share(compared):
    row = replace(
        compared.rows[0],
        confusion=np.diag([9, 9, 5] + [0] * 9) + np.roll(np.diag([1] * 12), 1, axis=1),
        top1=Spread(0, None, 1),
    )
    found = claims.ranks(compared, row, ("trolleybus", "Dugong", "plunger", "submarine"))
    assert [(one.name, one.rank, one.from_hardest, one.of) for one in found] == [
        ("trolleybus", 1, 11, 12),
        ("Dugong", 1, 11, 12),
        ("plunger", 4, 1, 12),
    ]


def test_metrics_that_are_not_those_of_the_predictions_are_refused(tmp_path):
    evaluated, trained = fake_results.make(tmp_path, models=("alexnet",), seeds=(0,))
    path = evaluated / "alexnet-0" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"top1": 0.5}))
    with pytest.raises(
        UserError, match=r"metrics.json: top1 is 0.5, and 0.4\d+ by predictions.npz .* evaluate@alexnet-0$"
    ):
        comparison.load(evaluated, trained)
