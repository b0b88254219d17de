import time

import fake_results
import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score

from frugalnet.errors import UserError
from frugalnet.metrics import accuracy, classes, statistics


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 7, 500)
    logits = generator.normal(size=(500, 7)) * 2
    logits[np.arange(500), labels] += 1.5
    return logits, labels


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_scikit_learns(sample, k):
    logits, labels = sample
    assert accuracy.top_k(logits, labels, k) == pytest.approx(top_k_accuracy_score(labels, logits, k=k))


def test_top_1_agrees_with_the_prediction_where_float16_logits_tie():
    logits = np.array([[1, 1, 0], [1, 1, 0], [0, 2, 2], [5, 5, 5]], dtype=np.float16)
    labels = np.array([0, 1, 2, 2])
    assert accuracy.top_k(logits, labels, 1) == (accuracy.predict(logits) == labels).mean() == 0.25
    assert accuracy.top_k(logits, labels, 2) == 0.75


def test_cross_entropy_is_scikit_learns_log_loss(sample):
    logits, labels = sample
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert accuracy.cross_entropy(logits, labels) == pytest.approx(log_loss(labels, probabilities))


def test_cross_entropy_survives_logits_whose_exponential_overflows():
    assert accuracy.cross_entropy(np.array([[60000, 0]], dtype=np.float16), np.array([1])) == pytest.approx(60000, 1e-3)


def test_macro_accuracy_is_scikit_learns_balanced_accuracy(sample):
    logits, labels = sample
    expected = balanced_accuracy_score(labels, logits.argmax(axis=1))
    assert accuracy.macro_accuracy(logits, labels) == pytest.approx(expected)


def test_calibration_error_of_a_hand_made_case():
    # Two bins hold something: confidence 0.9 with 1 of 2 right, confidence 0.6 with 2 of 2 right.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 1])
    expected = 0.5 * abs(0.5 - 0.9) + 0.5 * abs(1 - 0.6)
    assert accuracy.expected_calibration_error(np.log(probabilities), labels) == pytest.approx(expected)


def test_calibration_error_keeps_the_two_highest_bins_apart():
    probabilities = np.array([[0.9, 0.1], [0.99, 0.01]])
    expected = 0.5 * 0.9 + 0.5 * 0.01
    assert accuracy.expected_calibration_error(np.log(probabilities), np.array([1, 0])) == pytest.approx(expected)


def calibration_error_of_a_mistake_and_a_hit(mistake: float, hit: float) -> float:
    """Of one picture answered wrongly and one answered rightly, with these confidences; ten classes."""
    probabilities = np.full((2, 10), 1e-30)
    probabilities[:, 3] = mistake, hit
    probabilities[:, 4:] = (1 - probabilities[:, 3:4]) / 6
    return accuracy.expected_calibration_error(np.log(probabilities), np.array([0, 3]))


def test_calibration_error_has_fifteen_bins_of_equal_width():
    # Between 8/15 and 9/15, errors of opposite sign cancel; at either edge they do not.
    assert calibration_error_of_a_mistake_and_a_hit(0.54, 0.59) == pytest.approx((0.54 - (1 - 0.59)) / 2)
    assert calibration_error_of_a_mistake_and_a_hit(0.52, 0.545) == pytest.approx((0.52 + (1 - 0.545)) / 2)
    assert calibration_error_of_a_mistake_and_a_hit(0.61, 0.59) == pytest.approx((0.61 + (1 - 0.59)) / 2)


def test_calibration_error_counts_an_edge_to_the_lower_bin():
    logits = np.zeros((2, 2))  # the mistake: a confidence of exactly one half
    logits[1, 0] = np.log(0.75 / 0.25)
    error = accuracy.expected_calibration_error(logits, np.array([1, 0]), bins=2)
    assert error == pytest.approx((0.5 + (1 - 0.75)) / 2)  # apart: no error cancels another


def test_a_network_sure_and_right_is_calibrated():
    logits = np.eye(4) * 1000
    assert accuracy.expected_calibration_error(logits, np.arange(4)) == 0


@pytest.mark.parametrize(("correct", "n"), [(0, 50), (1, 50), (25, 50), (49, 50), (50, 50), (1, 1), (3817, 10000)])
def test_wilson_interval_is_scipys(correct, n):
    low, high = statistics.wilson_interval(np.array([correct]), np.array([n]))
    expected = binomtest(correct, n).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))


def test_per_class_table_of_a_hand_made_case():
    labels = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 2, 2, 1, 1, 1])
    rows = classes.per_class(classes.confusion(predicted, labels, 3), ["n0", "n1", "n2"], ["ant", "bee", "cat"])
    assert [(r.class_id, r.name, r.n, r.correct, r.accuracy, r.most_confused_with) for r in rows] == [
        ("n0", "ant", 4, 1, 0.25, "cat"),
        ("n1", "bee", 2, 2, 1.0, ""),
        ("n2", "cat", 0, 0, None, ""),
    ]
    assert (rows[2].wilson_low, rows[2].wilson_high) == (0, 1)


