"""What the charts show, and that both renderers draw it."""

import json
import re
from dataclasses import replace

import cv2
import fake_results
import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.figure import Figure
from plotly.io.json import to_json_plotly

from frugalnet.comparison import curves
from frugalnet.comparison.compare import Comparison
from frugalnet.document import blocks, charts
from frugalnet.document.blocks import Chart
from frugalnet.document.charts import colours
from frugalnet.document.plotly_figures import plotly_figure
from frugalnet.document.png_figures import write_png
from frugalnet.metrics import classes
from frugalnet.metrics.statistics import Quantiles
from frugalnet.study import cost, training
from frugalnet.study.classes import Confusion, figures_of_records, unique_names


@pytest.fixture(scope="module")
def rows(sample_findings):
    return sample_findings.comparison.rows


@pytest.fixture(scope="module")
def heatmap(sample_findings, rows):
    return Confusion(sample_findings.comparison).heatmap("confusion", rows[0].confusion, "alexnet")


def test_plotly_accepts_every_figure(rows, heatmap):
    """The figures are plain dictionaries; plotly's own validation finds a misspelt key or a wrong value."""
    costs = [cost.cost_chart(rows, key) for key in cost.COST_AXES]
    for chart in (*costs, *curves.charts(rows), heatmap):
        go.Figure(json.loads(re.sub(r'"@\w+"', '"#445566"', to_json_plotly(plotly_figure(chart)))))


def test_class_names_are_neither_tags_nor_formulas_for_plotly_nor_colours_for_the_page():
    chart = blocks.Heatmap("confusion", "Confusion", ["<b>a</b>", "price of $x$", "@home"], np.zeros((3, 3)))
    names = plotly_figure(chart)["data"][0]["x"]
    assert names == ["&lt;b&gt;a&lt;/b&gt;", "price of &#36;x&#36;", "&#64;home"]


def test_a_cost_chart_shows_means_intervals_and_the_pareto_front(rows):
    chart = cost.cost_chart(rows, "latency_ms")
    alexnet, residual, depthwise = chart.points
    top1 = rows[0].top1_interval
    assert alexnet.name == "alexnet"
    assert alexnet.x == pytest.approx(rows[0].latency_ms.median)
    assert alexnet.y == pytest.approx(100 * rows[0].top1.mean)
    assert alexnet.y + alexnet.y_error[1] == pytest.approx(100 * top1.high)
    assert alexnet.x + alexnet.x_error[1] == pytest.approx(rows[0].latency_ms.p95)
    assert [point.filled for point in chart.points] == [True, True, False]
    assert residual.x < rows[1].latency_ms.median < depthwise.x, "equal costs are drawn side by side"
    (front,) = chart.lines
    assert front.y == [residual.y, alexnet.y, alexnet.y]
    assert chart.x_range[0] < min(front.x)
    assert "top-1 46.2 ± 0.2\u00a0% (42.2 to 50.2\u00a0%)" in alexnet.text
    assert "MACs per image: 28.0 M" in alexnet.text


def test_a_cost_chart_shows_only_what_was_measured(rows):
    some = [replace(row, latency_ms=None) if row.model == "alexnet" else row for row in rows]
    assert [point.name for point in cost.cost_chart(some, "latency_ms").points] == ["residual", "depthwise"]
    none = [replace(row, latency_ms=None) for row in rows]
    assert cost.cost_chart(none, "latency_ms").is_empty


def test_ticks_are_few_and_round(rows):
    for factor in (1.1, 10, 1e6):
        times = [Quantiles(m, m, m, 9) for m in (1.0, factor, factor)]
        wide = [replace(row, latency_ms=time) for row, time in zip(rows, times, strict=True)]
        chart = cost.cost_chart(wide, "latency_ms")
        assert 1 <= len(chart.ticks) <= 9
        assert all(chart.x_range[0] <= tick <= chart.x_range[1] for tick in chart.ticks)


def test_curves_show_every_seed_and_label_their_ends(rows):
    alexnet, _, _, together = curves.charts(rows)
    record = rows[0].records[1]
    curve = [100 * epoch.validation_top1 for epoch in record.history]
    assert [line.text for line in alexnet.lines][2:] == ["validation, seed 0", "validation, seed 1"]
    assert alexnet.lines[3].y == curve
    assert [line.dotted for line in alexnet.lines] == [True, True, False, False]
    assert [label.text.split()[0] for label in alexnet.labels] == ["training", "validation"]
    assert len(together.lines) == 6
    assert {label.text: label.colour for label in together.labels} == colours(row.model for row in rows)


