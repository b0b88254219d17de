import json
import re

import fake_results
import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.io.json import to_json_plotly

from frugalnet.report import charts


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return fake_results.compared(tmp_path_factory.mktemp("sample"), is_sample=True)


def test_plotly_accepts_every_figure(sample):
    """The figures are plain dictionaries; plotly's own validation finds a misspelt key or a wrong value."""
    colours = dict.fromkeys(sample.records, "#112233")
    drawn = [
        charts.curves_of(sample.records["alexnet"], "#112233", 8, 60),
        charts.curves_together(sample, colours, 8, 60),
        charts.confusion(sample.rows[0].confusion, range(12), sample.first.class_names),
    ]
    for key in charts.COST_AXES:
        chart = charts.cost_chart(sample.rows, key)
        assert chart is not None
        drawn.append(charts.accuracy_against_cost(chart, sample, colours))
    for figure in drawn:
        text = re.sub(r'"@\w+"', '"#445566"', to_json_plotly(figure))
        go.Figure(json.loads(text))


def test_labels_are_spread_apart_and_keep_their_order():
    placed = charts.spread_apart([40.0, 40.2, 10.0, 39.9], 3)
    assert np.argsort(placed).tolist() == [2, 3, 0, 1]
    assert np.diff(np.sort(placed)).min() >= 3 - 1e-6
    assert charts.spread_apart([1.0, 9.0], 3) == [1, 9]
