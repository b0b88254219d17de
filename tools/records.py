"""docs/results/RECIPE: the report, the records of its networks, and what the experiments measured of them.

The report is the Markdown version, without an image of the data set: its photographs are not ours to publish. The HTML
one, which shows the same, includes plotly's code (2 MB). Instead of logits, the records hold predicted classes.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from frugalnet.comparison.compare import Evidence
from frugalnet.comparison.families import colours
from frugalnet.data import arrays
from frugalnet.errors import UserError
from frugalnet.files import atomic, read_json, write_json
from frugalnet.paper.claims import PAPER_RECIPE, tested_by
from frugalnet.paper.experiment import read_experiment, section
from frugalnet.study.experiments import gather
from frugalnet.study.findings import conclude
from frugalnet.study.report import Report, compose, write_report

RESULTS = Path("docs/results")
PREDICTIONS = "predictions.npz"
KEPT = {  # of each network, by stage
    "train": ("run.json", "history.csv", "timing.json"),
    "evaluate": ("metrics.json", "per_class.csv", "layers.csv"),
}
MEASURED = ("export/*/export.json", "adapt/*/adapt.json", "*_timing/*/timing.json", "robustness/*.json")


def publish_project(added: str | None) -> None:
    """Publish the project's results, together with what is published of the recipe `added`, if any."""
    root = Path("results")
    data = arrays.read_dataset(Path("data/arrays"))
    if added:
        print(f"kept: {', '.join(add_published(RESULTS / added, root)) or 'none'}")
    print(publish_results(root, gather(root, data), RESULTS))


def publish_results(root: Path, evidence: Evidence, folder: Path) -> Path:
    """Write the report and the records of all compared networks under `folder`; returns the folder of their recipe.

    root: the folder of results. Raises UserError for sample data, or for networks of several recipes.
    """
    comparison = replace(evidence.comparison, images=None)
    if comparison.first.run.is_sample:
        raise UserError(f"{root} holds results on sample data, which do not belong in {folder}")
    recipes = sorted({row.recipe for row in comparison.rows})
    if len(recipes) > 1:
        raise UserError(f"{root} holds networks of the recipes {', '.join(recipes)}: evaluate those of one recipe only")
    published = folder / recipes[0]
    with atomic(published) as partial:
        write_report(_report(replace(evidence, comparison=comparison), published), partial)
        (partial / "report.html").unlink()
        write_json(partial / "cost.json", {row.model: row.cost for row in comparison.rows if row.cost})
        for record in comparison.records:
            for stage, names in KEPT.items():
                for name in names:
                    _copy(root / stage / record.name / name, partial / record.name / name)
            _leave_out_host(partial / record.name / "timing.json")
            predicted = record.predicted.astype(np.uint16)
            labels = record.labels.astype(np.uint16)
            np.savez_compressed(partial / record.name / PREDICTIONS, predicted=predicted, labels=labels)
        for path in _measured(root):
            _copy(path, partial / path.relative_to(root))
        if (published / "weights").is_dir():
            shutil.copytree(published / "weights", partial / "weights")
    return published


def _leave_out_host(timing: Path) -> None:
    """Remove the name of the machine that `make train-all` chose: it tells a reader nothing, and may be private."""
    content = read_json(timing)
    if content.pop("node", None):
        write_json(timing, content)


def _report(evidence: Evidence, published: Path) -> Report:
    """The report; claims that depend on the paper's recipe are judged by its networks, if they are published."""
    findings = conclude(evidence)
    run = evidence.comparison.first.run
    paper = None if published.name == PAPER_RECIPE else read_experiment(published.with_name(PAPER_RECIPE), run)
    if paper is None:
        return compose(findings)
    paper_section = section(paper, colours(evidence.comparison.rows))
    return compose(replace(findings, claims=tested_by(findings.claims, paper.claims)), [paper_section])


def add_published(published: Path, root: Path) -> list[str]:
    """Copy what docs/results/RECIPE holds of networks that the folder of results, `root`, lacks; returns their names.

    Costs are not copied, and robustness, where one file is of all networks, only if `root` has none of them. Raises
    UserError if nothing is published there.
    """
    records = sorted(path.parent for path in published.glob(f"*/{PREDICTIONS}"))
    if not records:
        raise UserError(f"{published} holds no published record ({PREDICTIONS}); name a recipe of {published.parent}")
    missing = [record for record in records if not any(any(root.glob(f"{stage}/{record.name}/*")) for stage in KEPT)]
    for record in missing:
        for stage, names in KEPT.items():
            for name in names:
                _copy(record / name, root / stage / record.name / name)
        _copy(record / PREDICTIONS, root / "evaluate" / record.name / PREDICTIONS)
    models = {record.name.rpartition("-")[0] for record in missing}
    for path in _measured(published):
        is_of_all = path.parent.name == "robustness"
        is_missing = path.parent.name.rpartition("-")[0] in models
        if is_missing or (is_of_all and missing == records):
            _copy(path, root / path.relative_to(published))
    return [record.name for record in missing]


def _measured(folder: Path) -> list[Path]:
    return [path for pattern in MEASURED for path in folder.glob(pattern)]


def _copy(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, copy)
