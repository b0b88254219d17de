"""What a training run is: everything that decides its weights, and the files that it leaves."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frugalnet import models
from frugalnet.data import arrays
from frugalnet.files import sha256, sha256_of, write_json, write_table
from frugalnet.pictures import SIDE
from frugalnet.project import checkpoints_folder
from frugalnet.run import Run
from frugalnet.sources import weights_sha256
from frugalnet.training.batches import PerView
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.config import TrainConfig
from frugalnet.training.inference import save_weights
from frugalnet.training.job import Job
from frugalnet.training.starts import read_start, start_path
from frugalnet.training.trainer import Trainer

FILES = ("history.csv", "timing.json", "run.json")  # of a run, beside its weights


def job(model: str, seed: int, recipe: TrainConfig, *, taught: bool = False) -> Job:
    """The job on the data in `data/`; taught: with the teacher's logits. Raises UserError if files are missing."""
    logits = PerView(Path("data/teacher"), "teach") if taught else None
    data = arrays.read_dataset(Path("data/arrays"))
    return Job(model, seed, recipe, data, PerView(Path("data/views")), logits, start=start_path(model, recipe))


def describe(
    job: Job,
    environment: Mapping[str, Any],
    *,
    teacher: Mapping[str, Any] | None = None,
    distributed: Mapping[str, Any] | None = None,
) -> Run:
    """What a run is, before it has weights. teacher: what the logits depend on, to which their hash is added."""
    data = job.data
    stated: dict[str, Any] = {}
    if job.logits and teacher:
        stated["teacher"] = {**teacher, "logits_sha256": sha256_of(job.logits.sha256)}
    if job.start and (start := read_start(job.model, job.start.parent)):
        stated["start"] = start
    if data.side != SIDE:
        stated["side"] = data.side
    if distributed:
        stated["distributed"] = dict(distributed)
    if job.left_out:
        stated["left_out"] = list(job.left_out)
    run = Run(
        model=job.model,
        seed=job.seed,
        data=data.name,
        is_sample=data.is_sample,
        validated_on=data.validated_on,
        data_sha256=sha256_of(data.sha256),
        views_sha256=sha256_of(job.views.sha256),
        source_sha256=weights_sha256(models.parse(job.model).architecture),
        num_classes=len(data.class_ids),
        n_train=len(data.train.labels),
        n_validation=len(data.validation.labels),
        train=job.recipe.model_dump(exclude_defaults=True),
        environment=dict(environment),
        **stated,
    )
    return run.changed(fingerprint=sha256_of(run.stored()))


def checkpoints(root: Path, run: Run) -> Checkpoints:
    """A run's checkpoints, under the project's root: DVC deletes a stage's outputs before it reruns the stage."""
    return Checkpoints(checkpoints_folder(root) / "train" / f"{run.name}-{run.fingerprint[:16]}")


def tell_of_other_checkpoints(root: Path, run: Run) -> None:
    """Report on stderr that there are checkpoints of other inputs, which cannot be used."""
    own = checkpoints(root, run).folder
    folders = {path.relative_to(own.parent).parts[0] for path in own.parent.glob(f"{run.name}-*/**/*.ckpt")}
    if others := folders - {own.name}:
        print(
            f"{own.parent}: checkpoints of {run.name} with other parameters, data, code or machine are not "
            f"used (kept for those): {', '.join(sorted(others))}",
            file=sys.stderr,
        )


def outputs(run: Run) -> tuple[Path, Path]:
    """Where a finished run's weights are, and the folder of its FILES."""
    return Path("models") / f"{run.name}.safetensors", Path("results/train") / run.name


def write_results(run: Run, trainer: Trainer, timing: Mapping[str, Any]) -> str:
    """Write a finished run's weights, history, timing and run.json. Returns the weights' SHA-256."""
    weights, out = outputs(run)
    save_weights(trainer.result.state_dict(), weights)
    write_table(out / "history.csv", trainer.history.rows)
    write_json(out / "timing.json", {**trainer.history.timing(), **timing})
    finished = run.changed(weights_sha256=sha256(weights))
    write_json(out / "run.json", finished.stored())
    return finished.weights_sha256
