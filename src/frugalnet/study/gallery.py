"""Easiest and hardest classes of a network with examples: as a block of the report, and as PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from frugalnet.comparison.compare import Row
from frugalnet.comparison.records import Record
from frugalnet.document.blocks import ClassExamples, Example, Gallery
from frugalnet.document.drawing import data_url, save_png, shortened
from frugalnet.document.wording import percent
from frugalnet.metrics import classes
from frugalnet.metrics.classes import ClassAccuracy

Images = NDArray[np.uint8]  # (N, H, W, 3) RGB
EXAMPLES = 4  # images classified correctly, and incorrectly, of each class
_COLOURS = ("#23855a", "#b3303b")  # of images classified correctly and incorrectly
_LEFT = 2.0  # the width of the text beside the images; an image is 1 wide
_STEP = 1.12  # from one image to the next
_ROW = 1.4  # the height of a row


def gallery(row: Row, images: Images) -> Gallery:
    """The five best and five worst classes of a network, with examples of its first seed's predictions.

    images: the validation images.
    """
    easiest, hardest = classes.best_and_worst([one.accuracy for one in row.classes])
    groups = {
        "Easiest": [_examples(row, images, c) for c in easiest],
        "Hardest": [_examples(row, images, c) for c in hardest],
    }
    return Gallery(groups, f"{row.records[0].name}_best_and_worst")


def _examples(row: Row, images: Images, wanted: int) -> ClassExamples:
    record, accuracy = row.records[0], row.classes[wanted]
    right, wrong = (
        [Example(data_url(images[i]), record.class_names[record.predicted[i]]) for i in chosen]
        for chosen in classes.examples(record.predicted, record.labels, wanted, EXAMPLES)
    )
    bounds = f"{percent(accuracy.wilson_low, 0)} to {percent(accuracy.wilson_high, 0)}"
    confused = accuracy.most_confused_with
    figures = f"{percent(accuracy.accuracy or 0, 0)} ({bounds})"
    return ClassExamples(
        accuracy.name, f"{figures}, most often predicted as {confused}" if confused else figures, right, wrong
    )


def draw_best_and_worst(images: Images, record: Record, accuracies: Sequence[ClassAccuracy], path: Path) -> None:
    """Draw the five best and five worst classes as a PNG, as the paper's figures 10 and 11.

    One row per class: examples classified correctly (green), and incorrectly (red) with the class predicted.
    """
    best, worst = classes.best_and_worst([accuracy.accuracy for accuracy in accuracies])
    shown = [*(("best", c) for c in best), *(("worst", c) for c in worst)]
    width = _LEFT + 2 * EXAMPLES * _STEP + 0.2
    figure = Figure(figsize=(width, _ROW * len(shown)), dpi=100)
    FigureCanvasAgg(figure)
    # One pair of axes for all images: a pair for each would take ten times as long.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for line, (kind, c) in enumerate(shown):
        accuracy = accuracies[c]
        top = _ROW * line + 0.3
        share = f"{percent(accuracy.correct / accuracy.n, 0)} ({accuracy.correct} of {accuracy.n})"
        text = f"{shortened(accuracy.name, 20)}\n{share}\n{kind}"
        axes.text(0.1, top + 0.5, text, va="center", fontsize=9, parse_math=False)
        right, wrong = classes.examples(record.predicted, record.labels, c, EXAMPLES)
        for column, i in enumerate(right):
            _draw_image(axes, images[i], (_LEFT + _STEP * column, top), "right", _COLOURS[0])
        for column, i in enumerate(wrong, start=EXAMPLES):
            name = record.class_names[record.predicted[i]]
            _draw_image(axes, images[i], (_LEFT + _STEP * column + 0.1, top), name, _COLOURS[1])
    axes.set(xlim=(0, width), ylim=(_ROW * len(shown), 0), aspect="auto")
    save_png(figure, path)


def _draw_image(axes: Axes, image: Images, corner: tuple[float, float], title: str, colour: str) -> None:
    left, top = corner
    axes.imshow(image, extent=(left, left + 1, top + 1, top), interpolation="nearest")
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, color=colour, linewidth=2))
    axes.text(left, top - 0.07, shortened(title, 15), fontsize=7, color=colour, parse_math=False)
