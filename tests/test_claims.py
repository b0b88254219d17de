"""The paper's claims and the rules that judge them."""

from collections.abc import Sequence
from dataclasses import replace

import fake_results
import pytest

from frugalnet.adaptation.result import AdaptationResult
from frugalnet.comparison.compare import Comparison, Evidence
from frugalnet.comparison.networks import Row
from frugalnet.metrics.statistics import Interval, Quantiles, SeedMean
from frugalnet.paper import claims, judges
from frugalnet.paper.claims import CLAIMS, EASIEST, HARDEST, Claim, judge
from frugalnet.robustness.result import RobustnessResult

NAMES = ("alexnet", "depthwise", "residual")
OF_COUNTS_AND_TIMES = {
    "alexnet_parameters",
    "depthwise_parameters",
    "residual_parameters",
    "parameters_ratio",
    "epoch_seconds",
    "residual_seconds",
}
OF_EXPERIMENTS = {"one_pixel", "device_training", "smaller_is_enough", "power_and_memory"}


@pytest.fixture(scope="module")
def full(full: Evidence) -> Comparison:
    """The comparison without the experiments."""
    return full.comparison


def judged(comparison: Comparison, *results: object) -> dict[str, Claim]:
    return {claim.key: claim for claim in judge(Evidence(comparison, results))}


def changed(comparison: Comparison, model: str, **figures: object) -> Comparison:
    """The comparison with other figures of one network."""
    return replace(comparison, rows=[replace(row, **figures) if row.model == model else row for row in comparison.rows])


def mean(value: float) -> SeedMean:
    return SeedMean(value, None, 1)


def fine_tuned(models: Sequence[str] = NAMES) -> AdaptationResult:
    return fake_results.adapted(models)


@pytest.mark.parametrize(("recipe", "epochs"), [("modern", 100), ("paper", 30)])
def test_claims_that_depend_on_the_recipe_are_tested_only_by_the_papers(full, recipe, epochs):
    paper = judged(full)
    rows = [replace(row, recipe=recipe, epochs=epochs) for row in full.rows]
    for key, claim in judged(replace(full, rows=rows)).items():
        if key in OF_COUNTS_AND_TIMES | OF_EXPERIMENTS:
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
        return changed(full, "alexnet", train_top1=mean(train), top1=mean(top1))

    keys = ("alexnet_training", "alexnet_overfits", "alexnet_validation")
    assert [judged(with_figures(0.96, 0.33))[key].outcome for key in keys] == ["agrees"] * 3
    assert [judged(with_figures(0.90, 0.36))[key].outcome for key in keys] == ["differs", "agrees", "differs"]
    assert judged(with_figures(0.90, 0.36))["alexnet_overfits"].measured == "54.0 points"
    assert judged(with_figures(0.40, 0.33))["alexnet_overfits"].outcome == "differs"
    assert judged(with_figures(0.99, 0.25))["alexnet_overfits"].outcome == "differs"


@pytest.mark.parametrize(("how", "why"), [({"is_sample": True}, "sample data"), ({}, "12 of 200 classes")])
def test_sample_data_and_fewer_classes_judge_nothing(tmp_path, how, why):
    found = judged(fake_results.comparison(tmp_path, seeds=(0,), **how))
    assert {(claim.measured, claim.outcome) for claim in found.values()} == {(why, "not measured")}


def test_the_papers_parameter_counts_are_judged_exactly(full):
    found = judged(full)
    assert found["alexnet_parameters"].outcome == "agrees"
    depthwise = found["depthwise_parameters"]
    assert depthwise.outcome == "differs"
    assert depthwise.measured == "74,760 by Keras's count (73,800 trainable), 58 fewer"
    more = judged(changed(full, "depthwise", parameters_keras=74_820))["depthwise_parameters"]
    assert (more.measured, more.outcome) == ("74,820 by Keras's count (73,800 trainable), 2 more", "differs")
    assert found["residual_parameters"].outcome == "agrees"
    size = found["parameters_ratio"]
    assert (size.measured.replace("\u00a0", " "), size.outcome) == ("17.99 %", "agrees")


