"""The report as a folder: the document, and beside it the figures and tables as PNG, CSV and JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frugalnet.comparison.compare import Comparison, Row
from frugalnet.comparison.records import Record
from frugalnet.document import drawing
from frugalnet.document.blocks import Document, Section
from frugalnet.document.charts import colours
from frugalnet.document.write import write_document
from frugalnet.files import atomic, write_json, write_table
from frugalnet.metrics import classes
from frugalnet.paper import section as paper
from frugalnet.study import charts, sections, tables
from frugalnet.study.experiments import EXPERIMENTS, measured
from frugalnet.study.findings import Findings
from frugalnet.study.gallery import draw_best_and_worst

QUESTION = "How much accuracy does a network’s computation buy?"
SAMPLE_BANNER = "sample data: not Tiny ImageNet"


def write_report(findings: Findings, out: Path, further: Sequence[Section] = ()) -> None:
    """Fill the folder `out`: report.html, report.md, figures/, comparison.json, efficiency.json and tables as CSV.

    further: sections before those of the experiments.
    """
    document = describe(findings, further)
    with atomic(out) as folder:
        folder.mkdir(parents=True)
        write_document(document, folder)
        _write_tables(findings, folder)
        _draw_records(findings.comparison, folder / "figures")


def describe(findings: Findings, further: Sequence[Section] = ()) -> Document:
    """The report: what was found, the sections on the networks, the paper's claims, and the experiments."""
    comparison = findings.comparison
    chart, of_networks = sections.of_networks(comparison)
    done = [*measured(findings.evidence)]
    of_experiments = [experiment.section(result, comparison) for experiment, result in done]
    missing = [experiment for experiment in EXPERIMENTS if experiment not in [one for one, _ in done]]
    not_measured = [f"{experiment.TITLE}: not measured. Rerun with -S {experiment.CHOICE}." for experiment in missing]
    left_out = [f"Left out: {record.name}, {record.reason}." for record in comparison.left_out]
    return Document(
        title=QUESTION,
        scope=findings.scope,
        answer=findings.recommendation,
        chart=chart,
        terms=sections.TERMS,
        sections=[*of_networks, paper.section(findings.claims, comparison), *further, *of_experiments],
        facts=findings.facts,
        notes=[*comparison.notes, *left_out, *not_measured],
        colours=colours(row.model for row in comparison.rows),
        open_fold=comparison.first.model,
        banner=SAMPLE_BANNER if comparison.first.run["is_sample"] else "",
    )


def _draw_records(comparison: Comparison, folder: Path) -> None:
    """The figures of each trained network: NAME_confusion.png and, with images, NAME_best_and_worst.png."""
    order = sections.class_order(comparison)
    names = charts.unique_names(comparison)
    for record in comparison.records:
        heatmap = charts.heatmap(f"{record.name}_confusion", "", record.confusion, order, names)
        drawing.png(heatmap, folder / f"{heatmap.name}.png")
        if comparison.images is not None:
            accuracies = classes.per_class(record.confusion, record.class_ids, record.class_names)
            draw_best_and_worst(comparison.images, record, accuracies, folder / f"{record.name}_best_and_worst.png")


def _write_tables(findings: Findings, folder: Path) -> None:
    comparison = findings.comparison
    records = comparison.records
    write_json(folder / "comparison.json", findings.summary())
    write_json(folder / "efficiency.json", {record.name: record.efficiency() for record in records})
    (folder / "table.txt").write_text(tables.terminal(comparison.rows) + "\n", encoding="utf-8")
    write_table(folder / "table.csv", [_csv_row(row) for row in comparison.rows])
    # One line per evaluation, without anything that varies from run to run.
    write_table(folder / "accuracy.csv", [_name(record) | record.metrics for record in records])
    write_table(folder / "curves.csv", [_name(r) | _csv_epoch(epoch) for r in records for epoch in r.history])
    write_table(folder / "confusion.csv", _csv_predictions(comparison))


def _name(record: Record) -> dict[str, Any]:
    return {"model": record.model, "seed": record.seed}


def _csv_row(row: Row) -> dict[str, Any]:
    interval = {"top1_low": row.top1_interval.low, "top1_high": row.top1_interval.high}
    figures = {key: column.value(row) for key, column in tables.BY_KEY.items()}
    return {"model": row.model, "seeds": len(row.seeds), **interval, **figures}


def _csv_epoch(epoch: Mapping[str, float]) -> dict[str, Any]:
    keys = ("train_top1", "validation_top1", "train_loss", "validation_loss")
    return {"epoch": int(epoch["epoch"]), **{key: epoch[key] for key in keys}}


def _csv_predictions(comparison: Comparison) -> list[dict[str, str]]:
    """Every prediction of the most accurate network, for `dvc plots`."""
    names = charts.unique_names(comparison)
    first = comparison.first
    return [
        {"model": first.name, "actual": names[actual], "predicted": names[predicted]}
        for actual, predicted in zip(first.labels, first.predicted, strict=True)
    ]
