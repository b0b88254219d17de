import pytest

from frugalnet.metrics.statistics import Interval, SeedMean
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
    assert wording.points(Interval(-0.026, -0.033, -0.018)) == "2.6 points (95\u00a0% interval −3.3 to −1.8)"


def test_names_are_listed():
    assert [wording.listed(list(names)) for names in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
