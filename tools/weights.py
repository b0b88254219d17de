"""Fill weights/ from the project's finished runs: python -m tools.weights [NAME …], for example residual-0.

By default it takes all runs whose file is at most 2 MB: git keeps every version for ever. weights/ gets the lowest
seed of each network. Three kinds go to docs/results/RECIPE/weights, to be verified rather than used: other seeds, the
paper's recipe, and networks that weights/ already holds from another recipe. What a folder holds of other recipes
stays.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from frugalnet.errors import UserError, in_one_line
from frugalnet.files import read_json
from frugalnet.paper.claims import PAPER_RECIPE
from frugalnet.use import weights

FOLDER, RESULTS = Path("weights"), Path("docs/results")
MAX_BYTES = 2_000_000


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
        by_folder.setdefault(_folder(stored, chosen), []).append(stored)
    for folder, stored_there in by_folder.items():
        recipes = {stored.entry.recipe["recipe"] for stored in stored_there}
        kept = [stored for stored in _held(folder) if stored.entry.recipe["recipe"] not in recipes]
        weights.write_weights(folder, sorted([*kept, *stored_there], key=lambda stored: stored.name))
        for stored in stored_there:
            print(f"{folder / stored.entry.file}: top-1 {stored.entry.top1:.2%}, {stored.path.stat().st_size:,} bytes")


def _held(folder: Path) -> list[weights.Stored]:
    return weights.of_folder(folder) if (folder / "weights.json").is_file() else []


def _folder(stored: weights.Stored, chosen: Sequence[weights.Stored]) -> Path:
    entry, recipe = stored.entry, stored.entry.recipe["recipe"]
    taken = stored.name in {held.name for held in _held(FOLDER) if held.entry.recipe["recipe"] != recipe}
    is_first = entry.seed == min(other.entry.seed for other in chosen if other.entry.model == entry.model)
    return RESULTS / recipe / "weights" if recipe == PAPER_RECIPE or taken or not is_first else FOLDER


def _default(evaluated: Sequence[str]) -> list[weights.Stored]:
    found = []
    for name in evaluated:
        try:
            run = weights.of_run(Path(), name)
        except UserError as error:  # a run on other data, left from an earlier study
            print(f"left out: {error}", file=sys.stderr)
            continue
        if run.path.stat().st_size > MAX_BYTES:
            left_out = f"left out: {run.path}, larger than {MAX_BYTES:,} bytes"
            print(f"{left_out}; to include it, name all networks that belong in the folder", file=sys.stderr)
        else:
            found.append(run)
    if not found:
        raise UserError("no run fits; name those to include")
    return found


if __name__ == "__main__":
    with in_one_line("weights"):
        main(sys.argv[1:])