def test_confused_pairs_count_both_directions_and_leave_out_what_never_happened():
    confused = np.array([[9, 1, 0], [3, 5, 2], [0, 0, 8]])
    pairs = classes.most_confused_pairs(confused, ["ant", "bee", "cat"])
    assert [(p.first, p.second, p.forward, p.backward) for p in pairs] == [("bee", "ant", 3, 1), ("bee", "cat", 2, 0)]


def test_best_and_worst_share_no_class_and_leave_out_classes_without_images():
    assert classes.best_and_worst([0.5, None, 0.9, 0.1, 0.9]) == ([2, 4], [3, 0])
    best, worst = classes.best_and_worst([c / 20 for c in range(20)])
    assert (best, worst) == ([19, 18, 17, 16, 15], [0, 1, 2, 3, 4])


def test_bootstrap_of_one_seed_is_drawing_images():
    generator = np.random.default_rng(3)
    first = generator.random(400) < 0.6
    second = np.where(generator.random(400) < 0.3, generator.random(400) < 0.5, first)
    drawn = generator.integers(0, 400, (10_000, 400))
    slow = np.quantile((first[drawn].astype(int) - second[drawn]).mean(axis=1), [0.025, 0.975])
    found = statistics.bootstrap(first[None], second[None])
    assert found.estimate == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx(tuple(slow), abs=0.006)


def test_bootstrap_of_identical_networks_spans_zero_with_no_width():
    correct = np.random.default_rng(0).random((1, 100)) < 0.5
    assert statistics.bootstrap(correct, correct) == statistics.Interval(0, 0, 0)
    assert not statistics.bootstrap(correct, correct).excludes_zero


def test_bootstrap_interval_widens_when_seeds_differ():
    images = np.arange(10_000) / 10_000
    alike = np.stack([images < 0.40] * 3)
    apart = np.stack([images < 0.30, images < 0.40, images < 0.50])
    narrow, wide = statistics.bootstrap(alike), statistics.bootstrap(apart)
    assert narrow.estimate == pytest.approx(wide.estimate)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_two_seeds_have_the_spread_of_the_sample_not_of_the_two_alone():
    images = np.arange(10_000) / 10_000
    found = statistics.bootstrap(np.stack([images < 0.3, images < 0.5]))
    # Means of two drawn from two lie 0.1 away at most; the sample's variance is twice that of the two.
    assert (found.high - found.low) / 2 == pytest.approx(0.1 * np.sqrt(2), abs=0.01)


def test_intervals_stay_within_what_an_accuracy_or_a_difference_can_be():
    seeds = np.stack([np.ones(100, bool), np.arange(100) < 90])
    accuracy_of_two = statistics.bootstrap(seeds)
    assert (accuracy_of_two.estimate, accuracy_of_two.high) == (pytest.approx(0.95), 1.0)
    assert statistics.bootstrap(~seeds).low == 0.0
    difference = statistics.bootstrap(seeds, ~seeds)
    assert (difference.estimate, difference.high) == (pytest.approx(0.9), 1.0)
    assert statistics.bootstrap(~seeds, seeds).low == -1.0
    lower = statistics.bootstrap(np.arange(100)[None] < 30, np.arange(100)[None] < 50)
    assert -1 < lower.low < lower.high < 0  # a difference may be negative


def test_intervals_over_draws_cover_draws_and_pictures():
    of_one = statistics.over_draws([np.array([1.0] * 30 + [0.0] * 70)])
    assert of_one.estimate == 0.3
    assert (of_one.low, of_one.high) == pytest.approx((0.21, 0.39), abs=0.015)  # the binomial's
    apart = statistics.over_draws([np.ones(100), np.zeros(100)])
    assert (apart.estimate, apart.low, apart.high) == (0.5, 0.0, 1.0)  # two draws that differ so tell little
    gained = statistics.over_draws([np.ones(100), np.zeros(100)], lowest=-1)
    assert -1 < gained.low < 0  # it may also be a loss
    assert gained.high == 1.0
    same = statistics.over_draws([np.array([1.0] * 30 + [0.0] * 70)] * 3)
    assert (same.low, same.high) == pytest.approx((0.3 - 0.073, 0.3 + 0.073), abs=0.01)  # √2 times the binomial's
    paired = statistics.over_draws([np.array([1.0, 0, 0, -1.0])], lowest=-1)
    assert paired.estimate == 0
    assert paired.low == pytest.approx(-paired.high, abs=0.3)