def test_every_claim_of_the_paper_has_a_row_and_an_outcome(full):
    table = judged(full, fake_results.robustness(NAMES), fine_tuned())
    assert [*table] == [statement.key for statement in CLAIMS]
    assert len(table) == 21
    assert {claim.key for claim in table.values() if claim.outcome == "not judged"} == {"power_and_memory"}
    assert "not measured" not in {claim.outcome for claim in table.values()}
    without = {claim.key for claim in judged(full).values() if claim.outcome == "not measured"}
    assert without == OF_EXPERIMENTS - {"power_and_memory"}


def with_difference(comparison: Comparison, first: str, second: str, interval: Interval) -> Comparison:
    """The comparison with another difference of two networks."""
    others = [one for one in comparison.differences if {one.first, one.second} != {first, second}]
    (own,) = [one for one in comparison.differences if {one.first, one.second} == {first, second}]
    return replace(comparison, differences=[*others, replace(own, first=first, second=second, interval=interval)])


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
    found = judged(with_difference(full, "residual", "depthwise", Interval(top1, low, high)))["residual_validation"]
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
    [
        ((50, 48, 52), "agrees"),
        ((30, 29, 31), "differs"),
        ((40.4, 39, 42), "undecided"),
        ((40.4, 41.1, 42), "agrees"),  # within 2 %, but the ranges do not overlap
        ((39.6, 38, 38.9), "differs"),
        (None, "not measured"),
    ],
)
def test_the_price_of_shortcuts_is_judged_by_what_was_measured(full, residual, expected):
    times = {"alexnet": (100, 99, 101), "depthwise": (40, 39, 41), "residual": residual}
    found = judged(replace(full, rows=timed(full, train_step_ms=times)))["residual_seconds"]
    assert found.outcome == expected


GPU = "NVIDIA H200"  # as `compute.describe_machine` names it


def on(device: str, rows):
    """The rows with costs measured on that device."""
    return [
        replace(row, records=[replace(r, cost=r.cost | {"machine": {"device": device}}) for r in row.records])
        for row in rows
    ]


