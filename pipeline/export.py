"""Export one trained network: the stage export@MODEL-SEED, or python -m pipeline.export MODEL SEED."""

from pathlib import Path

import torch

from frugalnet import config, project, tracking
from frugalnet.data import arrays
from frugalnet.export.measure import measure_accuracy, measure_costs
from frugalnet.export.result import figures
from frugalnet.files import atomic, read_json, write_json
from frugalnet.processes import temporary_folder
from frugalnet.run import read_run
from frugalnet.stage import run_stage
from frugalnet.use import weights
from frugalnet.use.exported import describe_stored, runnables, write_stored
from frugalnet.use.registered import register


@temporary_folder()  # exporters and MLflow leave files behind where a signal ends them
def main(model: str, seed: int) -> None:
    params = config.read_params()
    torch.set_num_threads(1)
    data = arrays.read_dataset(Path("data/arrays"))
    name = f"{model}-{seed}"
    stored = weights.of_run(Path(), name)
    out = Path("results/export") / name
    with atomic(out) as folder:
        folder.mkdir()
        written = write_stored(stored, data.train.images, params.export, folder)
        result = measure_accuracy(runnables(stored, folder), data, params.export)
        describe_stored(stored, written, result, folder)
    costs = measure_costs(runnables(stored, out), written.arenas, params.measure)
    write_json(Path("results/export_timing") / name / "timing.json", costs.model_dump())

    trained = Path("results/train") / name
    run = read_run(trained / "run.json")
    timing = read_json(trained / "timing.json")
    with tracking.training_run(project.project_root(), run, timing) as tracked:
        tracked.log_results(tracking.section("export", figures(result, costs)))
        register(tracked, stored, run, data, out, [kind for kind in result.formats if result.accepts(kind)])
    print(result.in_words(name))


if __name__ == "__main__":
    run_stage(main)
