"""Which network is recommended, without limits and within a budget, and in which words."""

from dataclasses import replace
from typing import Any

import fake_results
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from frugalnet.comparison.compare import Comparison, Evidence
from frugalnet.metrics.statistics import Interval, SeedMean
from frugalnet.recommendation import COSTS, MORE, Budget, Candidate, amount, choose, frugal, near, ranked
from frugalnet.study.advice import advise, candidates, chooser


def names(networks: list[Candidate]) -> list[str]:
    return [network.name for network in networks]


def budget(**limits: Any) -> Budget:
    return Budget.model_validate(limits)


BIG = Candidate("big", 0.50, 20e6, 400e3, 1.6e6, 0.6, 64e6)
SMALL = Candidate("small", 0.44, 4e6, 70e3, 300e3, 0.4, 62e6)
TINY = Candidate("tiny", 0.30, 1e6, 20e3, 80e3, 0.2, 61e6)
UNTIMED = Candidate("untimed", 0.47, 3e6, 60e3, 250e3)
NETWORKS = [TINY, BIG, SMALL]


# Amounts and limits


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4M", 4e6),
        ("100k", 1e5),
        ("1.5G", 1.5e9),
        ("100 kB", 1e5),
        (" 2T ", 2e12),
        ("0.4", 0.4),
        (".5K", 500.0),
        ("4e6", 4e6),
        ("12B", 12.0),
    ],
)
def test_an_amount_may_have_a_prefix(text, value):
    assert amount(text) == value


