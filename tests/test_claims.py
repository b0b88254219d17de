"""The paper's claims and the rules that judge them."""

from dataclasses import replace

import fake_results
import pytest

from frugalnet.comparison.compare import Comparison
from frugalnet.metrics.statistics import Interval, Quantiles, SeedMean
from frugalnet.paper import claims

OF_COUNTS_AND_TIMES = {
    "alexnet_parameters",
    "depthwise_parameters",
    "residual_parameters",
    "parameters_ratio",
    "epoch_seconds",
    "residual_seconds",
    *claims.introduction.SAYS,
}


def judged(comparison: Comparison) -> dict[str, claims.Claim]:
    return {claim.key: claim for claim in claims.judge(comparison)}


@pytest.mark.parametrize(("recipe", "epochs"), [("modern", 100), ("paper", 30)])
def test_claims_that_depend_on_the_recipe_are_tested_only_by_the_papers(full, recipe, epochs):
    paper = judged(full)
    rows = [replace(row, recipe=recipe, epochs=epochs) for row in full.rows]
    for key, claim in judged(replace(full, rows=rows)).items():
        if key in OF_COUNTS_AND_TIMES:
            assert claim == paper[key]
        else:
            assert paper[key].outcome in ("agrees", "differs", "undecided")
            assert claim.outcome == "not tested"
            says = f"{paper[key].measured} after {epochs} epochs of recipe {recipe}, not 100 epochs of recipe paper"
            assert claim.measured == says


def test_one_network_with_another_recipe_leaves_its_claims_untested(full):
    rows = [replace(row, epochs=5) if row.model == "depthwise" else row for row in full.rows]
    found = judged(replace(full, rows=rows))
    untested = {key for key, claim in found.items() if claim.outcome == "not tested"}
    assert untested == {
        "epoch_seconds",  # not on a GPU
        "depthwise_training",
        "residual_training",
        "depthwise_overfits_less",
        "depthwise_validation",
        "residual_validation",
    }


def test_training_accuracies_and_gaps_are_judged_within_their_limits(full):
    def with_figures(train: float, top1: float) -> Comparison:
        figures = {"train_top1": SeedMean(train, None, 1), "top1": SeedMean(top1, None, 1)}
        return replace(full, rows=[replace(row, **figures) if row.model == "alexnet" else row for row in full.rows])

    keys = ("alexnet_training", "alexnet_overfits", "alexnet_validation")
    assert [judged(with_figures(0.96, 0.33))[key].outcome for key in keys] == ["agrees"] * 3
    assert [judged(with_figures(0.90, 0.36))[key].outcome for key in keys] == ["differs", "agrees", "differs"]
    assert judged(with_figures(0.90, 0.36))["alexnet_overfits"].measured == "54.0 points"
    assert judged(with_figures(0.40, 0.33))["alexnet_overfits"].outcome == "differs"


@pytest.mark.parametrize(("how", "why"), [({"is_sample": True}, "sample data"), ({}, "12 of 200 classes")])
def test_sample_data_and_fewer_classes_judge_nothing(tmp_path, how, why):
    found = judged(fake_results.compared(tmp_path, seeds=(0,), **how))
    assert {(claim.measured, claim.outcome) for claim in found.values()} == {(why, "not measured")}


def test_the_papers_parameter_counts_are_judged_exactly(full):
    found = judged(full)
    assert found["alexnet_parameters"].outcome == "agrees"
    depthwise = found["depthwise_parameters"]
    assert depthwise.outcome == "differs"
    assert depthwise.measured == "74,760 by Keras's count (73,800 trainable), 58 fewer"
    assert found["residual_parameters"].outcome == "agrees"
    size = found["parameters_ratio"]
    assert (size.measured.replace("\u00a0", " "), size.outcome) == ("17.99 %", "agrees")


def test_every_claim_of_the_paper_has_a_row_and_an_outcome(full):
    table = claims.judge(full)
    assert len(table) == 21
    assert {claim.key for claim in table if claim.outcome == "not judged"} == {"power_and_memory"}
    assert "not measured" not in {claim.outcome for claim in table}


