"""The section "At equal cost": curves of families, gains at equal MACs, and what equal accuracy takes."""

import json
from dataclasses import replace

import fake_results
import numpy as np
import pytest

from frugalnet.comparison import families
from frugalnet.comparison.compare import Comparison, Evidence
from frugalnet.document.plotly_figures import plotly_figure
from frugalnet.document.wording import human
from frugalnet.metrics import curve
from frugalnet.metrics.statistics import Interval
from frugalnet.study import equal_cost
from frugalnet.study.cost import cost_chart
from frugalnet.study.findings import conclude
from frugalnet.study.report import compose

NETWORKS = ("alexnet", "depthwise", "residual", "shufflenet_v2_x0_5", *fake_results.WIDTHS)


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Comparison:
    return fake_results.comparison(tmp_path_factory.mktemp("equal"), models=NETWORKS, seeds=(0,), n=2000)


def test_a_curve_is_straight_over_the_logarithm_of_the_cost():
    costs, values = [1.0, 100.0, 10_000.0], [0.2, 0.4, 0.5]
    assert [curve.value_at(costs, values, cost) for cost in (1, 10, 1000)] == pytest.approx([0.2, 0.3, 0.45])
    assert [curve.value_at(costs, values, cost) for cost in (0.9, 10_001)] == [None, None]
    assert curve.value_at([1.0, 100.0, 50.0, 10_000.0], [0.2, 0.4, 0.3, 0.5], 10) is None, "costs that do not ascend"
    assert [curve.cost_of(costs, values, value) for value in (0.2, 0.3, 0.45)] == pytest.approx([1, 10, 1000])
    assert [curve.cost_of(costs, values, value) for value in (0.19, 0.51)] == [None, None]


def test_the_cost_of_a_value_is_the_least_one_where_a_curve_falls_in_between():
    assert curve.cost_of([1.0, 10.0, 100.0, 1000.0], [0.2, 0.4, 0.3, 0.5], 0.4) == pytest.approx(10)
    assert curve.cost_of([1.0, 10.0, 100.0], [0.2, 0.2, 0.4], 0.2) == pytest.approx(1)


def test_a_family_is_an_architecture_at_two_or_more_widths(compared):
    found = families.families(compared.rows)
    assert {family.name: [families.width(row) for row in family.rows] for family in found} == {
        "alexnet": [0.25, 0.375, 0.5, 1],
        "depthwise": [0.5, 1, 2, 3],
        "residual": [1, 2],
    }
    colour = families.colours(compared.rows)
    assert len({colour[row.model] for row in found[0].rows}) == 1
    assert len(set(colour.values())) == 4


def test_a_chart_names_a_family_once(compared):
    named = families.names_in_charts(compared.rows)
    assert {name for name in named.values() if not name.startswith("×")} == set(NETWORKS) - {*fake_results.WIDTHS}
    assert named["depthwise_x0_5"] == "×0.5"
    without = [row for row in compared.rows if row.model != "depthwise"]
    assert families.names_in_charts(without)["depthwise_x3"] == "depthwise_x3", "the widest, where none has width 1"
    chart = cost_chart(compared.rows, "macs")
    point = next(point for point in chart.points if point.network == "depthwise_x0_5")
    assert point.name == "×0.5"
    (trace,) = [trace for trace in plotly_figure(chart)["data"] if trace.get("name") == "depthwise_x0_5"]
    assert trace["hovertemplate"].startswith("<b>depthwise_x0_5</b>")


def test_a_gain_is_paired_where_both_families_have_a_network_of_about_the_same_macs(compared):
    pairs = {(pair.first.name, pair.second.name): pair for pair in families.pairs(compared)}
    pair = pairs["depthwise", "alexnet"]
    assert [gain.pair for gain in pair.measured] == [("depthwise", "alexnet_x0_375"), ("depthwise_x3", "alexnet")]
    for gain in pair.measured:
        assert gain.interval == compared.difference(*gain.pair)
        assert gain.points == pytest.approx(gain.interval.estimate)
    (between,) = [gain for gain in pair.gains if gain.macs == compared.row("alexnet_x0_5").macs]
    ends = compared.row("depthwise"), compared.row("depthwise_x2")
    share = np.log(between.macs / ends[0].macs) / np.log(ends[1].macs / ends[0].macs)
    assert between.first == pytest.approx(ends[0].top1.mean + share * (ends[1].top1.mean - ends[0].top1.mean))
    assert between.second == compared.row("alexnet_x0_5").top1.mean
    assert between.pair is between.interval is None
    macs = [gain.macs for gain in pair.gains]
    assert macs == sorted(macs)
    assert min(macs) >= compared.row("depthwise_x0_5").macs  # where both can be


def test_the_family_that_is_ahead_comes_first(compared):
    pairs = [(pair.first.name, pair.second.name) for pair in families.pairs(compared)]
    assert pairs == [("depthwise", "alexnet"), ("residual", "alexnet"), ("residual", "depthwise")]


def test_the_answer_begins_with_the_families_that_differ_most(compared):
    first, second, *_ = conclude(Evidence(compared)).recommendation
    gain = compared.difference("residual", "alexnet_x0_375")
    assert first.startswith(
        f"At about equal MACs residual is ahead of alexnet: by {100 * gain.estimate:.1f} points (95"
    )
    residual, row = compared.row("residual"), compared.row("alexnet")
    assert f"For alexnet’s accuracy, {100 * row.top1.mean:.1f} %, residual needs " in second.replace("\u00a0", " ")
    assert residual.top1.mean < row.top1.mean, "its wider networks reach it"


