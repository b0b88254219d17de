"""Train one architecture with one seed: python -m pipeline.train MODEL SEED."""

import json
import sys
from pathlib import Path

import numpy as np

from frugalnet import arrays, augment, compute, config, runs, tracking
from frugalnet.batches import Normaliser
from frugalnet.checkpoint import Checkpoints
from frugalnet.errors import run_stage
from frugalnet.files import sha256, sha256_of, write_json
from frugalnet.inference import save_weights
from frugalnet.training import History, Interrupted, Trainer, fit


def main(model: str, seed: str) -> None:
    params = config.load()
    device = compute.setup(params.compute)
    data = arrays.load(Path("data/arrays"))
    views = augment.open_views(Path("data/views")) or [lambda: data.train.images]
    name, root, out = f"{model}-{seed}", tracking.project_root(), Path("results/train") / f"{model}-{seed}"
    environment = compute.bits_depend_on(device, params.compute)
    run = {
        "model": model,
        "seed": int(seed),
        "data": data.name,
        "is_sample": data.is_sample,
        "validated_on": data.validated_on,
        "data_sha256": sha256_of(data.sha256),
        "views_sha256": sha256(Path("data/views/views.json")),
        "source_sha256": runs.source_sha256(model),
        "num_classes": len(data.class_ids),
        "n_train": len(data.train.labels),
        "n_validation": len(data.validation.labels),
        "train": params.train.model_dump(),
    }
    run["fingerprint"] = sha256_of(run | environment)
    print(f"{name} on {data.name}: its bits depend on {json.dumps(environment)}")

    tracked = tracking.TrackedRun(
        root,
        name + (" (sample data)" if data.is_sample else ""),
        identity={"fingerprint": run["fingerprint"]},
        params=tracking.flatten({**run, "environment": environment}),
        tags=tracking.provenance() | {"data_sha256": run["data_sha256"], "views_sha256": run["views_sha256"]},
    )
    trainer = Trainer(
        model, int(seed), run["num_classes"], run["n_train"], Normaliser(data.mean, data.std, device), params.train
    )
    checkpoints = Checkpoints(root / ".checkpoints" / "train" / f"{name}-{run['fingerprint'][:16]}")

    def report(history: History) -> None:
        tracked.log_history(history.rows)

    try:
        with checkpoints.locked():
            fit(trainer, views, np.array(data.train.labels), data.validation, checkpoints, report)
    except Interrupted as stop:
        tracked.finish("KILLED")
        print(f"{name}: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except BaseException:
        tracked.finish("FAILED")
        raise

    weights = Path("models") / f"{name}.safetensors"
    save_weights(trainer.network.state_dict(), weights)
    runs.write_history(out / "history.csv", trainer.history.rows)
    write_json(out / "timing.json", {"epoch_seconds": trainer.history.seconds, **environment, **tracking.provenance()})
    write_json(out / "run.json", run | {"weights_sha256": sha256(weights)})
    tracked.identify("weights_sha256", sha256(weights))
    tracked.finish()


if __name__ == "__main__":
    run_stage(main, *sys.argv[1:])
