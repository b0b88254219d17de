"""Export one trained network to other runtimes: the stage export@MODEL-SEED, or python -m pipeline.export MODEL SEED."""

from pathlib import Path

import torch

from frugalnet import compute, config
from frugalnet.data import arrays
from frugalnet.errors import run_stage
from frugalnet.files import atomic, write_json
from frugalnet.use import export, weights


def main(model: str, seed: int) -> None:
    params = config.load()
    torch.set_num_threads(1)
    data, name = arrays.load(Path("data/arrays")), f"{model}-{seed}"
    stored, out = weights.of_run(Path(), name), Path("results/export") / name
    with atomic(out) as folder:
        folder.mkdir()
        arenas = export.write(stored, data, params.export, folder)
        found = export.evaluate(export.files(stored, folder), data, params.export)
        write_json(folder / "export.json", found)
    paths = export.files(stored, out)
    machine = compute.describe_machine(torch.device("cpu"))
    costs = {"formats": export.measure(paths, arenas, params.evaluate), "machine": machine}
    write_json(Path("results/export_timing") / name / "timing.json", costs)
    print(export.in_words(name, found))


if __name__ == "__main__":
    run_stage(main)