@pytest.mark.parametrize(
    ("top1", "low", "high", "expected", "said"),
    [
        (0.02, 0.01, 0.03, "agrees", "higher by 2.0 points (95 % interval 1.0 to 3.0)"),
        (0.02, -0.01, 0.05, "undecided", "higher by 2.0 points (95 % interval −1.0 to 5.0)"),
        (0.0, -0.01, 0.02, "undecided", "higher by 0.0 points (95 % interval −1.0 to 2.0)"),
        (-0.02, -0.03, -0.01, "differs", "lower by 2.0 points (95 % interval 1.0 to 3.0)"),
        (0.2, 0.1, 0.3, "differs", "higher by 20.0 points (95 % interval 10.0 to 30.0)"),
    ],
)
def test_the_residual_claim_is_undecided_if_the_interval_includes_zero(full, top1, low, high, expected, said):
    changed = [
        replace(d, interval=Interval(top1, low, high)) if (d.first, d.second) == ("residual", "depthwise") else d
        for d in full.differences
    ]
    found = judged(replace(full, differences=changed))["residual_validation"]
    assert found.outcome == expected
    assert f"residual {said}" in found.measured.replace("\u00a0", " ")


def timed(full, **times):
    """The rows with these medians, or medians and percentiles, of each network under each key."""
    return [
        replace(row, **{key: Quantiles(*of[row.model], 8) if of[row.model] else None for key, of in times.items()})
        for row in full.rows
    ]


@pytest.mark.parametrize(
    ("residual", "expected"),
    [((50, 48, 52), "agrees"), ((30, 29, 31), "differs"), ((40.4, 39, 42), "undecided"), (None, "not measured")],
)
def test_the_price_of_shortcuts_is_judged_by_what_was_measured(full, residual, expected):
    times = {"alexnet": (100, 99, 101), "depthwise": (40, 39, 41), "residual": residual}
    found = judged(replace(full, rows=timed(full, train_step_ms=times)))["residual_seconds"]
    assert found.outcome == expected


def on(device: str, rows):
    """The rows with costs measured on that device."""
    return [
        replace(row, records=[replace(r, cost=r.cost | {"machine": {"device": device}}) for r in row.records])
        for row in rows
    ]


@pytest.mark.parametrize(
    ("device", "depthwise", "expected"),
    [("cuda", 35, "agrees"), ("cuda", 90, "differs"), ("cuda", None, "not measured"), ("cpu", 35, "not tested")],
)
def test_speed_on_a_gpu_is_judged_by_alternating_measurements_and_never_by_epochs(full, device, depthwise, expected):
    step = {"alexnet": (100,) * 3, "depthwise": depthwise and (depthwise,) * 3, "residual": (40,) * 3}
    for epoch in (1, 35, 1000):
        times = {"alexnet": (100,) * 3, "depthwise": (epoch,) * 3, "residual": (epoch,) * 3}
        rows = on(device, timed(full, epoch_seconds=times, train_step_ms=step))
        found = judged(replace(full, rows=rows))["epoch_seconds"]
        assert found.outcome == expected
        assert not depthwise or found.measured.startswith(f"{depthwise}.0 against 100.0 ms forward and backward")


def test_a_network_that_was_not_evaluated_leaves_its_claims_unmeasured(full):
    table = claims.judge(replace(full, rows=[row for row in full.rows if row.model != "residual"]))
    residual = [claim for claim in table if claim.measured == "residual not evaluated"]
    assert len(residual) == 4
    assert {claim.outcome for claim in residual} == {"not measured"}


def test_the_papers_recipe_judges_what_a_comparison_without_its_networks_cannot():
    own = [
        claims.Claim(key, "says", "4", "depthwise not evaluated", "not measured", "rule")
        for key in ("depthwise_training", "parameters_ratio")
    ]
    trained, counted = claims.tested_by(own, [replace(one, measured="47.9", outcome="agrees") for one in own])
    assert (trained.measured, trained.outcome) == ("47.9 after 100 epochs of recipe paper", "agrees")
    assert counted == own[1], "it does not depend on the recipe"