def test_the_interval_of_a_class_counts_each_image_once_however_many_seeds_answered():
    confused = np.array([[30, 20], [10, 40]])
    one = classes.per_class(confused, ["a", "b"], ["A", "B"])
    three = classes.per_class(3 * confused, ["a", "b"], ["A", "B"], seeds=3)
    assert [(c.accuracy, c.wilson_low, c.wilson_high) for c in one] == [
        (c.accuracy, c.wilson_low, c.wilson_high) for c in three
    ]


def test_bootstrap_is_the_same_every_time_and_fast_at_full_size():
    correct = np.random.default_rng(0).random((6, 10_000)) < 0.4
    start = time.perf_counter()
    first = statistics.bootstrap(correct[:3], correct[3:])
    assert time.perf_counter() - start < 10
    assert first == statistics.bootstrap(correct[:3], correct[3:])


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        found = statistics.bootstrap(generator.random((1, 300)) < 0.4, generator.random((1, 300)) < 0.4, resamples=1000)
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_mcnemar_is_the_exact_binomial_of_the_discordant_pairs():
    first = np.array([True] * 8 + [False] * 2 + [True] * 90)
    second = np.array([False] * 8 + [True] * 2 + [True] * 90)
    assert statistics.mcnemar(first, second) == pytest.approx(2 * sum([1, 10, 45]) / 2**10)
    assert statistics.mcnemar(first, first) == 1


def test_deviation_over_seeds_is_the_samples_and_none_for_one():
    found = statistics.seed_mean([0.3, 0.4, 0.5])
    assert (found.mean, found.deviation, found.n) == (pytest.approx(0.4), pytest.approx(0.1), 3)
    assert statistics.seed_mean([0.3]).deviation is None


def test_quantiles_are_numpys():
    found = statistics.quantiles([1.0, 2.0, 3.0, 4.0, 10.0])
    assert (found.median, found.p5, found.p95, found.n) == (3, pytest.approx(1.2), pytest.approx(8.8), 5)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros(4, int), r"found \(3, 2\) and \(4,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), "found"),
        (np.array([[0, 1], [np.nan, 0]]), np.zeros(2, int), "image 1"),
        (np.zeros((2, 2)), np.array([0, 2]), r"labels in 0\.\.1, found 0\.\.2"),
    ],
)
def test_predictions_that_cannot_be_measured_are_refused(logits, labels, message):
    with pytest.raises(UserError, match=message):
        accuracy.figures(logits, labels)


def test_figures_hold_what_metrics_json_says(sample):
    assert list(accuracy.figures(*sample)) == ["top1", "top5", "loss", "macro_accuracy", "ece", "n"]


def test_classes_that_are_confused_stand_together():
    confused = np.diag([10] * 6)
    confused[0, 5] = confused[5, 0] = confused[2, 4] = 8
    order = classes.class_order(confused)
    assert sorted(order) == list(range(6))
    assert abs(order.index(0) - order.index(5)) == 1
    assert abs(order.index(2) - order.index(4)) == 1


def test_the_heatmap_leaves_out_what_was_right():
    share = classes.mistakes_percent(np.array([[3, 1], [0, 4]]), [1, 0])
    assert share[0, 1] == 0
    assert share[1, 0] == 25
    assert np.isnan(share.diagonal()).all()


def test_examples_are_the_first_of_the_class_right_and_wrong():
    labels = np.array([0, 1, 1, 0, 1, 1, 1])
    predicted = np.array([0, 1, 0, 1, 1, 1, 0])
    assert classes.examples(predicted, labels, 1, count=2) == ([1, 4], [2, 6])


def test_pareto_front_of_hand_made_points():
    costs = np.array([1, 2, 3, 3, 4, 1.0])
    accuracies = np.array([10, 30, 30, 40, 35, 10.0])
    #            equal points are both optimal; not the same accuracy at more cost, nor less accuracy at the same cost
    assert statistics.pareto_front(costs, accuracies).tolist() == [True, True, False, True, False, True]


def test_no_point_of_the_pareto_front_is_dominated():
    generator = np.random.default_rng(0)
    costs, accuracies = generator.random(60), generator.random(60)
    expected = [
        not any(c <= cost and a >= acc and (c < cost or a > acc) for c, a in zip(costs, accuracies, strict=True))
        for cost, acc in zip(costs, accuracies, strict=True)
    ]
    assert statistics.pareto_front(costs, accuracies).tolist() == expected


def test_ranks_count_from_the_easiest_and_ties_share():
    confused = np.diag([9, 9, 5] + [0] * 9) + np.roll(np.diag([1] * 12), 1, axis=1)
    rows = classes.per_class(confused, [""] * 12, fake_results.class_names(12))
    names = [row.name for row in rows[:3]]
    found = classes.ranks(rows, (names[1].upper(), names[0], names[2], "submarine"))
    assert [(rank.rank, rank.from_hardest, rank.count) for rank in found] == [(1, 11, 12), (1, 11, 12), (3, 10, 12)]
