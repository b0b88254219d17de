"""What a document is made of: sections of text, tables, charts and pictures. Plain descriptions, drawn elsewhere.

A colour "@name" is one of the page's own, so that charts follow its colour scheme.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frugalnet.document.wording import NOT_MEASURED, Units, scale

MOST_INTERACTIVE = 200  # classes of a heatmap
MOST_NAMES = 30  # more classes leave no room for their names
MOST_NUMBERS = 9  # more classes leave no room for numbers within a heatmap


@dataclass(frozen=True)
class Cell:
    """A table cell: its text, further lines below it, and how it looks."""

    text: str
    below: tuple[str, ...] = ()
    best: bool = False
    bar: float | None = None  # 0..1
    style: str = ""  # CSS class

    @property
    def missing(self) -> bool:
        return self.text.startswith((NOT_MEASURED, "not reached"))


@dataclass(frozen=True)
class Table:
    """A table to show. The first cell of a row is its heading."""

    title: str
    header: tuple[str, ...]
    rows: list[list[Cell]]
    text_columns: tuple[int, ...] = (0,)  # left-aligned
    style: str = "pin"  # CSS class
    note: str = ""  # below the table


def network_cell(model: str, *below: str) -> Cell:
    """The heading of a network's row, with the dot of its colour."""
    return Cell(model, below, style="network")


def measured_column(values: Sequence[float | None], units: Units) -> list[Cell]:
    """A column of numbers, all in one unit; "–" where there is none."""
    known = [value for value in values if value is not None]
    write = scale(known or [1], units)
    return [Cell("–" if value is None else write(value)) for value in values]


@dataclass(frozen=True)
class Line:
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    text: str = ""  # shown by the pointer
    dotted: bool = False
    width: float = 2.0
    stepped: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None  # its interval: the lower and the upper ends


@dataclass(frozen=True)
class Point:
    """A measured figure: y and its interval in percent, and x with its span in 90 % of measurements."""

    name: str
    colour: str
    x: float
    y: float
    interval: tuple[float, float]
    text: Sequence[str]  # shown by the pointer
    span: tuple[float, float] | None = None
    side: tuple[int, int] = (1, 0)  # where its name stands: -1, 0 or 1 to the right and upward
    filled: bool = False
    network: str = ""  # whose it is, if its name does not say

    @property
    def y_error(self) -> tuple[float, float]:
        """The lengths of the bar below and above."""
        return max(self.y - self.interval[0], 0), max(self.interval[1] - self.y, 0)

    @property
    def x_error(self) -> tuple[float, float] | None:
        """The lengths of the bar to the left and to the right."""
        return (max(self.x - self.span[0], 0), max(self.span[1] - self.x, 0)) if self.span else None


@dataclass(frozen=True)
class Label:
    """A text right of the chart."""

    y: float
    text: str
    colour: str


@dataclass(frozen=True)
class Chart:
    """Top-1 or another percentage, upward, against costs, epochs or categories."""

    name: str  # of the PNG
    title: str
    x_title: str
    x_range: tuple[float, float] = (0, 1)
    y_range: tuple[float, float] = (0, 1)
    lines: Sequence[Line] = ()
    points: Sequence[Point] = ()
    labels: Sequence[Label] = ()
    ticks: Sequence[float] = ()  # of a logarithmic x axis; else it is linear
    height: int = 300  # pixels on the page
    y_title: str = "top-1, %"
    x_names: Sequence[str] = ()  # of x = 0, 1, …: categories

    @property
    def is_empty(self) -> bool:
        return not (self.lines or self.points)


@dataclass(frozen=True)
class Heatmap:
    """Percent of each true class (down) that was predicted as another (across)."""

    name: str
    title: str
    class_names: Sequence[str]
    percent: NDArray[np.float32]  # (C, C); the diagonal is NaN
    right: NDArray[np.float64] | None = None  # (C,), percent of each class predicted correctly, for few classes
    height: int = 520
    is_empty: bool = False

    @property
    def is_large(self) -> bool:
        """Whether the page shows a picture of it, as an interactive one of so many classes would be too heavy."""
        return len(self.class_names) > MOST_INTERACTIVE

    @property
    def names_fit(self) -> bool:
        return len(self.class_names) <= MOST_NAMES

    def numbers(self) -> Iterator[tuple[int, int, str]]:
        """The row, column and percentage of every cell, where they fit; none of 0 % but on the diagonal."""
        if self.right is None or len(self.class_names) > MOST_NUMBERS:
            return
        for (row, column), value in np.ndenumerate(self.percent):
            percent = float(self.right[row] if row == column else value)
            if row == column or percent > 0:
                yield row, column, f"{percent:.0f} %"


@dataclass(frozen=True)
class Grid:
    """Charts side by side."""

    charts: Sequence[Chart | Heatmap]
    columns: int = 2


@dataclass(frozen=True)
class Pair:
    """A picture before and after a change, each (H, W, 3) uint8 RGB."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class Pairs:
    """Changed pictures. The page shows them; Markdown does not."""

    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Example:
    """A picture, (H, W, 3) uint8 RGB, and the class that it was taken for."""

    image: NDArray[np.uint8]
    predicted: str


@dataclass(frozen=True)
class ClassExamples:
    """A class, its figures in words, and pictures of it classified correctly and incorrectly."""

    name: str
    figures: str
    right: Sequence[Example]
    wrong: Sequence[Example]


@dataclass(frozen=True)
class Gallery:
    """Classes with examples, in groups by title. Markdown shows it as PNG."""

    name: str  # of the PNG
    groups: Mapping[str, Sequence[ClassExamples]]
    is_empty: bool = False


@dataclass(frozen=True)
class Limit:
    """A cost that the reader may limit: what each choice costs (None: not measured), in the unit beside the field."""

    title: str
    unit: str
    costs: Sequence[float | None]
    most: float | None = None  # the limit to begin with


@dataclass(frozen=True)
class Chooser:
    """Networks, the best first, and limits to try: the page names the best network within them, and greys out the rows
    and points of the others. Markdown does not show it."""

    networks: Sequence[str]
    figures: Sequence[str]  # what is said of each
    limits: Sequence[Limit]


@dataclass(frozen=True)
class Fold:
    """One network's part of a section, side by side; can be folded."""

    model: str
    blocks: Sequence["Block"]


Block = str | Table | Chart | Heatmap | Grid | Gallery | Fold | Pairs  # a string is a note


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A document: its answer and the chart beside it, what the terms mean, the sections, and how it was made."""

    title: str
    scope: str  # what it is about, in a sentence
    answer: Sequence[str]  # sentences, the most important first
    chooser: Chooser | None
    chart: Chart
    terms: str
    sections: Sequence[Section]
    facts: Mapping[str, str]
    notes: Sequence[str]
    colours: Mapping[str, str]  # by network
    open_fold: str  # the network whose folds are open
    banner: str = ""
    attached: Sequence[Heatmap | Gallery] = ()  # drawn as PNG; of equal name, instead of a section's


def figures_of(block: Block) -> list[Chart | Heatmap | Gallery]:
    """What is drawn as PNG in a block."""
    if isinstance(block, Fold):
        return [figure for inner in block.blocks for figure in figures_of(inner)]
    if isinstance(block, Grid):
        return [*block.charts]
    return [block] if isinstance(block, Chart | Heatmap | Gallery) else []
