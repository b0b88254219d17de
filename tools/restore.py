"""Put the study's committed runs into DVC's cache, so that DVC does not train them again: python -m tools.restore.

    python -m tools.restore && dvc exp run -S compute.threads=1     # they were trained on one thread

DVC then makes the data and all that follows training. Which files a run has produced, and from what, is in dvc.lock;
the files themselves are in weights/, which holds one seed of each network, and docs/results/modern.
"""

import hashlib
from pathlib import Path

from dvc.fs import LocalFileSystem
from dvc.repo import Repo

from frugalnet.errors import UserError, in_one_line
from tools.results import FOLDER, STUDY_RECIPE


def committed(out: Path, root: Path = Path()) -> Path:
    """Where git keeps the file that the stage `train` writes as `out`."""
    return root / ("weights" if out.suffix == ".safetensors" else FOLDER / STUDY_RECIPE / out.parent.name) / out.name


def main() -> None:
    with Repo() as repo:
        for stage in repo.index.stages:
            if not stage.addressing.startswith("train@") or not stage.outs[0].hash_info:
                continue  # another stage, or a network that is not in dvc.lock
            files = [(committed(Path(out.fspath)), out.hash_info.value) for out in stage.outs]
            for path, listed in files:
                if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != listed:
                    raise UserError(f"{path}: not the file that dvc.lock lists; restore both from git")
            for path, listed in files:
                repo.cache.local.add(str(path), LocalFileSystem(), listed)
            print(f"{stage.addressing}: {len(files)} files")


if __name__ == "__main__":
    with in_one_line("restore"):
        main()
