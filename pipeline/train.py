"""Train one architecture with one seed: the stage train@MODEL-SEED, or python -m pipeline.train MODEL SEED."""

import json
from pathlib import Path

import numpy as np

from frugalnet import compute, config, tracking
from frugalnet.data import arrays
from frugalnet.files import sha256_of
from frugalnet.stage import run_stage
from frugalnet.training import runs
from frugalnet.training.batches import Normaliser, Views
from frugalnet.training.loop import fit
from frugalnet.training.trainer import Trainer


def main(model: str, seed: int) -> None:
    params = config.load()
    if params.distributed.kind != "none":
        from frugalnet.distributed.run import Task, train  # here: a single process needs nothing of it

        task = Task(model, seed, params.train, params.distributed, params.launch, params.compute)
        return train(task)
    device = compute.setup(params.compute)
    data, views = arrays.read_dataset(Path("data/arrays")), Views(Path("data/views"))
    environment, provenance = compute.bits_depend_on(device, params.compute), tracking.provenance()
    logits, root = Views(Path("data/teacher"), "teach") if params.teacher.model else None, tracking.project_root()
    teacher = {**params.teacher.model_dump(), "logits_sha256": sha256_of(logits.sha256)} if logits else None
    run = runs.describe(model, seed, data, views.sha256, params.train, environment, teacher=teacher)
    print(f"{runs.name(run)} on {data.name}; its bits depend on {json.dumps(environment)}")
    runs.tell_of_other_checkpoints(root, run)
    checkpoints, normalise = runs.checkpoints(root, run), Normaliser(data.mean, data.std, device)
    mode, n_train = compute.compile_mode(device, params.compute), len(data.train.labels)
    trainer = Trainer(model, seed, len(data.class_ids), n_train, normalise, params.train, mode)
    with checkpoints.locked(), tracking.training_run(root, run, provenance) as tracked:
        fit(
            trainer,
            lambda epoch: views.of_epoch(epoch, data.train.images),
            np.array(data.train.labels),
            data.validation,
            checkpoints,
            on_epoch=lambda history: tracked.log_history(history.rows),
            taught=lambda epoch: logits.of_epoch(epoch, None) if logits else None,
            checkpoint_minutes=params.compute.checkpoint_minutes,
        )
        timing = {**provenance, "machine": compute.describe_machine(device)}
        tracked.identify("weights_sha256", runs.write_results(run, trainer, timing))


if __name__ == "__main__":
    run_stage(main)