@pytest.mark.parametrize(
    ("device", "depthwise", "expected"),
    [(GPU, 35, "agrees"), (GPU, 90, "differs"), (GPU, None, "not measured"), ("cpu", 35, "not tested")],
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
    table = judged(replace(full, rows=[row for row in full.rows if row.model != "residual"]))
    residual = [claim for claim in table.values() if claim.measured == "residual not evaluated"]
    assert len(residual) == 4
    assert {claim.outcome for claim in residual} == {"not measured"}


def test_the_papers_recipe_judges_what_a_comparison_without_its_networks_cannot():
    own = [
        Claim(key, "says", section, "depthwise not evaluated", "not measured", "rule")
        for key, section in (("depthwise_training", "4.1"), ("parameters_ratio", "4.2"))
    ]
    trained, counted = claims.tested_by(own, [replace(one, measured="47.9", outcome="agrees") for one in own])
    assert (trained.measured, trained.outcome) == ("47.9 after 100 epochs of recipe paper", "agrees")
    assert counted == own[1], "it does not depend on the recipe"


@pytest.mark.parametrize(("count", "expected"), [(415_656, "differs"), (74_000, "differs"), (74_760, "agrees")])
def test_networks_said_to_have_equally_many_parameters_have_the_same_number(full, count, expected):
    claim = judged(changed(full, "residual", parameters_keras=count))["residual_parameters"]
    assert (claim.measured, claim.outcome) == (f"{count:,} and 74,760", expected)


@pytest.mark.parametrize(
    ("count", "expected"), [(17_499, "differs"), (17_501, "agrees"), (18_499, "agrees"), (18_501, "differs")]
)
def test_the_ratio_of_parameters_is_the_papers_after_rounding(full, count, expected):
    alexnet = changed(full, "alexnet", parameters_keras=100_000)
    assert judged(changed(alexnet, "depthwise", parameters_keras=count))["parameters_ratio"].outcome == expected


@pytest.mark.parametrize(
    ("residual", "expected"), [(0.39, "differs"), (0.40, "differs"), (0.449, "agrees"), (0.451, "differs")]
)
def test_a_training_accuracy_is_slightly_higher_by_at_most_five_points(full, residual, expected):
    comparison = changed(full, "depthwise", train_top1=mean(0.40))
    claim = judged(changed(comparison, "residual", train_top1=mean(residual)))["residual_training"]
    assert claim.measured.replace("\u00a0", " ") == f"{100 * residual:.1f} % and 40.0 %"
    assert claim.outcome == expected


@pytest.mark.parametrize(("train", "said", "expected"), [(0.44, "14.0", "agrees"), (0.46, "16.0", "differs")])
def test_overfitting_less_is_a_smaller_gap_between_training_and_validation(full, train, said, expected):
    comparison = changed(full, "alexnet", train_top1=mean(0.48), top1=mean(0.33))
    claim = judged(changed(comparison, "depthwise", train_top1=mean(train), top1=mean(0.30)))["depthwise_overfits_less"]
    assert (claim.measured, claim.outcome) == (f"{said} points, against 15.0 points", expected)


@pytest.mark.parametrize(
    ("top1", "expected"),
    [(-0.021, "differs"), (-0.019, "agrees"), (0.0, "agrees"), (0.019, "agrees"), (0.021, "differs")],
)
def test_almost_the_same_accuracy_is_within_two_points_whatever_the_interval(full, top1, expected):
    for width in (0.001, 0.1):
        interval = Interval(top1, top1 - width, top1 + width)
        assert (
            judged(with_difference(full, "depthwise", "alexnet", interval))["depthwise_validation"].outcome == expected
        )


def with_accuracies(comparison: Comparison, accuracies: dict[str, float]) -> Comparison:
    """The comparison with these accuracies of alexnet's classes, by name; 0.4 and 0.5 in turn for all others."""
    (row,) = [row for row in comparison.rows if row.model == "alexnet"]
    others = [accuracies.get(one.name, 0.4 + 0.1 * (i % 2)) for i, one in enumerate(row.classes)]
    classes = [replace(one, accuracy=value) for one, value in zip(row.classes, others, strict=True)]
    return changed(comparison, "alexnet", classes=classes)


@pytest.mark.parametrize(
    ("key", "names", "extreme"), [("easiest_classes", EASIEST, 0.9), ("hardest_classes", HARDEST, 0.1)]
)
def test_three_of_the_five_named_classes_must_be_in_the_extreme_tenth(full, key, names, extreme):
    opposite = 1 - extreme
    three = dict.fromkeys(names[:3], extreme) | dict.fromkeys(names[3:], opposite)
    claim = judged(with_accuracies(full, three))[key]
    assert claim.outcome == "agrees"
    assert claim.measured.startswith(f"{names[0]} 1, {names[1]} 1, {names[2]} 1, {names[3]} 199")
    two = dict.fromkeys(names[:2], extreme) | dict.fromkeys(names[2:], opposite)
    assert judged(with_accuracies(full, two))[key].outcome == "differs"
    # The named class is the 20th or the 21st of 200 if 19 or 20 others are more extreme.
    for more, expected in ((19, "agrees"), (20, "differs")):
        others = {f"thing {i}": extreme for i in range(10, 10 + more)}
        near = dict.fromkeys(names[:3], (extreme + 0.45) / 2) | dict.fromkeys(names[3:], opposite)
        assert judged(with_accuracies(full, others | near))[key].outcome == expected


def test_classes_that_the_data_lack_leave_their_claims_unmeasured(full):
    (row,) = [row for row in full.rows if row.model == "alexnet"]
    few = changed(full, "alexnet", classes=[one for one in row.classes if one.name != EASIEST[0]])
    assert judged(few)["easiest_classes"].outcome == "not measured"
    assert judged(few)["easiest_accuracy"].outcome != "not measured"
    none = changed(full, "alexnet", classes=[one for one in row.classes if one.name not in EASIEST])
    assert judged(none)["easiest_accuracy"].outcome == "not measured"


@pytest.mark.parametrize(
    ("accuracy", "expected"), [(0.59, "differs"), (0.61, "agrees"), (0.79, "agrees"), (0.81, "differs")]
)
def test_the_easiest_classes_accuracy_is_judged_on_average(full, accuracy, expected):
    spread = dict(zip(EASIEST, (accuracy - 0.15, accuracy + 0.15, accuracy, accuracy, accuracy), strict=True))
    claim = judged(with_accuracies(full, spread))["easiest_accuracy"]
    assert claim.measured.replace("\u00a0", " ").endswith(f"; {100 * accuracy:.1f} % on average")
    assert claim.outcome == expected


def test_one_network_that_no_pixel_fools_leaves_the_claim_undecided(full):
    attacked = fake_results.robustness(NAMES)
    assert judged(full, attacked)["one_pixel"].outcome == "agrees"
    first, *others = attacked.networks
    attacks = [
        each.model_copy(update={"evolution": [o.model_copy(update={"changes": None}) for o in each.evolution]})
        for each in first.attacks
    ]
    unfooled: RobustnessResult = attacked.model_copy(
        update={"networks": [first.model_copy(update={"attacks": attacks}), *others]}
    )
    claim = judged(full, unfooled)["one_pixel"]
    assert claim.measured.replace("\u00a0", " ").startswith("fools alexnet on 0.0 % (0.0 to 8.8 %), depthwise on ")
    assert claim.outcome == "undecided"
    corrupted_only = attacked.model_copy(update={"pixels": []})
    assert judged(full, corrupted_only)["one_pixel"].outcome == "not measured"


@pytest.mark.parametrize("key", ["device_training", "smaller_is_enough"])
@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.01, 0.03, "agrees"), (-0.03, -0.01, "differs"), (-0.01, 0.03, "undecided")]
)
def test_training_on_the_device_is_judged_by_the_sign_of_the_difference(full, monkeypatch, key, low, high, expected):
    monkeypatch.setattr(judges, "difference", lambda *_: Interval((low + high) / 2, low, high))
    claim = judged(full, fine_tuned())[key]
    assert claim.outcome == expected
    points = " ".join((f"{50 * (low + high):+.1f} points", f"({100 * low:+.1f} to {100 * high:+.1f})"))
    assert points.replace("-", "−") in claim.measured


