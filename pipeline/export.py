"""Export one trained network: the stage export@MODEL-SEED, or python -m pipeline.export MODEL SEED."""

from pathlib import Path

import torch

from frugalnet import compute, config, tracking
from frugalnet.data import arrays
from frugalnet.errors import run_stage
from frugalnet.export import files as export
from frugalnet.export import measure as exported
from frugalnet.files import atomic, read_json, write_json
from frugalnet.use import weights
from frugalnet.use.registered import register


def main(model: str, seed: int) -> None:
    params = config.load()
    torch.set_num_threads(1)
    data, root, name = arrays.load(Path("data/arrays")), tracking.project_root(), f"{model}-{seed}"
    stored, out = weights.of_run(Path(), name), Path("results/export") / name
    with atomic(out) as folder:
        folder.mkdir()
        arenas = export.write_files(stored, data.train.images, params.export, folder)
        found = exported.evaluate(exported.files(stored, folder), data, params.export)
        write_json(folder / "export.json", found)
    machine = compute.describe_machine(torch.device("cpu"))
    costs = {"formats": exported.measure(exported.files(stored, out), arenas, params.evaluate), "machine": machine}
    write_json(Path("results/export_timing") / name / "timing.json", costs)

    run, timing = (read_json(Path("results/train") / name / f"{part}.json") for part in ("run", "timing"))
    with tracking.training_run(root, run, timing) as tracked:
        tracked.log_results(tracking.section("export", exported.figures(found, costs["formats"])))
        register(tracked, stored, run, data, out, found)
    print(exported.in_words(name, found))


if __name__ == "__main__":
    run_stage(main)
