"""Fine-tune a network on few classes: the stage adapt@MODEL-SCENARIO, or python -m pipeline.adapt MODEL SCENARIO."""

from pathlib import Path

import torch
from torch import nn

from frugalnet import compute, config, models, project
from frugalnet.adaptation.measure import Experiment, draw_classes, lacking, measure, pretrain
from frugalnet.adaptation.result import write_network
from frugalnet.data import arrays
from frugalnet.data.arrays import Dataset
from frugalnet.errors import UserError
from frugalnet.stage import run_stage
from frugalnet.training.batches import PerView
from frugalnet.training.inference import load_weights
from frugalnet.training.job import Job
from frugalnet.training.starts import start_path


def main(model: str, name: str) -> None:
    params = config.read_params()
    scenarios = params.adapt.scenarios
    scenario = next((scenario for scenario in scenarios if scenario == name), None)
    if scenario is None:
        raise UserError(f"scenario '{name}': expected one of {', '.join(scenarios)} (adapt.scenarios)")
    data = arrays.read_dataset(Path("data/arrays"))
    views = PerView(Path("data/views"))
    result = None
    lacks = lacking(params.adapt, data) if params.adapt.draws else None
    if lacks:
        print(f"adapt: nothing is measured: {lacks}")
    elif params.adapt.draws:
        network = trained(model, params, data) if scenario == "seen" else pretrained(model, params, data, views)
        torch.set_num_threads(1)
        result = measure(Experiment(network, model, scenario, data, views, params.adapt))
    write_network(result, Path("results"), f"{model}-{scenario}", lacks)


def trained(model: str, params: config.Params, data: Dataset) -> nn.Module:
    """The network that was trained on all classes."""
    compute.setup(params.compute)
    network = models.build(model, len(data.class_ids))
    return load_weights(network, Path("models") / f"{model}-{params.seeds[0]}.safetensors")


def pretrained(model: str, params: config.Params, data: Dataset, views: PerView) -> nn.Module:
    """The network trained without the drawn classes."""
    left_out = tuple(label for draw in draw_classes(params.adapt, len(data.class_ids)) for label in draw)
    epochs = min(params.adapt.unseen_epochs, params.train.epochs)
    recipe = params.train.model_copy(update={"epochs": epochs, "distillation": 0.0})
    start = start_path(model, recipe)
    job = Job(model, params.seeds[0], recipe, data, views, left_out=left_out, start=start)
    return pretrain(job, params.compute, project.project_root())


if __name__ == "__main__":
    run_stage(main)
