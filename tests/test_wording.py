import pytest

from frugalnet.document import wording
from frugalnet.metrics.statistics import Interval, SeedMean


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
    ("values", "units", "texts"),
    [
        ([2.2, 12.345], wording.MILLISECONDS, ["2.20 ms", "12.35 ms"]),
        ([0.473, 1.4], wording.MILLISECONDS, ["0.47 ms", "1.40 ms"]),
        ([0.0473], wording.MILLISECONDS, ["0.0473 ms"]),
        ([4.2e6, 560e6], wording.prefixed(""), ["4.20 M", "560.00 M"]),
        ([299_040, 45_160_000], wording.prefixed("B"), ["0.30 MB", "45.16 MB"]),
        ([3_000, 999_999_999], wording.prefixed("B"), ["3 kB", "1,000,000 kB"]),
        ([0.012], wording.prefixed("J"), ["12.0 mJ"]),
        ([10.7, 71.4], wording.DURATIONS, ["10.7 s", "71.4 s"]),
        ([85.7, 11520], wording.DURATIONS, ["1.43 min", "192.00 min"]),
        ([3000, 7200], wording.DURATIONS, ["0.83 h", "2.00 h"]),
        ([0, 5.0], wording.MILLISECONDS, ["0.00 ms", "5.00 ms"]),
    ],
)
def test_all_numbers_of_a_column_have_one_unit_and_as_many_decimals(values, units, texts):
    assert [*map(wording.scale(values, units), values)] == texts


def test_a_range_names_its_unit_once():
    assert wording.scale([2.2, 9], wording.MILLISECONDS).range(2.2, 2.84) == "2.20 to 2.84 ms"
    assert wording.scale([286], [(1, "")]).range(286, 339) == "286 to 339"


def test_one_is_singular():
    shown = [wording.count(number, "epoch") for number in (1, 1.5, 30, 1000, 40_400)]
    assert shown == ["1 epoch", "1.5 epochs", "30 epochs", "1,000 epochs", "40,400 epochs"]


def test_the_mean_of_one_seed_has_no_deviation():
    assert wording.seed_mean(SeedMean(0.4153, None, 1)) == "41.5\u00a0%"
    assert wording.seed_mean(SeedMean(0.4153, 0.0026, 3)) == "41.5 ± 0.3\u00a0%"


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.000745, "0.074 %"),
        (0.0745, "7.4 %"),
        (0.0995, "10 %"),
        (0.153, "15 %"),
        (0.995, "100 %"),
        (1, "100 %"),
        (1.5, "150 %"),
        (12.34, "1,234 %"),
    ],
)
def test_ratios_have_two_digits_and_no_exponent(fraction, text):
    assert wording.ratio(fraction).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", "a\\|b"),
        ("*_`[x]~#", "\\*\\_\\`\\[x\\]\\~\\#"),
        ("$x$", "\\$x\\$"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("a\nb\r\nc\u2028d", "a b c d"),
        ("a\\", "a\\\\"),
    ],
)
def test_text_from_data_is_no_markdown(text, written):
    assert wording.markdown(text) == written


def test_differences_of_accuracy_are_in_points():
    assert wording.signed_points(-0.026) == "−2.6"
    assert wording.signed_points(-0.0004) == "+0.0"
    assert wording.percent(-0.0004) == "0.0\u00a0%"
    assert wording.scale([1.0], ((1.0, " ms"),))(-0.001) == "0.00 ms"


@pytest.mark.parametrize(
    ("estimate", "low", "high", "text"),
    [
        (0.026, 0.017, 0.035, "2.6 points (95 % interval 1.7 to 3.5)"),
        (-0.026, -0.035, -0.017, "2.6 points (95 % interval 1.7 to 3.5)"),
        (-0.007, -0.016, 0.002, "0.7 points (95 % interval −0.2 to 1.6)"),
        (0.007, -0.0001, 0.016, "0.7 points (95 % interval 0.0 to 1.6)"),
    ],
)
def test_a_difference_and_its_interval_have_one_direction(estimate, low, high, text):
    assert wording.points(Interval(estimate, low, high)).replace("\u00a0", " ") == text


def test_names_are_listed():
    assert [wording.listed(list(names)) for names in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