def test_families_that_do_not_differ_are_said_to(compared):
    pair = families.pairs(compared)[0]
    unsure = [replace(gain, interval=Interval(0.01, -0.01, 0.03)) for gain in pair.measured]
    said = families.gained(replace(pair, gains=unsure)).replace("\u00a0", " ")
    ends = (f"1.0 points (95 % interval −1.0 to 3.0) at {gain.at}" for gain in (unsure[0], unsure[-1]))
    assert said == f"At about equal MACs depthwise and alexnet are not significantly different: {' and '.join(ends)}."
    changed = replace(pair, gains=unsure)
    assert equal_cost.equal_accuracy([pair]).rows
    assert not equal_cost.equal_accuracy([changed]).rows, "no lead, so nothing is saved"
    assert len(equal_cost.sentences([changed])) == 1


def test_macs_that_are_only_about_equal_are_both_named(compared):
    first, _, third = families.pairs(compared)
    widest = first.measured[-1]
    assert widest.pair == ("depthwise_x3", "alexnet")
    macs = [compared.row(name).macs for name in widest.pair]
    assert widest.at == f"{human(macs[0])} against {human(macs[1])}"
    assert families.gained(first).startswith("At about equal MACs depthwise ")
    assert widest.at in families.gained(first)
    assert families.gained(third).startswith("At equal MACs residual "), "their MACs are the same"
    assert "against" not in third.measured[0].at


def test_a_lead_that_is_only_interpolated_is_the_mean_and_has_no_interval(compared):
    pair = families.pairs(compared)[0]
    between = [gain for gain in pair.gains if not gain.pair]
    gains = [replace(gain, first=gain.second + lead) for gain, lead in zip(between, (0.05, -0.01, 0.02), strict=False)]
    said = families.gained(replace(pair, gains=gains))
    mean = 100 * np.mean([gain.points for gain in gains])
    ends = f"{human(gains[0].macs)} to {human(gains[-1].macs)}"
    by = f"{mean:.1f} points from {ends} (interpolated, without an interval)"
    assert said == f"At equal MACs depthwise is ahead of alexnet on average: by {by}."


def test_a_network_slower_than_one_of_the_same_macs_is_named(compared):
    pair = families.pairs(compared)[0]
    row = pair.first.rows[1]
    slow = [replace(row, latency_ms=replace(row.latency_ms, median=4.0)) if r is row else r for r in pair.first.rows]
    changed = replace(pair, first=families.Family("depthwise", slow))
    assert equal_cost.in_time(pair) == []
    lines = equal_cost.in_time(changed)
    assert (
        lines[0]
        == "MACs are not time: at 4.2 M against 4.15 M MACs depthwise takes 4.00 ms per image, alexnet_x0_375 2.35 ms."
    )
    assert lines[1].startswith("At 4.00 ms alexnet reaches ")
    slow = [replace(row, latency_ms=replace(row.latency_ms, median=40.0)) for row in pair.first.rows]
    said = " ".join(equal_cost.in_time(replace(pair, first=families.Family("depthwise", slow))))
    assert len(pair.measured) == said.count(" per image, ") == 2
    assert said.count("MACs are not time: at ") == 1


def test_the_report_has_the_curves_and_json_the_figures(compared):
    report = compose(conclude(Evidence(compared)))
    section = next(section for section in report.document.sections if section.id == "equal_cost")
    (grid,) = [block for block in section.blocks if isinstance(block, equal_cost.Grid)]
    assert [chart.name for chart in grid.charts] == ["equal_macs", "equal_latency_ms"]
    assert "depthwise_x0_5" in {point.network for point in grid.charts[0].points}  # which a budget may grey out
    drawn = plotly_figure(grid.charts[0])["data"]
    assert [trace.get("fill") for trace in drawn].count("toself") == 3
    bands = json.loads(json.dumps(drawn[0]))
    row = compared.row("alexnet_x0_25")
    assert (bands["x"][0], bands["y"][0], bands["y"][-1]) == pytest.approx(
        (row.macs, 100 * row.top1_interval.high, 100 * row.top1_interval.low)
    )
    (claims,) = [section for section in report.document.sections if section.id == "claims"]
    assert claims.blocks[-1].endswith(families.gained(families.pairs(compared)[-1]))
    figures = json.loads(json.dumps(report.comparison["equal_cost"]))["depthwise - alexnet"]
    assert figures["for_equal_top1"][-1]["as"] == "alexnet"
    assert len(figures["at_equal_macs"]) == len(families.pairs(compared)[0].gains)


def test_networks_no_better_than_guessing_are_not_said_to_be_ahead(tmp_path):
    models = ("alexnet", "alexnet_x0_375", "depthwise", "depthwise_x0_5")
    at_chance = fake_results.comparison(tmp_path, models=models, seeds=(0,), num_classes=2, n=200)
    assert families.pairs(at_chance)
    first, second, *_ = conclude(Evidence(at_chance)).recommendation
    assert first.startswith("No network is significantly better than guessing: ")
    assert "equal MACs" not in second


def test_without_widths_there_is_no_such_section(tmp_path):
    report = compose(fake_results.found(tmp_path, seeds=(0,)))
    assert "equal_cost" not in {section.id for section in report.document.sections} | report.comparison.keys()


def test_families_whose_macs_do_not_overlap_have_curves_but_no_gains(tmp_path):
    models = ("alexnet", "alexnet_x0_5", "depthwise", "depthwise_x0_5")
    compared = fake_results.comparison(tmp_path, models=models, seeds=(0,))
    assert families.pairs(compared) == []
    section = equal_cost.section(compared, [])
    assert section is not None
    assert not [block for block in section.blocks if isinstance(block, equal_cost.Table)]
