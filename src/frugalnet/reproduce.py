"""Train a recorded run again and compare the bits: python -m frugalnet.reproduce RUN_ID (an MLflow run, or a run.json).

Nothing is checked out or changed. If the present code, data or views differ from the run's, the command says what to do
and trains nothing. A different environment (torch, CPU instructions, …) is reported, and the run is trained anyway.
"""

import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from frugalnet import compute, mlflow_store, project
from frugalnet.compute_config import ComputeConfig
from frugalnet.errors import UserError
from frugalnet.files import read_json, sha256
from frugalnet.models import parse
from frugalnet.run import Run, parse_run
from frugalnet.stage import run_stage
from frugalnet.training import runs
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.config import TrainConfig
from frugalnet.training.inference import save_weights
from frugalnet.training.recorded import same_code

# For each hash in a run: what it is of, and how to bring the run's back.
_INPUTS = {
    "source_sha256": ("training code", "check out the run's commit"),
    "data_sha256": ("data/arrays", "set the run's parameters data.*, then: dvc repro normalise"),
    "views_sha256": ("data/views", "set the run's parameters augment.*, then: dvc repro augment"),
}


def differences(run: Run, here: Run) -> tuple[list[str], list[str]]:
    """What differs between a recorded run and the same run described here: inputs, and the environment.

    An input that differs makes other weights; an environment may.
    """
    inputs = []
    for key, (what, cure) in _INPUTS.items():
        recorded = getattr(run, key)
        present = getattr(here, key)
        is_code = key == "source_sha256"
        if recorded != present and not (is_code and same_code(parse(run.model).architecture, recorded, present)):
            inputs.append(f"{what}: SHA-256 {recorded[:12]} in the run, {present[:12]} here; {cure}")
    environment = [
        f"{key}: {run.environment.get(key)} in the run, {here.environment.get(key)} here"
        for key in sorted({*run.environment, *here.environment})
        if run.environment.get(key) != here.environment.get(key)
    ]
    return inputs, environment


def retrain(run: Run, root: Path) -> str:
    """Train the run again, on the data in `data/`, and return the SHA-256 of its weights.

    It resumes after an interruption, but never from a checkpoint of the run itself. Raises UserError, naming each, if
    inputs differ from the run's, and Interrupted after SIGINT or SIGTERM.
    """
    if missing := [key for key in ("environment", "weights_sha256", *_INPUTS) if not getattr(run, key)]:
        raise UserError(f"not the record of a finished run: it has no {', '.join(missing)}; give a run.json")
    if run.distributed:
        raise UserError(f"{run.name} was trained by several workers, which is not supported: use `dvc repro`")
    try:
        recipe = TrainConfig.model_validate(run.train)
    except ValidationError as error:
        raise UserError(f"{run.name}: this version does not accept its recipe; check out its commit") from error
    environment = run.environment
    on_gpu = environment["device"] not in ("cpu", "mps")
    settings = ComputeConfig(
        device="cuda" if on_gpu else environment["device"],
        threads=environment["threads"],
        processes=0,
        compile=environment["compiled"] or "off",
        deterministic=environment["deterministic"],
        checkpoint_minutes=5.0,
        records="none",
    )
    device = compute.setup(settings)
    job = runs.job(run.model, run.seed, recipe, taught=bool(run.teacher))
    here = runs.describe(job, compute.bits_depend_on(device, settings), teacher=run.teacher)
    if here.teacher != run.teacher:
        raise UserError("data/teacher: other logits than the run's; set its parameters teacher.*: dvc repro teach")
    inputs, surroundings = differences(run, here)
    if inputs:
        raise UserError(f"{run.name} cannot be trained again here: " + "; ".join(inputs))
    for difference in surroundings:
        print(f"{run.name}: the bits may differ: {difference}")
    checkpoints = Checkpoints(project.checkpoints_folder(root) / "reproduce" / f"{run.name}-{here.fingerprint[:16]}")
    trainer = job.trainer(device, compute.compile_mode(device, settings))
    with checkpoints.locked(), tempfile.TemporaryDirectory() as folder:
        job.fit(trainer, checkpoints, settings.checkpoint_minutes)
        weights = Path(folder) / "weights.safetensors"
        save_weights(trainer.result.state_dict(), weights)
        trained = sha256(weights)
    checkpoints.remove()
    return trained


def compare(run: Run, trained: str) -> None:
    """Print that the weights, by their SHA-256, are the run's. Raises UserError if they are not."""
    if trained != run.weights_sha256:
        raise UserError(f"{run.name}: expected weights with SHA-256 {run.weights_sha256}, trained {trained}")
    print(f"{run.name}: trained again to the same weights, SHA-256 {trained}")


def main(run_id: str) -> None:
    root = project.project_root()
    if run_id.endswith(".json") and not Path(run_id).is_file():
        raise UserError(f"{run_id}: there is no such file; give a run.json or the id of an MLflow run")
    recorded = read_json(Path(run_id)) if run_id.endswith(".json") else mlflow_store.artifact(root, run_id, "run.json")
    run = parse_run(recorded, run_id)
    with suppress(UserError):
        beside = Path(run_id).with_name("timing.json")
        timing = read_json(beside) if run_id.endswith(".json") else mlflow_store.artifact(root, run_id, "timing.json")
        print(f"{run_id}: trained at commit {timing.get('mlflow.source.git.commit', 'unknown')}")
    compare(run, retrain(run, root))


if __name__ == "__main__":
    run_stage(main)
