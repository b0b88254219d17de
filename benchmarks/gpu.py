"""Training speed on a CUDA GPU: `make bench-gpu`.

Each network, trained in each of these ways, in a process of its own, in alternating rounds:

eager            without torch.compile
compiled         compute.compile=default
graphs           compute.compile=reduce-overhead: CUDA graphs, one launch for a whole pass
deterministic    compiled, with compute.deterministic

The output shows medians (lowest–highest) of images per second: `step` of training steps alone, on one batch that is on
the device; `epoch` of whole epochs as loop.fit trains them. results/benchmark_gpu.json has every figure, with the
seconds until the first steps ended, seconds and joules (NVML, the GPU alone) of an epoch, and peak memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.benchmark import limit, spread
from benchmarks.data import BATCH_SIZE, load_params, prepare
from frugalnet import compute
from frugalnet.data import arrays
from frugalnet.errors import UserError, in_one_line
from frugalnet.files import write_json
from frugalnet.training.batches import Examples, Normaliser, Resident, Views, batch_indices, batches
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.loop import fit
from frugalnet.training.trainer import Trainer

WAYS = {
    "eager": {"compile": "off", "deterministic": False},
    "compiled": {"compile": "default", "deterministic": False},
    "graphs": {"compile": "reduce-overhead", "deterministic": False},
    "deterministic": {"compile": "default", "deterministic": True},
}


def measure(model: str, way: str, folder: Path, device_name: str, steps: int, epochs: int) -> dict[str, Any]:
    """One round of one network, trained one way, in this process, on data/ in `folder`."""
    params = load_params()
    settings = params.compute.model_copy(update={"device": device_name, **WAYS[way]})
    device = compute.setup(settings)
    mode, data, views = compute.compile_mode(device, settings), arrays.load(folder / "arrays"), Views(folder / "views")
    labels, normalise = np.array(data.train.labels), Normaliser(data.mean, data.std, device)
    recipe = params.train.model_copy(update={"epochs": epochs + 1})
    trainer = Trainer(model, 0, len(data.class_ids), len(labels), normalise, recipe, mode)
    images = Resident(device).of(views.of_epoch(0, data.train.images))
    batch = next(batches(images, labels, batch_indices(0, 0, trainer.n_train, trainer.steps)[:1], device))

    def timed(count: int) -> float:
        compute.synchronize(device)
        started = time.monotonic()
        limit(trainer, batch, count)
        compute.synchronize(device)
        return time.monotonic() - started

    first = timed(steps)
    step_seconds = timed(steps) / steps
    trainer.step = 0
    with tempfile.TemporaryDirectory() as temporary:
        checkpoints = Checkpoints(Path(temporary) / "checkpoints")
        examples = Examples(lambda epoch: views.of_epoch(epoch, data.train.images), labels)
        fit(trainer, examples, data.validation, checkpoints)
    seconds, joules = trainer.history.seconds[1:], trainer.history.joules[1:]  # the first epoch copies the views
    return {
        "first_steps_seconds": first,
        "step": len(batch[1]) / step_seconds,
        "epoch": len(labels) / median(seconds),
        "epoch_seconds": median(seconds),
        "epoch_joules": None if None in joules else median(one for one in joules if one is not None),
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "machine": compute.describe_machine(device),
    }


def main(arguments: argparse.Namespace) -> None:
    common = [str(arguments.steps), str(arguments.epochs)]
    if arguments.one:
        model, way, folder = arguments.one
        print(json.dumps(measure(model, way, Path(folder), arguments.device, arguments.steps, arguments.epochs)))
        return
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no CUDA GPU: nothing was measured")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    params = load_params()
    cases = [(model, way) for model in params.model.names for way in arguments.ways]
    samples: dict[tuple[str, str], list[dict[str, Any]]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as temporary:
        folder = prepare(Path(temporary), params).folder
        for number in range(arguments.rounds):
            for model, way in cases[:: -1 if number % 2 else 1]:
                command = [sys.executable, "-m", "benchmarks.gpu", "--one", model, way, str(folder)]
                command += ["--device", arguments.device, "--steps", common[0], "--epochs", common[1]]
                done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
                if done.returncode:
                    raise UserError(f"measuring {model}, {way}, failed, see above")
                samples[model, way].append(json.loads(done.stdout.splitlines()[-1]))
    write_json(
        Path("results/benchmark_gpu.json"), [{"model": m, "way": w, "rounds": r} for (m, w), r in samples.items()]
    )
    print(f"batches of {BATCH_SIZE}; {samples[cases[0]][0]['machine']}")
    print(f"{'images a second':20}{'way':16}{'step':>26}{'epoch':>26}")
    for (model, way), rounds in samples.items():
        spreads = [spread([one[key] for one in rounds]) for key in ("step", "epoch")]
        cells = [f"{s['median']:,.0f} ({s['min']:,.0f}–{s['max']:,.0f})" for s in spreads]
        print(f"{model:20}{way:16}" + "".join(f"{cell:>26}" for cell in cells))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of training alone, in each round")
    parser.add_argument("--epochs", type=int, default=2, help="in each round, after one that warms up")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try this program")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "WAY", "DATA"), help="one round, printed as JSON")
    with in_one_line("bench-gpu"):
        main(parser.parse_args())
