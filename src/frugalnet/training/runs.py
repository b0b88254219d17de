"""What a training run is: everything that decides its weights, and the files that it leaves."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frugalnet.data.arrays import Dataset
from frugalnet.files import sha256, sha256_of, write_json, write_table
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.inference import save_weights
from frugalnet.training.trainer import TrainConfig, Trainer

# The code that decides the weights and the history, besides the architecture's own file: the one list of it. A run's
# `source_sha256` is its hash, and a test holds the deps of the stage `train` in dvc.yaml to it.
SOURCES = (
    "metrics/accuracy.py",
    "metrics/counts.py",
    "models/layers.py",
    "training/batches.py",
    "training/distillation.py",
    "training/inference.py",
    "training/loop.py",
    "training/muon.py",
    "training/optim.py",
    "training/trainer.py",
)
_CHECKPOINTS = Path(".checkpoints/train")


def describe(
    model: str,
    seed: int,
    data: Dataset,
    views_sha256: Mapping[str, Sequence[str]],
    config: TrainConfig,
    environment: Mapping[str, Any],
    *,
    teacher: Mapping[str, Any] | None = None,
    distributed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A run's identity, as run.json and MLflow hold it.

    `fingerprint` is the SHA-256 of all that the weights depend on: inputs, parameters, code and environment.
    """
    run = {
        "model": model,
        "seed": seed,
        "data": data.name,
        "is_sample": data.is_sample,
        "validated_on": data.validated_on,
        "data_sha256": sha256_of(data.sha256),
        "views_sha256": sha256_of(views_sha256),
        "source_sha256": source_sha256(model),
        "num_classes": len(data.class_ids),
        "n_train": len(data.train.labels),
        "n_validation": len(data.validation.labels),
        "train": config.model_dump(),
        "environment": dict(environment),
    }
    run |= {key: dict(value) for key, value in (("teacher", teacher), ("distributed", distributed)) if value}
    return run | {"fingerprint": sha256_of(run)}


def source_sha256(model: str) -> str:
    """The SHA-256 of what decides the weights of an architecture: SOURCES and its own file."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for source in (*SOURCES, f"models/{model}.py"):
        digest.update((package / source).read_bytes())
    return digest.hexdigest()


def name(run: Mapping[str, Any]) -> str:
    """The name of a run's files: residual-0."""
    return f"{run['model']}-{run['seed']}"


def checkpoints(root: Path, run: Mapping[str, Any]) -> Checkpoints:
    """A run's checkpoints, under the project's root: DVC deletes a stage's outputs before it reruns the stage."""
    return Checkpoints(root / _CHECKPOINTS / f"{name(run)}-{run['fingerprint'][:16]}")


def tell_of_other_checkpoints(root: Path, run: Mapping[str, Any]) -> None:
    """Report on stderr checkpoints of this network and seed that cannot be used, for their inputs differ."""
    found = (root / _CHECKPOINTS).glob(f"{name(run)}-*/**/*.ckpt")
    folders = {path.relative_to(root / _CHECKPOINTS).parts[0] for path in found}
    if others := folders - {checkpoints(root, run).folder.name}:
        print(
            f"{root / _CHECKPOINTS}: checkpoints of {name(run)} with other parameters, data, code or machine are not "
            f"used (kept for those): {', '.join(sorted(others))}",
            file=sys.stderr,
        )


def write_results(run: Mapping[str, Any], trainer: Trainer, timing: Mapping[str, Any]) -> str:
    """Write a finished run's weights, history, timing and run.json. Returns the weights' SHA-256."""
    weights, out = Path("models") / f"{name(run)}.safetensors", Path("results/train") / name(run)
    save_weights(trainer.result.state_dict(), weights)
    write_table(out / "history.csv", trainer.history.rows)
    write_json(out / "timing.json", {**trainer.history.timing(), **timing})
    write_json(out / "run.json", {**run, "weights_sha256": sha256(weights)})
    return sha256(weights)