def test_curves_of_all_networks_are_named_at_the_ends_of_their_validation_curves():
    one, other = (
        {"train_top1": [9.0, 90.0], "validation_top1": [5.0, 10.0]},
        {"train_top1": [20.0], "validation_top1": [60.0]},
    )
    chart = curves.together("name", "title", {"one": (one, "#111"), "other": (other, "#222")})
    assert [(label.text, label.y, label.colour) for label in chart.labels] == [
        ("one", pytest.approx(10), "#111"),
        ("other", pytest.approx(60), "#222"),
    ]
    assert [(line.text, line.dotted) for line in chart.lines] == [
        ("one, training", True),
        ("one, validation", False),
        ("other, training", True),
        ("other, validation", False),
    ]
    assert (chart.x_range, chart.y_range[1]) == ((1, 2), pytest.approx(1.08 * 90))


def test_a_mean_curve_ends_where_the_shortest_one_does(rows):
    short, long = rows[0].records
    both = short.history[:2], long.history
    expected = [50 * (a.train_top1 + b.train_top1) for a, b in zip(*both, strict=False)]
    mean = curves.mean_curves([*map(curves.curves_of, both)])
    assert mean["train_top1"] == pytest.approx(expected)


def test_labels_are_spread_apart_and_keep_their_order():
    placed = charts.spread_apart([40.0, 40.2, 10.0, 39.9], 3)
    assert np.argsort(placed).tolist() == [2, 3, 0, 1]
    assert np.diff(np.sort(placed)).min() >= 3 - 1e-6
    assert charts.spread_apart([1.0, 9.0], 3) == [1, 9]


@pytest.mark.parametrize("ends", [[13, 13.1, 13.2, 13.3, 13.4], [100, 100, 100, 60], [1, 99]])
def test_labels_of_the_ends_of_lines_stay_on_the_axis_where_they_are_drawn(ends):
    labels = charts.end_labels({f"network {i}": (end, "#000") for i, end in enumerate(ends)}, 100, 300)
    places = sorted(label.y for label in labels)
    assert 0 <= places[0] < places[-1] <= 100
    assert np.diff(places).min() >= 18 * 100 / 246 - 1e-6


def test_a_name_stands_right_of_its_point_unless_something_is_there():
    assert charts.place_names([(0.3, 0.5)], ["alexnet"]) == [(1, 0)]
    assert charts.place_names([(0.95, 0.5)], ["alexnet"]) == [(-1, 0)], "it would be cut"
    first, second = charts.place_names([(0.3, 0.5), (0.35, 0.5)], ["alexnet", "residual"])
    assert (first[0], second) == (-1, (1, 0))
    above, below = (0.6, 0.53, 1.0, 1.0), (0.6, 0.0, 1.0, 0.47)
    both = charts.place_names([(0.45, 0.5), (0.95, 0.5)], ["depthwise_twice", "residual12"], [above, below])
    assert both == [(-1, 0), (-1, 0)], "the first makes room for the second, which has no other place"


def test_points_of_about_equal_cost_do_not_hide_each_other():
    points = [
        blocks.Point(name, "#000", x, 40, (39, 41), ()) for name, x in (("a", 70_988), ("b", 70_000), ("c", 400_000))
    ]
    first, second, far = charts.scatter("", "", "", points).points
    low, high = charts.scatter("", "", "", points).x_range
    assert np.log10(first.x / second.x) == pytest.approx(0.014 * np.log10(high / low))
    assert first.x * second.x == pytest.approx(70_988 * 70_000), "about their middle"
    assert far.x == pytest.approx(400_000)


def test_a_class_that_shares_its_name_gets_its_id(sample_findings):
    first = sample_findings.comparison.rows[0]
    record = replace(first.records[0], class_names=["crane", "crane", "a\nb"], class_ids=["n1", "n2", "n3"])
    both = replace(sample_findings.comparison, rows=[replace(first, records=[record])])
    assert unique_names(both) == ["crane (n1)", "crane (n2)", "a b"]


