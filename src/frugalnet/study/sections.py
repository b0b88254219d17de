"""The report's sections on the networks compared: accuracy, cost, training, classes, confusion, layers."""

import numpy as np

from frugalnet.comparison import curves
from frugalnet.comparison.compare import Comparison, Row
from frugalnet.document.blocks import Block, Chart, Fold, Grid, Heatmap, Section
from frugalnet.metrics import classes
from frugalnet.paper.section import class_ranks
from frugalnet.study import charts, tables
from frugalnet.study.gallery import gallery


def class_order(comparison: Comparison) -> list[int]:
    """One order of the classes for all networks: those confused with each other are adjacent."""
    return classes.class_order(np.sum([row.confusion for row in comparison.rows], axis=0))


def of_networks(comparison: Comparison) -> tuple[Chart, list[Section]]:
    """The chart beside the recommendation, and the sections below it."""
    answer, *others = (charts.cost_chart(comparison.rows, key) for key in charts.COST_AXES)
    return answer, [
        _accuracy(comparison),
        _cost(comparison, others),
        _training(comparison),
        _classes(comparison),
        _confusion(comparison),
        Section("layers", "Layers", [Fold(row.model, [tables.layers(row)]) for row in comparison.rows]),
    ]


def _accuracy(comparison: Comparison) -> Section:
    rows = comparison.rows
    blocks: list[Block] = [tables.networks(rows, "Accuracy and cost", tables.SUMMARY), SUMMARY_NOTE]
    blocks += [tables.networks(rows, "More on accuracy", tables.ACCURACY), ACCURACY_NOTE]
    blocks += [tables.differences(comparison), PAIRED] if comparison.differences else []
    return Section("table", "Accuracy and cost", blocks)


def _cost(comparison: Comparison, cost_charts: list[Chart]) -> Section:
    table = tables.networks(comparison.rows, "More on cost", tables.COST)
    return Section("cost", "Accuracy against cost", [Grid(cost_charts, 3), FRONT, table, COST_NOTE])


def _training(comparison: Comparison) -> Section:
    rows = comparison.rows
    *each, together = curves.charts(rows)
    blocks: list[Block] = [SEEDS, Grid(each, min(len(rows), 3)), together, MEANS, Grid([charts.seed_chart(rows)])]
    blocks += [tables.networks(rows, "Training as it ran", tables.TRAINING), TRAINING_NOTE]
    blocks += [tables.training_cost(rows), REACHED]
    return Section("curves", "Training", blocks)


def _classes(comparison: Comparison) -> Section:
    rows = comparison.rows
    blocks: list[Block] = [tables.extremes(rows)]
    if comparison.images is not None:
        blocks += [CLASSES, *(Fold(row.model, [gallery(row, comparison.images)]) for row in rows)]
    if ranks := class_ranks(comparison):
        blocks.append(ranks)
    return Section("classes", "Easiest and hardest classes", blocks)


def _confusion(comparison: Comparison) -> Section:
    order = class_order(comparison)
    names = charts.unique_names(comparison)

    def heatmap(row: Row) -> Heatmap:
        return charts.heatmap(f"confusion_{row.model}", f"Confusion of {row.model}", row.confusion, order, names)

    folds = [Fold(row.model, [heatmap(row), tables.confused_pairs(row)]) for row in comparison.rows]
    return Section("confusion", "Confusion", [CONFUSION, *folds])


TERMS = (
    "Top-1: the percentage of images whose highest-scoring class is the true one. MACs: multiply–accumulate operations "
    "that one image takes, the usual measure of computation. Pareto-optimal: no other network is at least as accurate "
    "with no more MACs. Dominated: significantly less accurate than a network with no more MACs. Significant: the "
    "95 % interval of the difference, paired by image, excludes zero."
)
SUMMARY_NOTE = (
    "Marked: the best of each column. Top-1 has its 95 % interval (bootstrap over images and seeds, 10,000 "
    "resamples). ± is the standard deviation over seeds. Medians have their 5th to 95th percentile and the number of "
    "measurements, in rounds that alternate between the networks."
)
ACCURACY_NOTE = (
    "Top-5: the true class is among the five highest scores. Macro accuracy: the mean of the classes’ accuracies. "
    "Calibration error: the mean gap between confidence and accuracy, in 15 equal bins of confidence. Training top-1: "
    "of the last epoch, on augmented images, while the weights change."
)
PAIRED = (
    "Paired by image. “Better” and “worse” are said only if the interval, over all seeds, excludes zero. Each p "
    "compares networks of one seed, so it can disagree with the interval."
)
FRONT = (
    "Cost is on a logarithmic scale. Filled points are Pareto-optimal by the means. Vertical bars are 95 % intervals, "
    "horizontal ones 5th to 95th percentiles. Networks of about equal cost are drawn side by side. A training step is "
    "the forward and backward pass of one batch."
)
COST_NOTE = (
    "Keras, as in the paper, also counts the running mean and variance of batch norms, which are not trained. Medians "
    "after warm-up, in rounds that alternate between the networks; one batch has the size stated under “cost measured "
    "on”. Backward excludes the optimiser. CPU time is that of all threads. Energy is read from a hardware counter."
)
TRAINING_NOTE = (
    "Medians over epochs and seeds; “all epochs” is a training’s sum, the mean over seeds. The networks were trained "
    "one after another, maybe on different machines or under other load, so these times cannot be compared with each "
    "other."
)
REACHED = (
    "Cost up to the end of the first epoch that reached the accuracy. A training image counts as three times the "
    "network’s MACs in evaluation: too many for a network that averages several views there only."
)
SEEDS = "Top-1 by epoch, one line per seed. Solid: validation. Dotted: training, on augmented images."
MEANS = "All networks: means over seeds, each name at the height where its validation curve ends."
CLASSES = (
    "Accuracy over all seeds, with its Wilson 95 % interval. The images are the first of their class that the "
    "first seed’s network classified correctly (green) and incorrectly (red, with the class predicted)."
)
CONFUSION = (
    "Percent of each true class that was predicted as another; classes confused with each other are adjacent. The grey "
    "diagonal stands for correct predictions."
)
