"""Fill weights/ from the project's finished runs: python -m tools.weights [NAME …], for example residual-0.

By default it takes the lowest seed of each network whose file is at most 10 MB: git keeps every version for ever.
What weights/ holds of other recipes stays. Networks of the paper's recipe are there to be verified, not used: they go
to docs/results/paper/weights.
"""

import sys
from pathlib import Path

from frugalnet.errors import UserError, in_one_line
from frugalnet.files import read_json
from frugalnet.report.claims import PAPER_RECIPE
from frugalnet.use import weights

FOLDER, RESULTS = Path("weights"), Path("docs/results")
MAX_BYTES = 10_000_000


def main(names: list[str]) -> None:
    evaluated = sorted(path.parent.name for path in Path("results/evaluate").glob("*/metrics.json"))
    if not evaluated:
        raise UserError("results/evaluate holds no finished run: run `dvc repro` first")
    if unknown := set(names) - set(evaluated):
        raise UserError(f"{', '.join(sorted(unknown))}: no finished run; there are {', '.join(evaluated)}")
    if read_json(Path("data/arrays/dataset.json"))["is_sample"]:
        raise UserError("data/arrays holds sample data; weights trained on them do not belong in weights/")
    chosen = [weights.of_run(Path(), name) for name in names] or _default(evaluated)
    recipes = {stored.entry.recipe["recipe"] for stored in chosen}
    if PAPER_RECIPE in recipes and len(recipes) > 1:
        raise UserError(f"networks of the recipes {', '.join(sorted(recipes))}: name those of one")
    folder = RESULTS / PAPER_RECIPE / "weights" if PAPER_RECIPE in recipes else FOLDER
    there = weights.of_folder(folder) if (folder / "weights.json").is_file() else []
    kept = [stored for stored in there if stored.entry.recipe["recipe"] not in recipes]
    if twice := {stored.name for stored in kept} & {stored.name for stored in chosen}:
        raise UserError(f"{folder} holds {', '.join(sorted(twice))} of another recipe: remove it first, or name others")
    weights.write(folder, sorted([*kept, *chosen], key=lambda stored: stored.name))
    for stored in chosen:
        print(f"{folder / stored.entry.file}: top-1 {stored.entry.top1:.2%}, {stored.path.stat().st_size:,} bytes")


def _default(evaluated: list[str]) -> list[weights.Stored]:
    first: dict[str, weights.Stored] = {}
    for name in evaluated:
        try:
            run = weights.of_run(Path(), name)
        except UserError as error:  # a run on other data, left from an earlier study
            print(f"left out: {error}", file=sys.stderr)
            continue
        if run.path.stat().st_size > MAX_BYTES:
            print(f"left out: {run.path}, larger than {MAX_BYTES:,} bytes; name it to include it", file=sys.stderr)
        elif run.entry.model not in first or run.entry.seed < first[run.entry.model].entry.seed:
            first[run.entry.model] = run
    if not first:
        raise UserError("no run fits; name those to include")
    return list(first.values())


if __name__ == "__main__":
    with in_one_line("weights"):
        main(sys.argv[1:])
