"""A project with finished runs, without the minutes of training: random weights on the real sample."""

import json
from pathlib import Path

import numpy as np
import torch

from frugalnet import config, models
from frugalnet.data import arrays
from frugalnet.data.normalise import normalise as normalise_archive
from frugalnet.files import sha256, sha256_of, write_json
from frugalnet.metrics import accuracy, counts
from frugalnet.training.batches import Normaliser
from frugalnet.training.inference import infer, save_weights

ROOT = Path(__file__).parents[1]


def project(folder: Path, archive: Path, names: tuple[str, ...] = ("depthwise-0",)) -> Path:
    """Fill `folder` with data/arrays of the sample, and the files that train and evaluate leave of each network."""
    params = config.read_params(ROOT / "params.yaml")
    sample = params.data.model_copy(update={"name": "sample"})
    normalise_archive(archive, folder / "data/arrays", sample, is_sample=True, processes=1)
    data = arrays.read_dataset(folder / "data/arrays")
    for name in names:
        finish(folder, data, name)
    return folder


def finish(folder: Path, data: arrays.Dataset, name: str) -> None:
    model, seed = name.rsplit("-", 1)
    torch.manual_seed(int(seed))
    network = models.build(model, len(data.class_ids))
    network.train()
    normalise = Normaliser(data.mean, data.std, torch.device("cpu"))
    with torch.no_grad():  # plausible running statistics
        network(normalise(torch.from_numpy(np.array(data.train.images[::10]))))
    save_weights(network.state_dict(), folder / f"models/{name}.safetensors")
    logits = infer(network, data.validation.images, normalise).astype(np.float16)
    labels = np.array(data.validation.labels)
    (folder / "results/evaluate" / name).mkdir(parents=True)
    np.savez(folder / "results/evaluate" / name / "predictions.npz", logits=logits, labels=labels)
    figures = accuracy.figures(logits, labels) | counts.counts(network, (3, 64, 64))
    write_json(folder / "results/evaluate" / name / "metrics.json", figures)
    run = {
        "model": model,
        "seed": int(seed),
        "data": data.name,
        "is_sample": True,
        "validated_on": data.validated_on,
        "data_sha256": sha256_of(data.sha256),
        "num_classes": len(data.class_ids),
        "n_train": len(data.train.labels),
        "n_validation": len(data.validation.labels),
        "views_sha256": "0",
        "source_sha256": "0",
        "train": json.loads(config.read_params(ROOT / "params.yaml").train.model_dump_json()),
        "weights_sha256": sha256(folder / f"models/{name}.safetensors"),
        "fingerprint": sha256_of(name),
    }
    write_json(folder / "results/train" / name / "run.json", run)
    write_json(folder / "results/train" / name / "timing.json", {"epoch_seconds": [1.0]})