@pytest.fixture
def texts(monkeypatch) -> list[str]:
    """The texts of a drawing, as matplotlib shows them: without mark-up."""
    shown: list[str] = []
    save = Figure.savefig

    def noted(figure, *arguments, **named):
        for axes in figure.axes:
            found = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
            assert not [text for text in found if "$" in text.get_text() and text.get_parse_math()]
            shown.extend(text.get_text() for text in found)
        save(figure, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", noted)
    return shown


def test_a_png_of_a_heatmap_names_few_classes_and_not_many(tmp_path, heatmap, texts):
    write_png(heatmap, tmp_path / "few.png")
    assert "dugong" in texts
    assert "price of $\\frac$ | salt" in texts
    texts.clear()
    many = blocks.Heatmap("c", "c", ["name"] * 60, np.random.default_rng(0).uniform(0, 5, (60, 60)))
    write_png(many, tmp_path / "many.png")
    assert "name" not in texts


def test_a_png_of_a_chart_is_drawn_whole_with_its_labels(tmp_path, rows, texts):
    for chart in (cost.cost_chart(rows, "macs"), curves.charts(rows)[-1]):
        write_png(chart, tmp_path / "chart.png")
        assert {"alexnet", "depthwise", "residual"} <= set(texts)
        picture = cv2.imread(str(tmp_path / "chart.png"), cv2.IMREAD_GRAYSCALE)
        assert picture[:, -1].min() > 250, "something is cut at the right edge"
        texts.clear()


def gallery_of(comparison: Comparison) -> blocks.Gallery:
    """The first record's easiest and hardest classes."""
    name = f"{comparison.first.name}_best_and_worst"
    return next(figure for figure in figures_of_records(comparison) if figure.name == name)


def test_best_and_worst_shows_each_class_with_its_figures(tmp_path, sample_findings, texts):
    record = sample_findings.comparison.first
    accuracies = classes.per_class(record.confusion, record.class_ids, record.class_names)
    write_png(gallery_of(sample_findings.comparison), tmp_path / "one.png")
    best, worst = classes.best_and_worst([one.accuracy for one in accuracies])
    headings = [text for text in texts if " of 50)" in text]
    assert [text.splitlines()[-1] for text in headings] == ["easiest"] * 5 + ["hardest"] * 5
    for text, c in zip(headings, [*best, *worst], strict=True):
        assert f"({accuracies[c].correct} of 50)" in text
    assert texts.count("right") == sum(min(accuracies[c].correct, 4) for c in (*best, *worst))


def test_best_and_worst_draws_few_classes_and_no_mistakes(tmp_path, sample_findings, texts):
    labels = np.array([0, 1, 0, 1])
    first, names, ids = sample_findings.comparison.rows[0], ["$\\frac$\nant", "bee"], ["n0", "n1"]
    record = replace(first.records[0], labels=labels, predicted=labels, class_names=names, class_ids=ids)
    few = replace(sample_findings.comparison, rows=[replace(first, records=[record], confusion=record.confusion)])
    write_png(gallery_of(few), tmp_path / "few.png")
    assert [text.splitlines()[0] for text in texts if "of 2" in text] == ["$\\frac$ ant", "bee"]
    assert texts.count("right") == 4


def test_an_empty_chart_is_known_as_such():
    assert Chart("a", "b", "c").is_empty


def test_equal_costs_that_are_whole_numbers_are_drawn_side_by_side():
    points = [blocks.Point(name, "#000000", 74_000, 40.0, (39.0, 41.0), ()) for name in ("a", "b")]
    first, second = charts.scatter("name", "title", "parameters", points).points
    assert first.x < 74_000 < second.x


@pytest.mark.parametrize("cost", [1.3, 3.5, 4.9, 7.0, 73_800.0, 3_529_664.0])
@pytest.mark.parametrize("span", [1.01, 2.0, 8.0, 40.0])
def test_costs_that_are_close_together_have_a_logarithmic_axis_too(cost, span):
    points = [blocks.Point(str(x), "#000000", x, 40.0, (39.0, 41.0), ()) for x in (cost, span * cost)]
    assert 2 <= len(charts.scatter("name", "title", "MACs", points).ticks) <= 5


def test_a_point_that_hides_no_other_is_drawn_exactly_at_its_cost():
    costs = [89_712.0, 299_040.0, 498_787.0, 1_662_624.0]
    points = [blocks.Point(str(cost), "#000000", cost, 40.0, (39.0, 41.0), ()) for cost in costs]
    assert [point.x for point in charts.scatter("name", "title", "bytes", points).points] == costs


def test_each_seeds_final_top_1_is_drawn_and_nothing_for_single_seeds(tmp_path):
    rows = fake_results.comparison(tmp_path / "two", models=("alexnet", "depthwise"), seeds=(0, 1)).rows
    chart = training.seed_chart(rows)
    assert [point.y for point in chart.points] == [100 * r.metrics.top1 for row in rows for r in row.records]
    assert [round(point.x) for point in chart.points] == [0, 0, 1, 1]
    assert len({point.x for point in chart.points}) == 4
    assert chart.x_names == [row.model for row in rows]
    assert training.seed_chart(fake_results.comparison(tmp_path / "one", seeds=(0,)).rows).is_empty
