"""Copy the project's results to docs/results/RECIPE, to be committed: python -m tools.results [--add RECIPE].

The report there has no image of the data set: its photographs are not ours to publish. It is the Markdown version: the
HTML one, which shows the same, includes plotly's code (2 MB). Beside it, for each network, what `make verify` and the
tests compare with: run.json, history.csv, timing.json, metrics.json, per_class.csv, layers.csv, and the predicted class
of every validation image in predictions.npz. Costs are in cost.json. What was measured of exported files is in export/
and export_timing/, of fine-tuning in adapt/ and adapt_timing/, and on changed pictures in robustness/. Claims that
depend on the paper's recipe are judged by the networks in docs/results/paper, if there are any: publish those first.

All networks of a recipe are published together. With --add, those published before that results/ lacks are copied there
first, so that one more network can be added without the weights of the others. Their costs are not: measure all
networks together, in one run of the stage `measure`.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from frugalnet.comparison.compare import Evidence
from frugalnet.data import arrays
from frugalnet.document.charts import colours
from frugalnet.errors import UserError, in_one_line
from frugalnet.files import atomic, write_json
from frugalnet.paper import experiment
from frugalnet.paper.claims import PAPER_RECIPE, tested_by
from frugalnet.study.experiments import gather
from frugalnet.study.findings import conclude
from frugalnet.study.report import compose, write_report

STUDY_RECIPE = "modern"
PREDICTIONS = "predictions.npz"
KEPT = {
    "train": ("run.json", "history.csv", "timing.json"),
    "evaluate": ("metrics.json", "per_class.csv", "layers.csv"),
}
MEASURED = (
    *("export/*/export.json", "export_timing/*/timing.json", "robustness/*.json"),
    *("adapt/*/adapt.json", "adapt_timing/*/timing.json"),
)
FOLDER = Path("docs/results")


def publish(root: Path, evidence: Evidence, folder: Path) -> Path:
    """Write the report and the records of all compared networks under `folder`; returns the folder of their recipe.

    root: the folder of results. No photograph is shown. Raises UserError for sample data, or for networks of several
    recipes.
    """
    compared = replace(evidence.comparison, images=None)
    if compared.first.run["is_sample"]:
        raise UserError(f"{root} holds results on sample data, which do not belong in {folder}")
    recipes = sorted({row.recipe for row in compared.rows})
    if len(recipes) > 1:
        raise UserError(f"{root} holds networks of the recipes {', '.join(recipes)}: evaluate those of one recipe only")
    found, further = conclude(replace(evidence, comparison=compared)), []
    papers = experiment.load(folder / PAPER_RECIPE, compared.first.run) if recipes[0] != PAPER_RECIPE else None
    if papers:
        found = replace(found, claims=tested_by(found.claims, papers.claims))
        further = [experiment.section(papers, colours(row.model for row in compared.rows))]
    with atomic(folder / recipes[0]) as partial:
        write_report(compose(found, further), partial)
        (partial / "report.html").unlink()
        write_json(partial / "cost.json", {row.model: row.cost for row in compared.rows if row.cost})
        for record in compared.records:
            (partial / record.name).mkdir()
            for stage, names in KEPT.items():
                for name in names:
                    shutil.copy(root / stage / record.name / name, partial / record.name / name)
            predicted, labels = (array.astype(np.uint16) for array in (record.predicted, record.labels))
            np.savez_compressed(partial / record.name / PREDICTIONS, predicted=predicted, labels=labels)
        if (stored := folder / recipes[0] / "weights").is_dir():  # by tools.weights
            shutil.copytree(stored, partial / "weights")
        for pattern in MEASURED:
            for path in sorted(root.glob(pattern)):
                copied = partial / path.relative_to(root)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copied)
    return folder / recipes[0]


def add(published: Path, root: Path) -> list[str]:
    """Copy what is published in docs/results/RECIPE of networks that the folder of results, `root`, lacks; their names.

    Costs are not copied, and robustness, where one file is of all networks, only if `root` has none of them. Raises
    UserError if nothing is published there.
    """
    records = sorted(path.parent for path in published.glob(f"*/{PREDICTIONS}"))
    if not records:
        raise UserError(f"{published} holds no published record ({PREDICTIONS}); name a recipe of {published.parent}")
    missing = [one for one in records if not any(any((root / stage / one.name).glob("*")) for stage in KEPT)]
    copies = [
        (record / name, root / stage / record.name / name)
        for record in missing
        for stage, names in {"train": KEPT["train"], "evaluate": (*KEPT["evaluate"], PREDICTIONS)}.items()
        for name in names
    ]
    models = {one.name.rpartition("-")[0] for one in missing}
    for path in (path for pattern in MEASURED for path in published.glob(pattern)):
        of_all = path.parent.name == "robustness"
        if missing == records if of_all else path.parent.name.rpartition("-")[0] in models:
            copies.append((path, root / path.relative_to(published)))
    for path, copied in copies:
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copied)
    return [record.name for record in missing]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m tools.results", description=__doc__.partition("\n")[0])
    parser.add_argument("--add", metavar="RECIPE", help="keep what is published of the recipe's other networks")
    arguments = parser.parse_args(argv)
    data, root = arrays.read_dataset(Path("data/arrays")), Path("results")
    if arguments.add:
        print(f"kept: {', '.join(add(FOLDER / arguments.add, root)) or 'none'}")
    print(publish(root, gather(root, data), FOLDER))


if __name__ == "__main__":
    with in_one_line("results"):
        main()
