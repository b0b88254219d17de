"""Fine-tune a network on few classes: the stage adapt@MODEL-SCENARIO, or python -m pipeline.adapt MODEL SCENARIO."""

from pathlib import Path
from typing import Any

import torch

from frugalnet import compute, config, models, project
from frugalnet.adaptation import measure as adaptation
from frugalnet.data import arrays
from frugalnet.errors import UserError
from frugalnet.files import write_json
from frugalnet.stage import run_stage
from frugalnet.training.batches import Normaliser, Views
from frugalnet.training.inference import load_weights


def main(model: str, scenario: str) -> None:
    params = config.load()
    if scenario not in params.adapt.scenarios:
        raise UserError(f"scenario '{scenario}': expected one of {', '.join(params.adapt.scenarios)} (adapt.scenarios)")
    out, timing = (Path(f"results/{kind}") / f"{model}-{scenario}" for kind in ("adapt", "adapt_timing"))
    found: dict[str, Any] = {"measured": False}
    costs: dict[str, Any] = {"measured": False}
    data, views = arrays.read_dataset(Path("data/arrays")), Views(Path("data/views"))
    if params.adapt.draws and (lacks := adaptation.lacking(params.adapt, data)):
        print(f"adapt: nothing is measured: {lacks}")
    elif params.adapt.draws:
        device = compute.setup(params.compute)
        seed, root = params.seeds[0], project.project_root()
        if scenario == "seen":
            network = models.build(model, len(data.class_ids))
            network = load_weights(network, Path("models") / f"{model}-{seed}.safetensors")
        else:
            left_out = [c for draw in adaptation.draw_classes(params.adapt, len(data.class_ids)) for c in draw]
            recipe = params.train.model_copy(update={"epochs": min(params.adapt.unseen_epochs, params.train.epochs)})
            normalise, run_on = Normaliser(data.mean, data.std, device), compute.bits_depend_on(device, params.compute)
            network = adaptation.pretrain(model, seed, data, views, recipe, root, run_on, normalise, left_out)
        torch.set_num_threads(1)
        found, costs = adaptation.measure(network, model, scenario, data, views, params.adapt)
        costs["machine"] = compute.describe_machine(torch.device("cpu"))
    write_json(out / "adapt.json", found)
    write_json(timing / "timing.json", costs)


if __name__ == "__main__":
    run_stage(main)
