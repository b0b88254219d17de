"""Fine-tune a network on few classes: the stage adapt@MODEL-SCENARIO, or python -m pipeline.adapt MODEL SCENARIO."""

from pathlib import Path
from typing import Any

import torch

from frugalnet import compute, config, models, project
from frugalnet.data import arrays
from frugalnet.errors import UserError, run_stage
from frugalnet.files import write_json
from frugalnet.training import adaptation
from frugalnet.training.batches import Views
from frugalnet.training.inference import load_weights
from frugalnet.training.job import Job


def main(model: str, scenario: str) -> None:
    params = config.load()
    if scenario not in params.adapt.scenarios:
        raise UserError(f"scenario '{scenario}': expected one of {', '.join(params.adapt.scenarios)} (adapt.scenarios)")
    out, timing = (Path(f"results/{kind}") / f"{model}-{scenario}" for kind in ("adapt", "adapt_timing"))
    found: dict[str, Any] = {"measured": False}
    costs: dict[str, Any] = {"measured": False}
    data, views = arrays.load(Path("data/arrays")), Views(Path("data/views"))
    if params.adapt.draws and (lacks := adaptation.lacking(params.adapt, data)):
        print(f"adapt: nothing is measured: {lacks}")
    elif params.adapt.draws:
        device = compute.setup(params.compute)
        seed, root = params.seeds[0], project.project_root()
        if scenario == "seen":
            network = models.build(model, len(data.class_ids))
            network = load_weights(network, Path("models") / f"{model}-{seed}.safetensors")
        else:
            left_out = tuple(c for draw in adaptation.draw_classes(params.adapt, len(data.class_ids)) for c in draw)
            epochs = min(params.adapt.unseen_epochs, params.train.epochs)
            recipe = params.train.model_copy(update={"epochs": epochs, "distillation": 0.0})
            job = Job(model, seed, recipe, data, views, left_out=left_out)
            environment = compute.bits_depend_on(device, params.compute)
            network = adaptation.pretrain(job, device, environment, root)
        torch.set_num_threads(1)
        found, costs = adaptation.measure(network, model, scenario, data, views, params.adapt)
        costs["machine"] = compute.describe_machine(torch.device("cpu"))
    write_json(out / "adapt.json", found)
    write_json(timing / "timing.json", costs)


if __name__ == "__main__":
    run_stage(main)
