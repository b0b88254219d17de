import pytest

from frugalnet.metrics.statistics import Spread
from frugalnet.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (415_656, "416 k"),
        (999_600, "1 M"),
        (13_500_000, "13.5 M"),
        (2.0e9, "2 G"),
        (1.5e15, "1.5 P"),
        (3.14159, "3.14"),
        (0, "0"),
        (999, "999"),
    ],
)
def test_large_numbers_are_short(value, text):
    assert wording.human(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.236, "4.24 s"), (99.96, "100 s"), (240, "240 s"), (900, "15 min"), (7200, "2.0 h")]
)
def test_durations_are_short(seconds, text):
    assert wording.duration(seconds) == text


def test_a_spread_of_one_seed_has_no_deviation():
    assert wording.spread(Spread(0.4153, None, 1)) == "41.5\u00a0%"
    assert wording.spread(Spread(0.4153, 0.0026, 3)) == "41.5 ± 0.3\u00a0%"
