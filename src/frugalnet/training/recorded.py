"""The committed results of training runs: a run that has some is copied instead of trained again."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from frugalnet import models
from frugalnet.files import atomic, read_json, sha256
from frugalnet.run import Run, read_run
from frugalnet.training import runs

RESULTS = Path("docs/results")
Choice = Literal["none", "same", "any"]
_NOT_COMPARED = {"environment", "source_sha256", "fingerprint", "weights_sha256"}  # fingerprint: of all the others


@dataclass(frozen=True)
class Record:
    """A finished run in git: the folder of its history.csv, timing.json and run.json, its weights, its run.json."""

    folder: Path
    weights: Path
    run: Run

    def made(self) -> str:
        """The commit and the machine of the training, in words."""
        timing = read_json(self.folder / "timing.json")
        commit = timing.get("mlflow.source.git.commit", "unknown")[:12]
        machine = "{cpu}, {cpu_capability}, {threads} threads".format(**timing["machine"])
        return f"commit {commit}, {machine}"

    def copy(self) -> None:
        """Put the run's files where the stage `train` leaves them."""
        weights, out = runs.outputs(self.run)
        for source, target in ((self.weights, weights), *((self.folder / name, out / name) for name in runs.FILES)):
            with atomic(target) as partial:
                shutil.copyfile(source, partial)


def same_code(architecture: str, recorded: str, here: str, results: Path = RESULTS) -> bool:
    """Whether two hashes of what decides a network's weights mean the same code.

    They do if both stand in the architecture's column of sources.json. Each row there says how it was shown.
    """
    table = results / "sources.json"
    rows = read_json(table) if table.is_file() else []
    return recorded == here or {recorded, here} <= {row["sha256"].get(architecture) for row in rows}


def records_of(run: Run, results: Path = RESULTS, weights: Path = Path("weights")) -> Iterator[Record]:
    """The committed results of the same run, whatever the machine that trained it.

    run: as `runs.describe` returns it. The same: network, seed, data, views, recipe, teacher, and what the code means.
    """
    file = f"{run.name}.safetensors"
    stored = [weights / file, *sorted(results.glob(f"*/weights/{file}"))]
    sha256_of_stored = {sha256(path): path for path in stored if path.is_file()}
    expected = _compared(run)
    architecture = models.parse(run.model).architecture
    for path in sorted(results.glob(f"*/{run.name}/run.json")):
        recorded = read_run(path)
        kept = sha256_of_stored.get(recorded.weights_sha256)
        meant = same_code(architecture, recorded.source_sha256, run.source_sha256, results)
        if kept and _compared(recorded) == expected and meant:
            yield Record(path.parent, kept, recorded)


def _compared(run: Run) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(json.dumps(run.stored()))
    return {key: value for key, value in stored.items() if key not in _NOT_COMPARED}


def find_record(run: Run, choice: Choice) -> Record | None:
    """The record that stands for the run, or None: it has to be trained.

    choice: `same` takes a record of the same environment, so of the same bits; `any` also one of another; `none` never.
    Says on stdout which record is taken, or could be.
    """
    records = list(records_of(run)) if choice != "none" else []
    same = [record for record in records if record.run.environment == run.environment]
    chosen = next(iter(same or records), None)
    if chosen is None:
        return None
    if not same and choice == "same":
        print(f"{chosen.folder} is this run on another machine ({chosen.made()}); compute.records=any copies it")
        return None
    print(f"{run.name} is copied from {chosen.folder} ({chosen.made()}); compute.records=none trains it again")
    return chosen