@pytest.mark.parametrize("text", ["", "M", "4m", "4 Mi", "-4", "1,5M", "4M M", "inf", "nan", "٤M"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match=r"expected a number, as 4000000, 4M, 100k or 1\.5G; found "):
        amount(text)


def test_a_budget_takes_numbers_and_amounts_and_nothing_else():
    assert budget(macs="4M", latency_ms=1).limits == {"macs": 4e6, "latency_ms": 1}
    assert budget().limits == {}
    for wrong in ({"macs": 0}, {"macs": -1}, {"macs": True}, {"macs": "lots"}, {"macs": "1e999"}, {"mac": 1}):
        with pytest.raises(ValidationError):
            budget(**wrong)


# The rule


def test_the_best_has_the_highest_top1_and_of_a_tie_the_fewest_macs():
    tie = replace(BIG, name="a", macs=30e6)
    assert names(ranked([tie, *NETWORKS])) == ["big", "a", "small", "tiny"]


def test_the_frugal_network_has_the_fewest_macs_within_five_points():
    closer = replace(SMALL, top1=0.45)
    assert names(near([BIG, closer, TINY])) == ["big", "small"]
    assert len(near([replace(BIG, top1=0.40), replace(SMALL, top1=0.35)])) == 2, (
        "0.40 - 0.05 is a little more than 0.35"
    )
    assert frugal([TINY, closer, BIG]) == closer
    assert frugal([closer, BIG, replace(closer, name="as cheap", top1=0.46)]).name == "as cheap"


def test_the_frugal_network_is_the_next_best_if_no_cheaper_one_is_within_five_points():
    assert frugal(NETWORKS) == SMALL, "not the cheapest of all, which may be of no use"
    dearer = Candidate("dearer", 0.49, 30e6)
    assert frugal([*NETWORKS, dearer]) == SMALL, "a dearer one is no alternative"
    assert frugal([TINY, replace(TINY, name="worse", top1=0.2, macs=2e6)]) == TINY


def test_what_saves_less_than_a_tenth_of_the_macs_is_no_reason_to_give_up_accuracy():
    best, second = Candidate("best", 0.65, 3.51e6), Candidate("second", 0.62, 3.44e6)
    assert frugal([second, best]) == best
    assert frugal([replace(second, top1=0.50), best]) == best
    assert frugal([replace(second, macs=0.9 * 3.51e6), best]).name == "second"


def test_one_network_is_the_frugal_one_and_the_best():
    assert frugal([SMALL]) == SMALL
    assert choose([SMALL], budget(macs="4M")).fitting == [SMALL]
    assert choose([SMALL], budget(macs="3M")).closest == SMALL


def test_a_budget_leaves_what_exceeds_no_limit_the_best_first():
    choice = choose(NETWORKS, budget(macs="4M", latency_ms=0.5))
    assert names(choice.fitting) == ["small", "tiny"]
    assert (choice.next, choice.closest, choice.unknown) == (None, None, [])


@pytest.mark.parametrize(
    ("limits", "following"),
    [
        ({"macs": "17M"}, BIG),
        ({"macs": "16.6M"}, None),  # 20.5 % more
        ({"macs": "17M", "latency_ms": 0.55}, None),  # two limits would have to be higher
        ({"macs": "17M", "latency_ms": 0.6}, BIG),
        ({"macs": "20M"}, None),  # fits already
        ({"weights_bytes": "250k"}, SMALL),
    ],
)
def test_20_percent_more_of_one_limit_may_change_the_choice(limits, following):
    assert choose(NETWORKS, budget(**limits)).next == following


def test_the_next_network_is_more_accurate_and_not_only_beyond_the_limit():
    beyond = Candidate("beyond", SMALL.top1, 4.4e6)
    assert choose([SMALL, beyond], budget(macs="4M")).next is None


def test_where_nothing_fits_the_closest_exceeds_its_worst_limit_least():
    choice = choose(NETWORKS, budget(macs="0.9M", latency_ms=0.1))
    assert (choice.fitting, choice.closest, choice.next) == ([], TINY, None)
    assert choose(NETWORKS, budget(macs="0.9M")).next == TINY
    slow = Candidate("slow", 0.6, 0.5e6, latency_ms=9.0)
    assert choose([slow, TINY], budget(macs="0.4M", latency_ms=0.3)).closest == TINY, "2.5 times, not 1.25 and 30 times"


def test_a_latency_that_was_not_measured_is_not_known_to_fit():
    choice = choose([*NETWORKS, UNTIMED], budget(latency_ms=0.5))
    assert names(choice.fitting) == ["small", "tiny"]
    assert choice.unknown == [UNTIMED]
    assert choose([*NETWORKS, UNTIMED], budget(macs="4M")).fitting[0] == UNTIMED, "no limit on it"
    assert choose([UNTIMED], budget(macs="2M", latency_ms=1)).unknown == [], "over the limit, whatever it takes"
    nothing = choose([UNTIMED], budget(latency_ms=1))
    assert (nothing.fitting, nothing.closest, nothing.next) == ([], None, None)


numbers = st.floats(0.1, 10) | st.integers(1, 9).map(float)
networks_of = st.lists(
    st.builds(Candidate, st.uuids().map(str), numbers.map(lambda x: x / 10), numbers, latency_ms=st.none() | numbers),
    min_size=1,
    max_size=8,
)


@given(networks=networks_of, macs=st.none() | numbers, latency_ms=st.none() | numbers)
def test_a_choice_is_within_the_budget_and_nothing_better_is(networks, macs, latency_ms):
    limits = budget(macs=macs, latency_ms=latency_ms)
    choice = choose(networks, limits)
    assert {*choice.fitting}.isdisjoint(choice.unknown)
    for network in networks:
        costs = {cost: getattr(network, cost) for cost in limits.limits}
        fits = all(costs[cost] is not None and costs[cost] <= limit for cost, limit in limits.limits.items())
        assert (network in choice.fitting) == fits
        assert not fits or network.top1 <= choice.fitting[0].top1
    if choice.next:
        higher = {cost: limit * MORE * (1 + 1e-9) for cost, limit in limits.limits.items()}
        alone = [budget(**{**limits.limits, cost: higher[cost]}) for cost in higher]
        assert choice.next not in choice.fitting
        assert any(raised.fits(choice.next) for raised in alone)
        assert not choice.fitting or choice.next.top1 > choice.fitting[0].top1


# Its words


@pytest.fixture(scope="module")
def seven(tmp_path_factory) -> Evidence:
    """resnet18 56 %, mobilenet 49, alexnet 46 (28 M MACs), shufflenet 45, squeezenet 43, residual 42, depthwise 40.5
    (4.2 M); memory was not measured."""
    folder = tmp_path_factory.mktemp("seven")
    return Evidence(fake_results.comparison(folder, models=tuple(fake_results.NETWORKS), seeds=(0,)))


def advice(evidence: Evidence, **limits: Any) -> list[str]:
    return [sentence.replace("\u00a0", " ") for sentence in advise(evidence, budget(**limits))]


def changed(comparison: Comparison, interval: Interval, **rows: dict[str, Any]) -> Evidence:
    """Rows with other figures, and every difference with this interval."""
    differences = [replace(pair, interval=interval) for pair in comparison.differences]
    return Evidence(
        replace(
            comparison,
            rows=[replace(row, **rows.get(row.model, {})) for row in comparison.rows],
            differences=differences,
        )
    )


def test_the_advice_within_a_budget_names_the_best_how_sure_the_order_is_and_what_more_would_buy(seven):
    first, second, beyond, front = advice(seven, macs="50M", latency_ms=11)
    assert first.startswith("Within 50 M MACs and 11 ms per image, use alexnet: 46.0 % top-1 (95 % interval 42.")
    assert first.endswith(" %) with 28 M MACs and 7.38 ms per image.")
    assert second.startswith("The second that fits, shufflenet_v2_x0_5, is not significantly worse: 0.8 points (95 % ")
    assert second.endswith(") less.")
    assert beyond == "No more accurate network fits if a limit is 20 % higher."
    assert front.startswith("Pareto-optimal in accuracy and MACs: resnet18, ")

    beyond = advice(seven, macs="50M")[2]
    start = "With 60 M MACs, a limit 20 % higher, mobilenet_v3_small would fit"
    assert beyond.startswith(f"{start}, which is not significantly different from alexnet: 3.0 points (95 % ")
    sure = changed(seven.comparison, Interval(0.03, 0.02, 0.04))
    _, second, beyond, _ = advice(sure, macs="50M")
    assert second.endswith(", is significantly worse: 3.0 points (95 % interval 2.0 to 4.0) less.")
    assert beyond == f"{start}: 49.0 % top-1, 3.0 points (95 % interval 2.0 to 4.0) more than alexnet."


def test_the_advice_where_nothing_fits_names_the_closest(seven):
    first, _ = advice(seven, macs="1M", latency_ms=2)
    assert first == (
        "No network fits 1 M MACs and 2 ms per image. The closest is residual, which exceeds 1 M MACs by 320 % and "
        "2 ms per image by 18 %."
    )
    first, beyond, _ = advice(seven, weights_bytes="299k")
    assert first.endswith(" The closest is residual, which exceeds 299 kB of weights by 0.013 %.")
    assert beyond.startswith("With 359 kB of weights, a limit 20 % higher, residual would fit: 42.0 % top-1 (95 % ")


def test_the_advice_of_a_cost_that_was_not_measured_says_so(seven):
    first, left_out, _ = advice(seven, macs="5M", memory_bytes="70M")
    assert first == "No network is known to fit 5 M MACs and 70 MB of memory."
    assert left_out == "Left out, because a limited cost was not measured: residual and depthwise."
    partly = changed(seven.comparison, Interval(0.01, -0.01, 0.03), residual={"latency_ms": None})
    first, only, _, left_out, _ = advice(partly, macs="5M", latency_ms=3)
    assert first.startswith("Within 5 M MACs and 3 ms per image, use depthwise: ")
    assert only == "No other network fits."
    assert left_out == "Left out, because a limited cost was not measured: residual."


def test_the_advice_within_a_budget_that_the_best_network_fits_promises_no_more(seven):
    assert advice(seven, macs="1G")[2] == "No other network is more accurate than resnet18."
    alone = replace(seven.comparison, rows=seven.comparison.rows[-1:], differences=[])
    first, second, _ = advice(Evidence(alone), macs="1G")
    assert first.startswith("Within 1 G MACs, use depthwise: ")
    assert second == "No other network is evaluated."


def test_of_a_tie_the_advice_is_the_network_with_fewer_macs(seven):
    tie = SeedMean(0.46, None, 1)
    equal = changed(seven.comparison, Interval(0.0, -0.02, 0.02), shufflenet_v2_x0_5={"top1": tie})
    first, second, *_ = advice(equal, macs="50M")
    assert first.startswith("Within 50 M MACs, use alexnet: ")
    assert second == (
        "The second that fits, shufflenet_v2_x0_5, is not significantly worse: 0.0 points (95 % interval −2.0 to 2.0) "
        "less."
    )


def test_many_networks_that_are_neither_optimal_nor_dominated_are_listed(seven):
    (front,) = advice(changed(seven.comparison, Interval(0, -1, 1), alexnet={"macs": 200e6}), macs="1G")[3:]
    assert front == (
        "Pareto-optimal in accuracy and MACs: resnet18, mobilenet_v3_small, shufflenet_v2_x0_5, squeezenet1_1 and "
        "residual. alexnet is not significantly different from mobilenet_v3_small, which has fewer MACs. depthwise is "
        "not significantly different from residual, which has as many MACs."
    )
    (front,) = advice(changed(seven.comparison, Interval(0, -1, 1), resnet18={"macs": 1e6}), macs="1G")[3:]
    assert front == (
        "Pareto-optimal in accuracy and MACs: resnet18. Not significantly less accurate than another with no more "
        "MACs: mobilenet_v3_small (resnet18), alexnet (resnet18), shufflenet_v2_x0_5 (resnet18), "
        "squeezenet1_1 (resnet18), residual (resnet18) and depthwise (resnet18)."
    )


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (2.0, "(4.2 M instead of 28 M) and takes 2.00 ms instead of 7.38 ms per image."),
        (8.2, "(4.2 M instead of 28 M), but takes 8.20 ms instead of 7.38 ms per image."),
        (8.0, "(4.2 M instead of 28 M) and takes about as long, 8.00 ms per image."),
        (6.8, "(4.2 M instead of 28 M) and takes about as long, 6.80 ms per image."),
        (None, "(4.2 M instead of 28 M)."),
    ],
)
def test_a_longer_latency_is_not_praised(sample_findings, milliseconds, said):
    comparison = sample_findings.comparison
    latency = comparison.row("residual").latency_ms
    latency = milliseconds and replace(latency, median=milliseconds)
    rows = [replace(row, latency_ms=latency) if row.model == "residual" else row for row in comparison.rows]
    first = advice(Evidence(replace(comparison, rows=rows)))[0]
    assert (
        first
        == f"If computation matters, use residual: it keeps 91 % of alexnet’s accuracy with 15 % of its MACs {said}"
    )


