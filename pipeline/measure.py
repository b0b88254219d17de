"""Measure what each architecture costs on this machine, in alternating rounds."""

from pathlib import Path

from frugalnet import compute, config, models
from frugalnet.data import arrays
from frugalnet.files import write_json
from frugalnet.metrics import timing
from frugalnet.stage import run_stage


def main() -> None:
    params = config.read_params()
    device = compute.setup(params.compute)
    num_classes = len(arrays.read_dataset(Path("data/arrays")).class_ids)
    networks = {name: models.build(name, num_classes) for name in params.model.names}
    write_json(Path("results/cost.json"), timing.measure_networks(networks, device, params.measure))


if __name__ == "__main__":
    run_stage(main)
