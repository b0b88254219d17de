"""Evaluate one trained network: python -m pipeline.evaluate MODEL SEED."""

from pathlib import Path

import numpy as np
import torch

from frugalnet import compute, config, files, models, tracking
from frugalnet.data import arrays
from frugalnet.errors import run_stage
from frugalnet.files import atomic, read_json, write_json
from frugalnet.metrics import accuracy, counts, timing
from frugalnet.report import pictures
from frugalnet.training import runs
from frugalnet.training.batches import Normaliser
from frugalnet.training.inference import infer, load_weights


def main(model: str, seed: int) -> None:
    params = config.load()
    device = compute.setup(params.compute)
    data = arrays.load(Path("data/arrays"))
    name = f"{model}-{seed}"
    trained, out = Path("results/train") / name, Path("results/evaluate") / name
    run, timed = read_json(trained / "run.json"), read_json(trained / "timing.json")
    cost = read_json(Path("results/cost.json"))[model]
    medians = timing.medians(cost, timed)

    weights = Path("models") / f"{name}.safetensors"
    network = load_weights(models.build(model, len(data.class_ids)), weights)
    shape = (3, *data.validation.images.shape[1:3])
    counted, layers = counts.counts(network, shape), counts.layers(network, shape)
    network.to(device).to(memory_format=torch.channels_last)
    normalise = Normaliser(data.mean, data.std, device)
    # Every figure derives from what is stored, so what is stored is what is measured.
    logits = infer(network, data.validation.images, normalise).astype(np.float16)
    labels = np.array(data.validation.labels)
    with atomic(out / "predictions.npz") as partial, partial.open("wb") as file:
        np.savez(file, logits=logits, labels=labels)
    metrics = accuracy.figures(logits, labels) | counted
    confused = accuracy.confusion(accuracy.predict(logits), labels, len(data.class_ids))
    write_json(out / "metrics.json", metrics)
    write_json(out / "cost.json", cost)
    write_json(out / "efficiency.json", medians)
    files.write_table(out / "per_class.csv", accuracy.per_class(confused, data.class_ids, data.class_names))
    files.write_table(out / "layers.csv", layers)
    pictures.confusion(confused, data.class_names, out / "confusion.png")
    pictures.best_and_worst(data.validation.images, logits, labels, data.class_names, out / "best_and_worst.png")

    tracked = tracking.training_run(tracking.project_root(), run, timed)
    tracked.log_history(files.read_history(trained / "history.csv"))
    figures = tracking.section("final", metrics) | tracking.section("efficiency", medians)
    tracked.log_results(figures, [out, trained, weights, Path("data/contact_sheet.png"), Path("params.yaml")])
    model_of_pictures = torch.nn.Sequential(normalise, network).cpu().eval()
    tracked.log_model(model_of_pictures, np.array(data.validation.images[:2]))
    tracked.finish()
    runs.checkpoints(tracking.project_root(), run).remove()
    print(f"{name}: top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%} on the {data.validated_on} of {data.name}")


if __name__ == "__main__":
    run_stage(main)
