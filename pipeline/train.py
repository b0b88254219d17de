"""Train one architecture with one seed: python -m pipeline.train MODEL SEED."""

import json
import sys
from pathlib import Path

import numpy as np

from frugalnet import compute, config, tracking
from frugalnet.data import arrays
from frugalnet.errors import run_stage
from frugalnet.training import runs
from frugalnet.training.batches import Normaliser, Views
from frugalnet.training.loop import Interrupted, fit
from frugalnet.training.trainer import Trainer


def main(model: str, seed: int) -> None:
    params = config.load()
    if params.distributed.kind != "none":
        from pipeline import train_distributed  # here: one process needs nothing of it

        return train_distributed.main(params, model, seed)
    device = compute.setup(params.compute)
    data = arrays.load(Path("data/arrays"))
    views = Views(Path("data/views"))
    environment, machine = compute.bits_depend_on(device, params.compute), compute.describe_machine(device)
    run = runs.describe(model, seed, data, views.sha256, params.train, environment)
    name, root = runs.name(run), tracking.project_root()
    print(f"{name} on {data.name}; its bits depend on {json.dumps(environment)}")

    provenance = tracking.provenance()
    tracked = tracking.training_run(root, run, provenance)
    checkpoints = runs.checkpoints(root, run)
    runs.tell_of_other_checkpoints(root, run)
    normalise = Normaliser(data.mean, data.std, device)
    trainer = Trainer(model, seed, len(data.class_ids), len(data.train.labels), normalise, params.train)
    try:
        with checkpoints.locked():
            fit(
                trainer,
                lambda epoch: views.of_epoch(epoch, data.train.images),
                np.array(data.train.labels),
                data.validation,
                checkpoints,
                on_epoch=lambda history: tracked.log_history(history.rows),
                checkpoint_minutes=params.compute.checkpoint_minutes,
            )
    except Interrupted as stop:
        tracked.finish("KILLED")
        print(f"{name}: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except Exception:
        tracked.finish("FAILED")
        raise

    tracked.identify("weights_sha256", runs.write_results(run, trainer, {**provenance, "machine": machine}))
    tracked.finish()


if __name__ == "__main__":
    run_stage(main)
