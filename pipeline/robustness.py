"""Attack and corrupt the pictures of the validation split, for all networks of the lowest seed."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from frugalnet import compute, config, models
from frugalnet.data import arrays
from frugalnet.export.formats import FILES
from frugalnet.export.runtimes import open_runtime
from frugalnet.files import write_json
from frugalnet.metrics import counts
from frugalnet.robustness.measure import Subject, measure
from frugalnet.robustness.result import write_result
from frugalnet.stage import run_stage
from frugalnet.training.batches import Normaliser
from frugalnet.training.inference import infer, load_weights


def main() -> None:
    params = config.read_params()
    device = compute.setup(params.compute)
    data = arrays.read_dataset(Path("data/arrays"))
    normalise = Normaliser(data.mean, data.std, device)
    seed = min(params.seeds)
    shape = (3, data.side, data.side)
    macs = {}
    subjects = []
    for model in params.model.names:
        weights = Path("models") / f"{model}-{seed}.safetensors"
        network = load_weights(models.build(model, len(data.class_ids)), weights)
        network.to(device).to(memory_format=torch.channels_last)
        macs[model] = counts.macs(network, shape)
        subjects.append(Subject(model, seed, partial(infer, network, normalise=normalise)))
    if params.robustness.int8:
        cheapest = min(macs, key=lambda model: macs[model])
        file = Path("results/export") / f"{cheapest}-{seed}" / FILES["int8"]
        subjects.append(Subject(cheapest, seed, open_runtime("int8", file), quantised=True))
    start = time.perf_counter()
    result = measure(subjects, data.validation.images, np.array(data.validation.labels), params.robustness)
    write_result(result, Path("results"))
    write_json(Path("results/robustness/timing.json"), {"seconds": time.perf_counter() - start})


if __name__ == "__main__":
    run_stage(main)
