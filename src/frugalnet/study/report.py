"""The report as a folder: the document, and beside it the figures and tables as PNG, CSV and JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frugalnet.comparison.compare import Evidence
from frugalnet.comparison.experiment import Experiment
from frugalnet.comparison.families import colours
from frugalnet.comparison.networks import Row
from frugalnet.comparison.records import Epoch, Record
from frugalnet.document.blocks import Document, Section
from frugalnet.document.write import write_document
from frugalnet.files import atomic, write_json, write_table
from frugalnet.paper import section as paper
from frugalnet.study import accuracy, cost, equal_cost, tables, training
from frugalnet.study import classes as of_classes
from frugalnet.study.advice import chooser
from frugalnet.study.experiments import EXPERIMENTS
from frugalnet.study.findings import Findings

QUESTION = "How much accuracy does a network’s computation buy?"
TERMS = (
    "Top-1: the percentage of images whose highest-scoring class is the true one. MACs: multiply–accumulate operations "
    "that one image takes, the usual measure of computation. Pareto-optimal: no other network is at least as accurate "
    "with no more MACs. Dominated: significantly less accurate than a network with no more MACs. Significant: the "
    "95 % interval of the difference, paired by image, excludes zero."
)
SECTIONS = (
    accuracy.section,
    cost.section,
    training.section,
    of_classes.section,
    of_classes.confusion_section,
    cost.layers_section,
)
MACRO_TERM = (
    "Macro accuracy: the mean of the classes’ accuracies, so that a rare class counts as much as a frequent one. "
)
SAMPLE_BANNER = "sample data: not Tiny ImageNet"


@dataclass(frozen=True)
class Report:
    """The document, and the figures and tables beside it as JSON, CSV and text."""

    document: Document
    comparison: dict[str, Any]
    efficiency: dict[str, Any]
    terminal: str
    tables: dict[str, list[dict[str, Any]]]  # by the name of the CSV file


def compose(findings: Findings, further: Sequence[Section] = ()) -> Report:
    """Everything that the report shows. further: sections before those of the experiments."""
    comparison = findings.comparison
    records = comparison.records
    return Report(
        describe(findings, further),
        findings.summary(),
        {record.name: record.efficiency() for record in records},
        tables.terminal(comparison.rows),
        {
            "table": [_csv_row(row) for row in comparison.rows],
            # One line per evaluation, without anything that varies from run to run.
            "accuracy": [_name(record) | record.metrics.model_dump() for record in records],
            "curves": [_name(record) | _csv_epoch(epoch) for record in records for epoch in record.history],
            "confusion": of_classes.predictions(comparison),
        },
    )


def write_report(report: Report, out: Path) -> None:
    """Fill the folder `out`: report.html, report.md, figures/, comparison.json, efficiency.json and tables as CSV."""
    with atomic(out) as folder:
        folder.mkdir(parents=True)
        write_document(report.document, folder)
        write_json(folder / "comparison.json", report.comparison)
        write_json(folder / "efficiency.json", report.efficiency)
        (folder / "table.txt").write_text(report.terminal + "\n", encoding="utf-8")
        for name, lines in report.tables.items():
            write_table(folder / f"{name}.csv", lines)


def describe(findings: Findings, further: Sequence[Section] = ()) -> Document:
    """The report: what was found, the sections on the networks, the paper's claims, and the experiments."""
    comparison = findings.comparison
    at_equal_cost = equal_cost.section(comparison, findings.pairs)
    of_networks = [*filter(None, [at_equal_cost]), *(section(comparison) for section in SECTIONS)]
    of_paper = [paper.section(findings.claims, comparison, findings.pairs)] if comparison.is_of_the_paper else []
    of_experiments: list[Section] = []
    not_measured: list[str] = []
    for experiment in EXPERIMENTS:
        if shown := experiment.shown(findings.evidence):
            of_experiments.append(shown)
        else:
            not_measured.append(f"{experiment.title}: not measured{_why(experiment, findings.evidence)}.")
    left_out = [f"Left out: {record.name}, {record.reason}." for record in comparison.left_out]
    return Document(
        title=QUESTION,
        scope=findings.scope,
        answer=findings.recommendation,
        chooser=chooser(findings.evidence, findings.budget),
        chart=cost.cost_chart(comparison.rows, cost.ANSWER),
        terms=TERMS if comparison.class_sizes is None else MACRO_TERM + TERMS,
        sections=[*of_networks, *of_paper, *further, *of_experiments],
        facts=findings.facts,
        notes=[*comparison.notes, *left_out, *not_measured],
        colours=colours(comparison.rows),
        open_fold=comparison.first.model,
        banner=SAMPLE_BANNER if comparison.first.run.is_sample else "",
        attached=of_classes.figures_of_records(comparison),
    )


def _why(experiment: Experiment[Any], evidence: Evidence) -> str:
    lacking = evidence.lacking.get(experiment.id)
    return f", as the data do not suffice: {lacking}" if lacking else f". Rerun with -S {experiment.choice}"


def _name(record: Record) -> dict[str, Any]:
    return {"model": record.model, "seed": record.seed}


def _csv_row(row: Row) -> dict[str, Any]:
    interval = {"top1_low": row.top1_interval.low, "top1_high": row.top1_interval.high}
    hidden = {"top5"} if row.has_few_classes else set()
    figures = {key: column.value(row) for key, column in tables.BY_KEY.items() if key not in hidden}
    return {"model": row.model, "seeds": len(row.seeds), **interval, **figures}


def _csv_epoch(epoch: Epoch) -> dict[str, Any]:
    keys = ("epoch", "train_top1", "validation_top1", "train_loss", "validation_loss")
    return {key: getattr(epoch, key) for key in keys}
