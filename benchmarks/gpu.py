"""Training speed on a CUDA GPU: `make bench-gpu`.

Each network, trained in each of these ways, in a process of its own, in alternating rounds:

eager            without torch.compile
compiled         compute.compile=default
graphs           compute.compile=reduce-overhead: CUDA graphs, one launch for a whole pass
deterministic    compiled, with compute.deterministic

The output shows medians (lowest–highest) of images per second: `step` of training steps alone, on one batch that is on
the device; `epoch` of whole epochs as loop.fit trains them; joules of an epoch (NVML, the GPU alone); peak memory.
"""

import argparse
import tempfile
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import median

import torch

from benchmarks.training import (
    BATCH_SIZE,
    Data,
    data_folder,
    fresh_processes,
    load_params,
    print_row,
    spread,
    step_seconds,
)
from frugalnet import compute
from frugalnet.errors import UserError, in_one_line
from frugalnet.training.batches import Examples, Normaliser
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.loop import fit
from frugalnet.training.trainer import Trainer

WAYS = {
    "eager": {"compile": "off", "deterministic": False},
    "compiled": {"compile": "default", "deterministic": False},
    "graphs": {"compile": "reduce-overhead", "deterministic": False},
    "deterministic": {"compile": "default", "deterministic": True},
}


@dataclass(frozen=True)
class Round:
    """step, epoch: images per second. joules: of an epoch; NaN without a counter."""

    step: float
    epoch: float
    joules: float
    peak_bytes: int
    machine: dict[str, str | int]


def measure(model: str, way: str, device_name: str, folder: Path, steps: int, epochs: int) -> Round:
    """One round of one network, trained one way, in this process, on the data in `folder`."""
    params = load_params()
    settings = params.compute.model_copy(update={"device": device_name, **WAYS[way]})
    device = compute.setup(settings)
    data = Data(folder)
    normalise = Normaliser(data.dataset.mean, data.dataset.std, device)
    recipe = params.train.model_copy(update={"epochs": epochs + 1})
    trainer = Trainer(model, 0, len(data.dataset.class_ids), len(data.labels), normalise, recipe)
    if mode := compute.compile_mode(device, settings):
        trainer.compile(mode)
    batch = data.first_batch(device)
    step_seconds(trainer, batch, steps)  # compiles
    seconds = step_seconds(trainer, batch, steps)
    trainer.begin_epoch()
    with tempfile.TemporaryDirectory() as checkpoints:
        fit(trainer, Examples(data.images, data.labels), data.dataset.validation, Checkpoints(Path(checkpoints)))
    history = trainer.history
    return Round(
        step=len(batch[1]) / seconds,
        epoch=len(data.labels) / median(history.seconds[1:]),  # the first epoch copies the views
        joules=median(nan if joules is None else joules for joules in history.joules[1:]),
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
        machine=compute.describe_machine(device),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of training alone, in each round")
    parser.add_argument("--epochs", type=int, default=2, help="in each round, after one that warms up")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try this program")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no CUDA GPU: nothing was measured")
    params = load_params()
    cases = [(model, way) for model in params.model.names for way in arguments.ways]
    rounds: dict[tuple[str, str], list[Round]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as temporary, fresh_processes() as executor:
        folder = data_folder(Path(temporary), params)
        for number in range(arguments.rounds):
            for case in cases[:: -1 if number % 2 else 1]:
                sizes = (arguments.steps, arguments.epochs)
                rounds[case].append(executor.submit(measure, *case, arguments.device, folder, *sizes).result())
    print(f"batches of {BATCH_SIZE}; {rounds[cases[0]][0].machine}")
    print_row(["images a second", "way", "step", "epoch", "joules an epoch", "peak memory"])
    for (model, way), measured in rounds.items():
        cells = [spread([getattr(result, name) for result in measured]) for name in ("step", "epoch", "joules")]
        print_row([model, way, *cells, f"{max(result.peak_bytes for result in measured) / 1e9:.2f} GB"])


if __name__ == "__main__":
    with in_one_line("bench-gpu"):
        main()
