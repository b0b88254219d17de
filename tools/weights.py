"""Fill weights/ from the project's finished runs: python -m tools.weights [NAME …], for example residual-0.

By default it takes the lowest seed of each network whose file is at most 10 MB: git keeps every version for ever.
Networks of the paper's recipe, and those of which weights/ holds one of another recipe, are there to be verified, not
used: they go to docs/results/RECIPE/weights. What a folder holds of other recipes stays.
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
    by_folder: dict[Path, list[weights.Stored]] = {}
    for stored in chosen:
        by_folder.setdefault(_folder(stored), []).append(stored)
    for folder, stored_there in by_folder.items():
        recipes = {stored.entry.recipe["recipe"] for stored in stored_there}
        kept = [stored for stored in _held(folder) if stored.entry.recipe["recipe"] not in recipes]
        weights.write(folder, sorted([*kept, *stored_there], key=lambda stored: stored.name))
        for stored in stored_there:
            print(f"{folder / stored.entry.file}: top-1 {stored.entry.top1:.2%}, {stored.path.stat().st_size:,} bytes")


def _held(folder: Path) -> list[weights.Stored]:
    return weights.of_folder(folder) if (folder / "weights.json").is_file() else []


def _folder(stored: weights.Stored) -> Path:
    recipe = stored.entry.recipe["recipe"]
    others = {held.name for held in _held(FOLDER) if held.entry.recipe["recipe"] != recipe}
    return RESULTS / recipe / "weights" if recipe == PAPER_RECIPE or stored.name in others else FOLDER


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