def test_100_percent_is_not_said_of_less(seven):
    close = changed(
        seven.comparison, Interval(0.001, -0.01, 0.02), mobilenet_v3_small={"top1": SeedMean(0.559, None, 1)}
    )
    assert advice(close)[0].startswith("If computation matters, use mobilenet_v3_small: it keeps 99.8 % of resnet18’s ")


def test_networks_that_macro_accuracy_ranks_are_recommended_by_it(seven):
    """Where classes have unequal numbers of images; here it is 20 points above top-1."""
    by_class = {
        row.model: {
            "macro_accuracy": SeedMean(row.top1.mean + 0.2, None, 1),
            "macro_interval": Interval(row.top1.mean + 0.2, row.top1.mean + 0.1, 1),
        }
        for row in seven.comparison.rows
    }
    first, *_, front = advice(changed(seven.comparison, Interval(0.01, -0.01, 0.03), **by_class), macs="50M")
    assert first.startswith("Within 50 M MACs, use alexnet: 66.0 % macro accuracy (95 % interval ")
    assert " shufflenet_v2_x0_5 is not significantly different from alexnet, which has fewer MACs." in front


def test_memory_is_that_of_the_onnx_file(tmp_path):
    """What the stage export measured, of the networks that it exported."""
    from frugalnet.export import section

    root = fake_results.make(tmp_path, seeds=(0,))
    fake_results.export(root)
    comparison = fake_results.compare(fake_results.read_records(root), "d" * 64, "validation split")
    evidence = Evidence(comparison, (section.load(root, comparison),))
    memory = {network.name: network.memory_bytes for network in candidates(evidence)}
    assert memory == {"alexnet": 61_300_000, "depthwise": 61_300_000, "residual": None}
    assert "with 61.3 MB of memory" in advice(evidence, memory_bytes="62M")[0]


