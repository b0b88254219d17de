"""Training speed compared with the training step alone and with common data loaders: `make bench`.

Images per second for each network. Each round measures every contestant in turn:

limit        the training step alone, on one batch that is already in memory
ours         loop.fit, reading stored views
ours, all    the same with evaluation, checkpoint and logging, once per epoch each
plain        JPEG files, ImageFolder, DataLoader, albumentations on the fly, default memory layout, eager mode
torchvision  the same with torchvision's v2 transforms

Ratios are taken within each round. The output shows medians (lowest–highest); results/benchmark.json has every figure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from torch import Tensor
from tqdm import tqdm

from benchmarks import ours, rivals
from benchmarks.data import BATCH_SIZE, Data, load_params, prepare
from frugalnet import compute
from frugalnet.compute import describe_machine
from frugalnet.config import Params
from frugalnet.errors import UserError, in_one_line
from frugalnet.files import write_json
from frugalnet.processes import cores
from frugalnet.training.batches import batches, steps_per_epoch
from frugalnet.training.trainer import Trainer

WARM_UP = 2  # steps before timing starts


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}


def limit(trainer: Trainer, batch: tuple[Tensor, Tensor], steps: int) -> float:
    """Seconds of `steps` training steps on a batch that is in memory."""
    started = time.monotonic()
    for number in range(steps):
        trainer.step = number % trainer.steps  # of the first epoch: the learning rate keeps its first values
        trainer.train_batch(*batch)
    return time.monotonic() - started


def wait_for_workers() -> None:
    """Wait until the loaders' workers have filled their queues: until then they take time from the next contestant."""
    workers, before = psutil.Process().children(recursive=True), -1.0
    while before != (used := sum(sum(worker.cpu_times()[:2]) for worker in workers)) or any(
        worker.status() == psutil.STATUS_RUNNING for worker in workers
    ):
        before = used
        time.sleep(0.3)


def measure(data: Data, params: Params, rounds: int, steps: int, temporary: Path) -> dict[str, dict[str, list[float]]]:
    """Network → contestant → images per second of each round; `beside`: seconds per epoch outside of training steps."""
    loaders = {
        "plain": rivals.endless(rivals.albumentations_folder(data, params), BATCH_SIZE),
        "torchvision": rivals.endless(rivals.torchvision_folder(data), BATCH_SIZE),
    }
    in_flight = 2 * cores()  # batches that an idle DataLoader has prepared or begun
    for loader in loaders.values():
        next(loader)  # starts its workers while this process has no threads yet
    device = compute.setup(params.compute)
    names = params.model.names
    own = {name: ours.new_trainer(name, data, params, device) for name in names}
    still = {name: ours.new_trainer(name, data, params, device) for name in names}  # on one batch, for the limit
    on_epoch = {name: ours.logger(name, data, params, device, temporary) for name in names}
    theirs = {(name, rival): rivals.build(name, data, params) for name in names for rival in loaders}
    images = data.views.of_epoch(0, data.dataset.train.images)
    first = np.random.default_rng(0).permutation(len(images))[:BATCH_SIZE]
    batch = next(batches(images, np.array(data.dataset.train.labels), [first], device))

    samples: dict[str, dict[str, list[float]]] = {
        name: {key: [] for key in ("limit", "ours", "beside", *loaders)} for name in names
    }
    for number in tqdm(range(rounds), "rounds", disable=None):
        for name in names:
            sample = samples[name]
            for contestant in ("limit", "ours") if number % 2 else ("ours", "limit"):
                limit(still[name], batch, WARM_UP)
                if contestant == "limit":
                    sample["limit"].append(BATCH_SIZE * steps / limit(still[name], batch, steps))
                else:
                    rate, beside = ours.end_of_epoch(own[name], data, number, steps, temporary, on_epoch[name])
                    sample["ours"].append(rate)
                    sample["beside"].append(beside)
            for rival, loader in loaders.items():
                theirs[name, rival](loader, in_flight)  # use up the batches prepared before
                sample[rival].append(BATCH_SIZE * steps / theirs[name, rival](loader, steps))
                wait_for_workers()
    return samples


