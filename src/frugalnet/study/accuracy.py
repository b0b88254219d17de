"""The section "Accuracy and cost": the networks' accuracies with their intervals, and their differences."""

from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.networks import TOP1, Row
from frugalnet.document.blocks import Block, Cell, Section, Table
from frugalnet.document.wording import p_value, signed_points
from frugalnet.study import tables


def section(comparison: Comparison) -> Section:
    """The main table, more on accuracy, and every difference of two networks."""
    rows = comparison.rows
    blocks: list[Block] = [tables.networks(rows, "Accuracy and cost", tables.SUMMARY), summary_note(rows[0])]
    blocks += [tables.networks(rows, "More on accuracy", tables.ACCURACY), accuracy_note(rows[0])]
    blocks += [differences(comparison), PAIRED] if comparison.differences else []
    return Section("table", "Accuracy and cost", blocks)


def differences(comparison: Comparison) -> Table:
    """The difference in accuracy of each two networks, with its interval and p-values."""
    measure = comparison.measure
    rows = []
    for difference in comparison.differences:
        interval = difference.interval
        bounds = f"{signed_points(interval.low)} to {signed_points(interval.high)}"
        p_values = ", ".join(map(p_value, difference.mcnemar.values())) or "no common seed"
        texts = (difference.wording, f"{signed_points(interval.estimate)} points", bounds, p_values)
        rows.append([*map(Cell, texts)])
    exact = "McNemar’s exact p" + ("" if measure is TOP1 else " of top-1")
    header = ("Two networks", f"Difference of {measure.name}", "95 % interval", f"{exact}, by seed")
    return Table(f"Differences of {measure.name}", header, rows, style="pairs")


def accuracy_note(row: Row) -> str:
    """What the columns of the table mean."""
    terms = [] if row.has_few_classes else [TOP5]
    terms += [] if row.macro_interval else [MACRO_ACCURACY]
    return " ".join([*terms, ACCURACY_NOTE])


def summary_note(row: Row) -> str:
    return SUMMARY_NOTE.replace("Top-1 has its", "Accuracies have their") if row.macro_interval else SUMMARY_NOTE


SUMMARY_NOTE = (
    "Marked: the best of each column. Top-1 has its 95 % interval (bootstrap over images and seeds, 10,000 "
    "resamples). ± is the standard deviation over seeds. Medians have their 5th to 95th percentile and the number of "
    "measurements, in rounds that alternate between the networks."
)
TOP5 = "Top-5: the true class is among the five highest scores."
MACRO_ACCURACY = "Macro accuracy: the mean of the classes’ accuracies."
ACCURACY_NOTE = (
    "Calibration error: the mean gap between confidence and accuracy, in 15 equal bins of confidence. Training top-1: "
    "of the last epoch, on augmented images, while the weights change."
)
PAIRED = (
    "Paired by image. “Better” and “worse” are said only if the interval, over all seeds, excludes zero. Each p "
    "compares networks of one seed, so it can disagree with the interval."
)
