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
    data = arrays.read_dataset(Path("data/arrays"))
    networks = {name: models.build(name, len(data.class_ids)) for name in params.model.names}
    shape = (3, data.side, data.side)
    write_json(Path("results/cost.json"), timing.measure_networks(networks, device, params.measure, shape))


if __name__ == "__main__":
    run_stage(main)
