"""Copy the project's results to docs/results/RECIPE, to be committed: python -m tools.results.

The report there has no image of the data set: its photographs are not ours to publish. It is the Markdown version: the
HTML one, which shows the same, includes plotly's code (2 MB). Beside it, for each network, what `make verify` and the
tests compare with: run.json, history.csv, timing.json, metrics.json and per_class.csv. Costs are in cost.json. What was
measured of exported files is in export/ and export_timing/, of fine-tuning in adapt/ and adapt_timing/, and on changed
pictures in robustness/. Claims that depend on the paper's recipe are judged by the networks in docs/results/paper, if
there are any: publish those first. All networks of a recipe are published together.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from frugalnet.data import arrays
from frugalnet.errors import UserError, in_one_line
from frugalnet.files import atomic, sha256_of, write_json
from frugalnet.report import comparison, experiment, findings, page, whole
from frugalnet.report.claims import PAPER_RECIPE, tested_by
from frugalnet.report.figures import colours

STUDY_RECIPE = "modern"
KEPT = {"train": ("run.json", "history.csv", "timing.json"), "evaluate": ("metrics.json", "per_class.csv")}
MEASURED = (
    *("export/*/export.json", "export_timing/*/timing.json", "robustness/*.json"),
    *("adapt/*/adapt.json", "adapt_timing/*/timing.json"),
)
FOLDER = Path("docs/results")


def publish(root: Path, compared: comparison.Comparison, folder: Path) -> Path:
    """Write the report and the records of all compared networks under `folder`; returns the folder of their recipe.

    root: the folder of results. Raises UserError for sample data, or for networks of several recipes.
    """
    if compared.first.run["is_sample"]:
        raise UserError(f"{root} holds results on sample data, which do not belong in {folder}")
    recipes = sorted({row.recipe for row in compared.rows})
    if len(recipes) > 1:
        raise UserError(f"{root} holds networks of the recipes {', '.join(recipes)}: evaluate those of one recipe only")
    found, further = findings.find(compared), [*whole.further_sections(compared, root)]
    papers = experiment.load(folder / PAPER_RECIPE, compared.first.run) if recipes[0] != PAPER_RECIPE else None
    if papers:
        found = replace(found, claims=tested_by(found.claims, papers.claims))
        further.insert(0, experiment.section(papers, colours(compared.rows)))
    with atomic(folder / recipes[0]) as partial:
        page.write(found, partial, further=further)
        (partial / "report.html").unlink()
        write_json(partial / "cost.json", {row.model: row.cost for row in compared.rows if row.cost})
        for record in compared.records:
            (partial / record.name).mkdir()
            for stage, names in KEPT.items():
                for name in names:
                    shutil.copy(root / stage / record.name / name, partial / record.name / name)
        if (stored := folder / recipes[0] / "weights").is_dir():  # by tools.weights
            shutil.copytree(stored, partial / "weights")
        for pattern in MEASURED:
            for path in sorted(root.glob(pattern)):
                copied = partial / path.relative_to(root)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copied)
    return folder / recipes[0]


def main() -> None:
    data, root = arrays.load(Path("data/arrays")), Path("results")
    compared = whole.load(root, sha256_of(data.sha256), data.validated_on)
    print(publish(root, compared, FOLDER))


if __name__ == "__main__":
    with in_one_line("results"):
        main()
