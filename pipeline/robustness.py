"""Attack and corrupt the pictures of the validation split, for all networks of the lowest seed."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from frugalnet import compute, config, models
from frugalnet.data import arrays
from frugalnet.errors import run_stage
from frugalnet.files import write_json
from frugalnet.metrics import counts, perturbations
from frugalnet.metrics.one_pixel import Classify
from frugalnet.training.batches import Normaliser
from frugalnet.training.inference import infer, load_weights
from frugalnet.use.runtimes import FILES, open_runtime


def main() -> None:
    params = config.load()
    device = compute.setup(params.compute)
    data = arrays.read_dataset(Path("data/arrays"))
    out = Path("results/robustness")
    normalise, networks, macs = Normaliser(data.mean, data.std, device), dict[str, Classify](), dict[str, int]()
    for model in params.model.names:
        name = f"{model}-{min(params.seeds)}"
        network = load_weights(models.build(model, len(data.class_ids)), Path("models") / f"{name}.safetensors")
        network.to(device).to(memory_format=torch.channels_last)
        macs[model] = counts.macs(network, (3, 64, 64))
        networks[name] = partial(infer, network, normalise=normalise)
    if params.robustness.int8:
        frugal, seed = min(macs, key=lambda model: macs[model]), min(params.seeds)
        file = Path("results/export") / f"{frugal}-{seed}" / FILES["int8"]
        networks[f"{frugal} int8-{seed}"] = open_runtime("int8", file)
    start, labels = time.perf_counter(), np.array(data.validation.labels)
    result = perturbations.measure(networks, data.validation.images, labels, params.robustness)
    write_json(out / "robustness.json", result)
    write_json(out / "timing.json", {"seconds": time.perf_counter() - start})


if __name__ == "__main__":
    run_stage(main)
