"""Evaluate one trained network: the stage evaluate@MODEL-SEED, or python -m pipeline.evaluate MODEL SEED."""

from pathlib import Path

import numpy as np
import torch

from frugalnet import compute, config, models, project, tracking
from frugalnet.data import arrays
from frugalnet.files import atomic, read_history, read_json, write_json, write_table
from frugalnet.metrics import accuracy, classes, counts
from frugalnet.metrics.evaluation import Metrics
from frugalnet.run import read_run
from frugalnet.stage import run_stage
from frugalnet.training import runs
from frugalnet.training.batches import Normaliser
from frugalnet.training.inference import infer, load_weights


def main(model: str, seed: int) -> None:
    device = compute.setup(config.read_params().compute)
    data = arrays.read_dataset(Path("data/arrays"))
    root = project.project_root()
    name = f"{model}-{seed}"
    trained = Path("results/train") / name
    out = Path("results/evaluate") / name
    run = read_run(trained / "run.json")
    timing = read_json(trained / "timing.json")
    network = load_weights(models.build(model, len(data.class_ids)), Path("models") / f"{name}.safetensors")
    network.to(device).to(memory_format=torch.channels_last)
    normalise = Normaliser(data.mean, data.std, device)

    # Every figure is computed from the logits as they are stored.
    logits = infer(network, data.validation.images, normalise).astype(np.float16)
    labels = np.array(data.validation.labels)
    with atomic(out / "predictions.npz") as partial, partial.open("wb") as file:
        np.savez(file, logits=logits, labels=labels)
    shape = (3, *data.validation.images.shape[1:3])
    metrics = Metrics.model_validate(accuracy.figures(logits, labels) | counts.counts(network, shape))
    confused = classes.confusion(accuracy.predict(logits), labels, len(data.class_ids))
    write_json(out / "metrics.json", metrics.model_dump())
    write_table(out / "per_class.csv", classes.per_class(confused, data.class_ids, data.class_names))
    write_table(out / "layers.csv", counts.layers(network, shape))

    with tracking.training_run(root, run, timing) as tracked:
        tracked.log_history(read_history(trained / "history.csv"))
        artifacts = [out, trained, Path("data/contact_sheet.png"), Path("params.yaml")]
        tracked.log_results(tracking.section("final", metrics.model_dump()), artifacts)
    runs.checkpoints(root, run).remove()
    top5 = f", top-5 {metrics.top5:.2%}" if len(data.class_ids) > 5 else ""  # else always 100 %
    print(f"{name}: top-1 {metrics.top1:.2%}{top5} on the {data.validated_on} of {data.name}")


if __name__ == "__main__":
    run_stage(main)