# The fields of the page


def test_the_page_offers_what_was_measured_and_what_the_budget_limits(seven):
    offered = chooser(seven, budget())
    assert offered
    assert [limit.title for limit in offered.limits] == ["MACs per image", "Weights", "Latency, batch\u00a01"]
    assert [limit.most for limit in offered.limits] == [None] * 3
    assert offered.networks[0] == "resnet18"
    macs = offered.limits[0]
    assert (macs.unit, macs.costs[0], macs.costs[2]) == ("M", 560, 28)

    offered = chooser(seven, budget(macs="5k", memory_bytes="64M"))
    assert [limit.title for limit in offered.limits][3] == "Memory, ONNX file"
    assert (offered.limits[0].unit, offered.limits[0].most) == ("k", 5)
    assert offered.limits[3].costs == [None] * 7
    untimed = changed(
        seven.comparison, Interval(0, 0, 0), **{row.model: {"latency_ms": None} for row in seven.comparison.rows}
    )
    assert [limit.title for limit in chooser(untimed, budget()).limits] == ["MACs per image", "Weights"]
    assert chooser(Evidence(replace(seven.comparison, rows=seven.comparison.rows[:1])), budget()) is None


def test_a_budget_and_a_network_have_the_same_costs():
    assert {*COSTS} == {*Budget.model_fields} == {*vars(SMALL)} - {"name", "top1"}
