"""The report of a comparison: one HTML file, its Markdown twin, and the folder of tables and figures beside them."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from frugalnet.files import atomic, write_json, write_table
from frugalnet.metrics import classes
from frugalnet.report import curves, drawing, figures, robustness_section, tables
from frugalnet.report.comparison import Comparison, Row
from frugalnet.report.figures import Chart, Heatmap
from frugalnet.report.findings import Findings
from frugalnet.report.results import Record
from frugalnet.report.robustness_section import Pictures
from frugalnet.report.tables import Table
from frugalnet.report.wording import NOT_MEASURED, markdown, percent

SAMPLE_BANNER = "sample data: not Tiny ImageNet"
Images = NDArray[np.uint8]  # (N, H, W, 3) RGB


@dataclass(frozen=True)
class Grid:
    """Charts side by side."""

    charts: Sequence[Chart | Heatmap]
    columns: int = 2


@dataclass(frozen=True)
class Gallery:
    """Easiest and hardest classes with examples; Markdown shows the PNG instead."""

    groups: dict[str, list[dict[str, Any]]]
    png: str


@dataclass(frozen=True)
class Fold:
    """One network's part of a section, side by side; can be folded."""

    model: str
    blocks: Sequence["Block"]


Block = str | Table | Chart | Heatmap | Grid | Gallery | Fold | Pictures  # a string is a note


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: Sequence[Block]