def summarise(samples: dict[str, list[float]], n_train: int) -> dict[str, Any]:
    epochs = [n_train / rate for rate in samples["ours"]]
    all_in = [n_train / (epoch + beside) for epoch, beside in zip(epochs, samples["beside"], strict=True)]
    rates = {key: samples[key] for key in ("limit", "ours")} | {"ours, all": all_in}
    rates |= {key: samples[key] for key in ("plain", "torchvision")}

    def ratio(of: str, to: str) -> dict[str, float]:
        return spread([a / b for a, b in zip(rates[of], rates[to], strict=True)])

    return {
        "images_per_second": {key: spread(values) for key, values in rates.items()},
        "ratios": {f"ours/{key}": ratio("ours", key) for key in ("limit", "plain", "torchvision")},
        "beside_steps_seconds_per_epoch": spread(samples["beside"]),
        "beside_steps_share_of_epoch": spread(
            [beside / (epoch + beside) for epoch, beside in zip(epochs, samples["beside"], strict=True)]
        ),
    }


def peak_memory(data: Data, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Network → number of views → peak anonymous memory, in bytes, of a new process that trains on them."""

    def measured(name: str, views: int) -> int:
        command = [sys.executable, "-m", "benchmarks.memory", str(data.folder), name, str(views)]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise UserError(f"measuring the memory of {name} failed, see above")
        return int(json.loads(done.stdout)["peak_bytes"])

    counts = sorted({1, len(data.views.sha256)})
    return {name: {str(views): measured(name, views) for views in counts} for name in names}


def show(results: dict[str, Any]) -> None:
    def cells(spreads: dict[str, dict[str, float]], form: str) -> list[str]:
        return [f"{s['median']:{form}} ({s['min']:{form}}–{s['max']:{form}})" for s in spreads.values()]

    networks = results["networks"]
    for title, key, form in (("images a second", "images_per_second", ",.0f"), ("ratios", "ratios", ".2f")):
        rows = [[title, *next(iter(networks.values()))[key]]]
        rows += [[name, *cells(network[key], form)] for name, network in networks.items()]
        print("\n" + "\n".join(f"{row[0]:16}" + "".join(f"{cell:>22}" for cell in row[1:]) for row in rows))
    print()
    for name, network in networks.items():
        share, seconds = network["beside_steps_share_of_epoch"], network["beside_steps_seconds_per_epoch"]
        memory = ", ".join(f"{size / 1e9:.2f} GB on {n} view(s)" for n, size in results["peak_bytes"][name].items())
        print(
            f"{name}: evaluation, checkpoint and logging take {seconds['median']:.1f} s, "
            f"{share['median']:.1%} of an epoch; peak memory of training beyond the page cache: {memory}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="per contestant and round")
    arguments = parser.parse_args()
    for variable in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        os.environ.pop(variable, None)  # log to a temporary database only

    params = load_params()
    with tempfile.TemporaryDirectory() as temporary:
        data = prepare(Path(temporary), params)
        most = steps_per_epoch(len(data.dataset.train.labels), BATCH_SIZE)
        if not 1 <= arguments.steps <= most:
            raise UserError(f"--steps {arguments.steps}: expected 1 to {most}, the steps of an epoch of these data")
        machine = describe_machine(compute.setup(params.compute))
        print(f"{data.description}; batches of {BATCH_SIZE}; {machine}")
        samples = measure(data, params, arguments.rounds, arguments.steps, Path(temporary))
        results = {
            "data": data.description,
            "batch_size": BATCH_SIZE,
            "steps_per_round": arguments.steps,
            "networks": {name: summarise(sample, len(data.dataset.train.labels)) for name, sample in samples.items()},
            "peak_bytes": peak_memory(data, params.model.names),
            "machine": machine,
        }
    write_json(Path("results/benchmark.json"), results)
    show(results)


if __name__ == "__main__":
    with in_one_line("bench"):
        main()