def test_the_smallest_network_fine_tuned_is_compared_with_itself_and_with_the_largest_as_it_is(full, monkeypatch):
    asked = []

    def difference(first, method, second, other):
        asked.append((first.model, method, second.model, other))
        return Interval(0.02, 0.01, 0.03)

    monkeypatch.setattr(judges, "difference", difference)
    smallest, *_, largest = full.by_macs
    table = judged(full, fine_tuned())
    assert asked == [
        (smallest, ("all", 50), smallest, ("restricted", 0)),
        (smallest, ("all", 50), largest, ("restricted", 0)),
    ]
    assert table["device_training"].measured.startswith(f"{smallest}, fine-tuned on 4 classes: ")
    assert table["smaller_is_enough"].measured.startswith(f"{smallest}, fine-tuned, against {largest} as it is: ")
    alone = judged(full, fine_tuned((smallest,)))
    assert alone["device_training"].outcome == "agrees"
    assert alone["smaller_is_enough"].outcome == "not measured"


def with_step_costs(row: Row, **costs: float | None) -> Row:
    return replace(row, records=[replace(record, cost=record.cost | costs) for record in row.records])


def test_a_training_steps_memory_and_energy_are_told_and_not_judged(full):
    costs = {"peak_memory_train_step_bytes": 320e6, "energy_joules_per_training_image": 0.5}
    claim = judged(replace(full, rows=[with_step_costs(row, **costs) for row in full.rows]))["power_and_memory"]
    smallest, *_, largest = full.by_macs
    assert claim.measured == (
        "a training step of the networks with the most and the fewest MACs: "
        f"{largest} 320 MB, 500 mJ an image; {smallest} 320 MB, 500 mJ an image"
    )
    assert claim.outcome == "not judged"
    unknown = [with_step_costs(row, peak_memory_train_step_bytes=None) for row in full.rows]
    claim = judged(replace(full, rows=unknown))["power_and_memory"]
    assert claim.measured.endswith(f": {largest} not measured; {smallest} not measured")
    assert claim.outcome == "not measured"
    alone = judged(replace(full, rows=full.rows[:1]))["power_and_memory"].measured
    assert alone.startswith(f"a training step: {full.rows[0].model} 480 MB")
