"""The sections on classes: the easiest and hardest ones with examples, and which are confused with each other."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.networks import Row
from frugalnet.comparison.records import Record
from frugalnet.document.blocks import (
    Block,
    Cell,
    ClassExamples,
    Example,
    Fold,
    Gallery,
    Heatmap,
    Section,
    Table,
    network_cell,
)
from frugalnet.document.wording import one_line, percent
from frugalnet.metrics import classes
from frugalnet.metrics.classes import ClassAccuracy
from frugalnet.paper.section import class_ranks

Images = NDArray[np.uint8]  # (N, H, W, 3) RGB
Words = Callable[[ClassAccuracy], str]
EXAMPLES = 4  # images classified correctly, and incorrectly, of each class


def section(comparison: Comparison) -> Section:
    """The easiest and hardest classes of each network, with examples, and the ranks of those that the paper names."""
    rows = comparison.rows
    blocks: list[Block] = [extremes(rows)]
    if comparison.images is not None:
        blocks += [
            CLASSES,
            *(Fold(row.model, [_gallery(row.records[0], row.classes, comparison.images, _wilson)]) for row in rows),
        ]
    if comparison.is_of_the_paper and (ranks := class_ranks(comparison)):
        blocks.append(ranks)
    return Section("classes", "Easiest and hardest classes", blocks)


def confusion_section(comparison: Comparison) -> Section:
    """Each network's confusion, as a heatmap and as the most confused pairs."""
    confusion = Confusion(comparison)
    folds = [
        Fold(row.model, [confusion.heatmap(f"confusion_{row.model}", row.confusion, row.model), confused_pairs(row)])
        for row in comparison.rows
    ]
    return Section("confusion", "Confusion", [CONFUSION, *folds])


class Confusion:
    """Heatmaps with one order of the classes for all networks: those confused with each other are adjacent."""

    def __init__(self, comparison: Comparison) -> None:
        self._order = comparison.class_order
        names = unique_names(comparison)
        self._names = [names[c] for c in self._order]

    def heatmap(self, name: str, confused: NDArray[np.int64], model: str = "") -> Heatmap:
        """confused: (C, C) counts."""
        title = f"Confusion of {model}" if model else ""
        right = 100 * confused.diagonal()[self._order] / np.maximum(confused.sum(axis=1)[self._order], 1)
        return Heatmap(name, title, self._names, classes.mistakes_percent(confused, self._order), right)


def unique_names(comparison: Comparison) -> list[str]:
    """The class names on one line, with the id beside those that two classes share: an axis would merge them."""
    names = [one_line(name) for name in comparison.first.class_names]
    ids = comparison.first.class_ids
    return [n if names.count(n) == 1 else f"{n} ({c})" for c, n in zip(ids, names, strict=True)]


def extremes(rows: Sequence[Row]) -> Table:
    def named(row: Row, chosen: Sequence[int]) -> Cell:
        accuracies = (f"{row.classes[c].name} {percent(row.classes[c].accuracy or 0, 0)}" for c in chosen)
        return Cell(", ".join(accuracies) or "none")

    best_and_worst = [classes.best_and_worst([of_class.accuracy for of_class in row.classes]) for row in rows]
    body = [
        [network_cell(row.model), *(named(row, chosen) for chosen in both)]
        for row, both in zip(rows, best_and_worst, strict=True)
    ]
    return Table("Easiest and hardest classes", ("Network", "Easiest", "Hardest"), body, (0, 1, 2), "prose")


def confused_pairs(row: Row) -> Table | str:
    pairs = classes.most_confused_pairs(row.confusion, row.records[0].class_names)
    if not pairs:
        return "No two classes were confused more than once."
    rows = [[Cell(f"{p.first} · {p.second}"), Cell(str(p.forward)), Cell(str(p.backward))] for p in pairs]
    header = ("Classes", "First as second", "Second as first")
    seeds = f", {len(row.seeds)} seeds together" if len(row.seeds) > 1 else ""
    return Table(f"Most confused pairs of {row.model}{seeds}", header, rows, style="")


def figures_of_records(comparison: Comparison) -> list[Heatmap | Gallery]:
    """NAME_confusion and, with images, NAME_best_and_worst of each trained network: the paper's figures 10 and 11."""
    confusion = Confusion(comparison)
    figures: list[Heatmap | Gallery] = []
    for record in comparison.records:
        figures.append(confusion.heatmap(f"{record.name}_confusion", record.confusion))
        if comparison.images is not None:
            accuracies = classes.per_class(record.confusion, record.class_ids, record.class_names)
            figures.append(_gallery(record, accuracies, comparison.images, _counted))
    return figures


def _gallery(record: Record, accuracies: Sequence[ClassAccuracy], images: Images, words: Words) -> Gallery:
    """The five best and five worst classes, with examples of the record's predictions."""
    easiest, hardest = classes.best_and_worst([accuracy.accuracy for accuracy in accuracies])

    def examples(c: int) -> ClassExamples:
        right, wrong = (
            [Example(images[i], record.class_names[record.predicted[i]]) for i in chosen]
            for chosen in classes.examples(record.predicted, record.labels, c, EXAMPLES)
        )
        return ClassExamples(accuracies[c].name, words(accuracies[c]), right, wrong)

    groups = {"Easiest": [*map(examples, easiest)], "Hardest": [*map(examples, hardest)]}
    return Gallery(f"{record.name}_best_and_worst", {title: group for title, group in groups.items() if group})


def _wilson(accuracy: ClassAccuracy) -> str:
    bounds = f"{percent(accuracy.wilson_low, 0)} to {percent(accuracy.wilson_high, 0)}"
    confused = accuracy.most_confused_with
    return f"{percent(accuracy.accuracy or 0, 0)} ({bounds})" + (
        f", most often predicted as {confused}" if confused else ""
    )


def _counted(accuracy: ClassAccuracy) -> str:
    return f"{percent(accuracy.correct / accuracy.n, 0)} ({accuracy.correct} of {accuracy.n})"


def predictions(comparison: Comparison) -> list[dict[str, str]]:
    """Every prediction of the most accurate network, for `dvc plots`."""
    names = unique_names(comparison)
    record = comparison.first
    return [
        {"model": record.name, "actual": names[actual], "predicted": names[predicted]}
        for actual, predicted in zip(record.labels, record.predicted, strict=True)
    ]


CLASSES = (
    "Accuracy over all seeds, with its Wilson 95 % interval. The images are the first of their class that the "
    "first seed’s network classified correctly (green) and incorrectly (red, with the class predicted)."
)
CONFUSION = (
    "Percent of each true class that was predicted as another; classes confused with each other are adjacent. The grey "
    "diagonal stands for correct predictions."
)
