"""Put the study's committed runs into DVC's cache, so that DVC does not train them again: python -m tools.restore.

    python -m tools.restore && dvc exp run -S compute.threads=1 -S adapt=none     # they were trained on one thread

DVC then makes the data and all that follows training; the stage adapt would train networks of its own. Which files a
run has produced, and from what, is in dvc.lock; the files themselves are in weights/ and docs/results/modern.
"""

import hashlib
from pathlib import Path

from dvc.fs import LocalFileSystem
from dvc.repo import Repo
from ruamel.yaml import YAML

from frugalnet.errors import UserError, in_one_line
from tools.results import FOLDER, STUDY_RECIPE


def committed(out: Path, root: Path = Path()) -> Path:
    """Where git keeps the file that the stage `train` writes as `out`. weights/ has one seed of each network."""
    records = root / FOLDER / STUDY_RECIPE
    if out.suffix != ".safetensors":
        return records / out.parent.name / out.name
    first = root / "weights" / out.name
    return first if first.is_file() else records / "weights" / out.name


def main() -> None:
    stages = YAML(typ="safe").load(Path("dvc.lock"))["stages"]
    with Repo() as repo:
        for name, stage in stages.items():
            if not name.startswith("train@"):
                continue
            files = [(committed(Path(out["path"])), out["md5"]) for out in stage["outs"]]
            if not all(path.is_file() for path, _ in files):
                print(f"{name}: left out, not committed here")  # a network of the user's
                continue
            for path, listed in files:
                if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != listed:
                    raise UserError(f"{path}: not the file that dvc.lock lists; restore both from git")
            for path, listed in files:
                repo.cache.local.add(str(path), LocalFileSystem(), listed)
            print(f"{name}: {len(files)} files")


if __name__ == "__main__":
    with in_one_line("restore"):
        main()