def write(found: Findings, out: Path, images: Images | None = None, further: Sequence[Section] = ()) -> None:
    """Fill the folder `out`: report.html, report.md, figures/, comparison.json, efficiency.json and tables as CSV.

    images: the validation images, for examples; None leaves these out. further: sections for the end.
    """
    answer, sections = _sections(found, images)
    sections = [*sections, *further]
    charts = [answer, *(chart for section in sections for block in section.blocks for chart in _charts(block))]
    drawn = [chart for chart in charts if not chart.is_empty]
    environment = Environment(
        loader=PackageLoader("frugalnet.report"),
        autoescape=lambda name: bool(name and ".html" in name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"markdown": markdown, "percent": percent}
    context = {
        "sample_banner": SAMPLE_BANNER if found.comparison.first.run["is_sample"] else "",
        "found": found,
        "answer": answer,
        "terms": TERMS,
        "sections": sections,
        "colours": figures.colours(found.comparison.rows),
        "not_measured": NOT_MEASURED,
        "plotly_js": base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode(),
        # plotly's JSON writes "<" as an escape, so that no figure can end the script element that it is in.
        "drawn": {chart.name: to_json_plotly(drawing.plotly(chart)) for chart in drawn},
    }
    with atomic(out) as folder:
        (folder / "figures").mkdir(parents=True)
        _write_data(found, folder)
        for chart in drawn:
            drawing.png(chart, folder / "figures" / f"{chart.name}.png")
        _draw_records(found.comparison, folder / "figures", images)
        for name in ("report.html", "report.md"):
            text = environment.get_template(f"{name}.j2").render(context)
            (folder / name).write_text(text, encoding="utf-8")


def _charts(block: Block) -> list[Chart | Heatmap]:
    if isinstance(block, Fold):
        return [chart for inner in block.blocks for chart in _charts(inner)]
    return [*block.charts] if isinstance(block, Grid) else [block] if isinstance(block, Chart | Heatmap) else []


def _draw_records(comparison: Comparison, folder: Path, images: Images | None) -> None:
    """The figures of each trained network: figures/NAME_confusion.png and, with images, NAME_best_and_worst.png."""
    order, names = _order(comparison), figures.unique_names(comparison)
    for row in comparison.rows:
        for record in row.records:
            heatmap = figures.heatmap(f"{record.name}_confusion", "", record.confusion, order, names)
            drawing.png(heatmap, folder / f"{heatmap.name}.png")
            if images is not None:
                accuracies = classes.per_class(record.confusion, record.class_ids, record.class_names)
                drawing.best_and_worst(images, record, accuracies, folder / f"{record.name}_best_and_worst.png")


def _order(comparison: Comparison) -> list[int]:
    """One order of the classes for all networks."""
    return classes.class_order(np.sum([row.confusion for row in comparison.rows], axis=0))


def _write_data(found: Findings, folder: Path) -> None:
    """Write comparison.json, efficiency.json, table.txt and the CSV files into `folder`."""
    rows, records, first = found.comparison.rows, found.comparison.records, found.comparison.first
    names = figures.unique_names(found.comparison)
    write_json(folder / "comparison.json", found.summary())
    write_json(folder / "efficiency.json", {record.name: record.efficiency() for record in records})
    (folder / "table.txt").write_text(tables.terminal(rows) + "\n", encoding="utf-8")
    for name, lines in {
        "table": [_csv_row(row) for row in rows],
        # One line per evaluation, without anything that varies from run to run.
        "accuracy": [{**_name(record), **record.metrics} for record in records],
        "curves": [{**_name(record), **_csv_epoch(epoch)} for record in records for epoch in record.history],
        "confusion": [  # of the most accurate network, for `dvc plots`
            {"model": first.name, "actual": names[actual], "predicted": names[predicted]}
            for actual, predicted in zip(first.labels, first.predicted, strict=True)
        ],
    }.items():
        write_table(folder / f"{name}.csv", lines)


def _name(record: Record) -> dict[str, Any]:
    return {"model": record.model, "seed": record.seed}


def _csv_row(row: Row) -> dict[str, Any]:
    interval = {"top1_low": row.top1_interval.low, "top1_high": row.top1_interval.high}
    figures = {key: column.value(row) for key, column in tables.BY_KEY.items()}
    return {"model": row.model, "seeds": len(row.seeds), **interval, **figures}


def _csv_epoch(epoch: dict[str, float]) -> dict[str, Any]:
    keys = ("train_top1", "validation_top1", "train_loss", "validation_loss")
    return {"epoch": int(epoch["epoch"]), **{key: epoch[key] for key in keys}}


def _sections(found: Findings, images: Images | None) -> tuple[Chart, list[Section]]:
    """The chart beside the recommendation, and the sections below it."""
    comparison, rows = found.comparison, found.comparison.rows
    order, names = _order(comparison), figures.unique_names(comparison)
    *each, together = curves.charts(rows)
    paper_classes = tables.paper_classes(found)

    def confusion(row: Row) -> Heatmap:
        return figures.heatmap(f"confusion_{row.model}", f"Confusion of {row.model}", row.confusion, order, names)

    accuracy: list[Block] = [tables.networks(rows, "Accuracy and cost", tables.SUMMARY), SUMMARY_NOTE]
    accuracy += [tables.networks(rows, "More on accuracy", tables.ACCURACY), ACCURACY_NOTE]
    accuracy += [tables.differences(found), PAIRED] if comparison.differences else []
    answer, *others = (figures.cost_chart(rows, key) for key in figures.COST_AXES)
    costs: list[Block] = [Grid(others, 3), FRONT]
    costs += [tables.networks(rows, "More on cost", tables.COST), COST_NOTE]
    training: list[Block] = [tables.networks(rows, "Training as it ran", tables.TRAINING), TRAINING_NOTE]
    training += [tables.training_cost(rows), REACHED]
    easiest: list[Block] = [tables.extremes(rows)]
    if images is not None:
        easiest += [CLASSES, *(Fold(row.model, [_gallery(row, images)]) for row in rows)]
    easiest += [paper_classes] if paper_classes else []
    confusions = [Fold(row.model, [confusion(row), tables.confused_pairs(row)]) for row in rows]
    claims: list[Block] = [SAMPLE_CLAIMS] if comparison.first.run["is_sample"] else [CLAIMS, tables.claims(found)]
    return answer, [
        Section("table", "Accuracy and cost", accuracy),
        Section("cost", "Accuracy against cost", costs),
        Section(
            "curves",
            "Training",
            [SEEDS, Grid(each, min(len(rows), 3)), together, MEANS, Grid([figures.seed_chart(rows)]), *training],
        ),
        Section("classes", "Easiest and hardest classes", easiest),
        Section("confusion", "Confusion", [CONFUSION, *confusions]),
        Section("layers", "Layers", [Fold(row.model, [tables.layers(row)]) for row in rows]),
        Section("robustness", robustness_section.TITLE, robustness_section.blocks(comparison, images)),
        Section("claims", "The paper’s claims", claims),
    ]


def _gallery(row: Row, images: Images) -> Gallery:
    """The five best and five worst classes of a model, with examples of its first seed's predictions."""
    record, groups = row.records[0], {}
    both = classes.best_and_worst([one.accuracy for one in row.classes])
    for title, chosen in zip(("Easiest", "Hardest"), both, strict=True):
        groups[title] = [
            {
                "figures": row.classes[c],
                "examples": {
                    kind: [(drawing.data_url(images[i]), record.class_names[record.predicted[i]]) for i in indices]
                    for kind, indices in zip(
                        ("right", "wrong"), classes.examples(record.predicted, record.labels, c), strict=True
                    )
                },
            }
            for c in chosen
        ]
    return Gallery(groups, f"{record.name}_best_and_worst")


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
CLAIMS = (
    "Tong, Cho and Sun, 2017. Each measurement is followed by the rule that decides. Undecided: the evidence settles "
    "it neither way, for example because the interval includes zero. Not tested: the networks were not trained, or "
    "times not measured, as in the paper. Not judged: the rule says why."
)
SAMPLE_CLAIMS = "Sample data cannot test the paper’s claims: rerun the pipeline on Tiny ImageNet for a table of them."
