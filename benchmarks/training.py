"""Training speed compared with the training step alone and with common data loaders: `make bench`.

Images per second for each network. Each round measures every contestant in turn:

limit        the training step alone, on one batch that is already in memory
ours         loop.fit, reading stored views
ours_all     the same with evaluation, checkpoint and logging, once per epoch each
plain        JPEG files, ImageFolder, DataLoader, albumentations on the fly, default memory layout, eager mode
torchvision  the same with torchvision's v2 transforms

Ratios are taken within each round. The output shows medians (lowest–highest); results/benchmark.json has every figure,
and the peak memory of a process that trains. All on the CPU: for a GPU, there is `make bench-gpu`.
"""

import argparse
import contextlib
import io
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from tqdm import tqdm

from frugalnet import compute, config, tracking
from frugalnet.config import Params
from frugalnet.data import arrays, sample
from frugalnet.data.augment import write_views
from frugalnet.data.normalise import normalise
from frugalnet.errors import UserError, in_one_line
from frugalnet.files import write_json
from frugalnet.training import runs
from frugalnet.training.batches import Batch, PerView, batch_indices, batches, steps_per_epoch
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.job import Job
from frugalnet.training.loop import fit
from frugalnet.training.trainer import Trainer

BATCH_SIZE = 256
SAMPLE_IMAGES = 20_000  # of the repeated sample
WARM_UP_STEPS = 2  # before timing starts
MEMORY_STEPS = 8  # of each epoch whose memory is measured
MEMORY_EVALUATED = 1000  # images, after each of those epochs


class Data:
    """The same images as arrays, as stored views, and as JPEG files in an archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dataset = arrays.read_dataset(folder / "arrays")
        self.views = PerView(folder / "views")
        self.labels = np.array(self.dataset.train.labels)

    def images(self, epoch: int) -> np.ndarray:
        """The (N, 64, 64, 3) uint8 images that an epoch trains on."""
        return self.views.of_epoch(epoch, self.dataset.train.images)

    def first_batch(self, device: torch.device) -> Batch:
        order = np.random.default_rng(0).permutation(len(self.labels))
        return next(batches(self.images(0), self.labels, [order[:BATCH_SIZE]], device))


def load_params() -> Params:
    """The working folder's params.yaml, with the benchmark's batch size, whole images, on the CPU."""
    params = config.read_params()
    train = params.train.model_copy(update={"batch_size": BATCH_SIZE, "resolutions": [64]})
    return params.model_copy(update={"train": train, "compute": params.compute.model_copy(update={"device": "cpu"})})


def data_folder(temporary: Path, params: Params) -> Path:
    """`data/` if download, normalise and augment have run, else the sample, repeated, in `temporary`."""
    own = Path("data")
    if all((own / name).exists() for name in ("archive.zip", "arrays", "views")):
        return own
    made = temporary / "data"
    sample.write_sample(made / "archive.zip")
    every = {"name": "repeated sample", "classes": None, "train_per_class": None, "holdout": 0}
    processes = params.compute.processes
    normalising = params.data.model_copy(update=every)
    normalise(made / "archive.zip", made / "arrays", normalising, is_sample=True, processes=processes)
    for path in (made / "arrays").glob("train_*.npy"):
        array = np.load(path)
        np.save(path, np.resize(array, (SAMPLE_IMAGES, *array.shape[1:])))
    write_views(made / "arrays/train_images.npy", made / "views", params.augment, processes=processes)
    return made


def step_seconds(trainer: Trainer, batch: Batch, steps: int) -> float:
    """Mean seconds of `steps` training steps on a batch that is on the device, after steps that warm up."""
    for number in range(WARM_UP_STEPS + steps):
        if number == WARM_UP_STEPS:
            compute.synchronize(trainer.device)
            started = time.monotonic()
        trainer.epoch, trainer.step = 0, number % trainer.steps  # the learning rate keeps its first values
        trainer.train_batch(*batch)
    compute.synchronize(trainer.device)
    return (time.monotonic() - started) / steps


class Ours:
    """A network trained as pipeline/train.py does, but only the last steps of each epoch.

    Checkpoints and an MLflow database are written below `folder`.
    """

    def __init__(self, model: str, data: Data, params: Params, device: torch.device, folder: Path) -> None:
        self.data = data
        job = Job(model, 0, params.train, data.dataset, data.views)
        self.examples = job.examples()
        self.trainer = job.trainer(device)
        self.checkpoints = Checkpoints(folder / "checkpoints" / model)
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # hides a message per new database
        environment = compute.bits_depend_on(device, params.compute)
        run = runs.describe(job, environment)
        self.tracked = tracking.training_run(folder, run, {})
        self.tracked.log_history([])

    def train(self, epoch: int, steps: int, validation: arrays.Split) -> tuple[float, float]:
        """Train the last `steps` steps of `epoch`, then evaluate, write a checkpoint and log.

        Returns the images per second of the steps, and the seconds of everything else.
        """
        trainer = self.trainer
        trainer.config = trainer.config.model_copy(update={"epochs": epoch + 1})
        trainer.epoch = epoch
        trainer.begin_epoch()
        trainer.step = trainer.steps - steps
        indices = batch_indices(trainer.seed, epoch, trainer.n_train, trainer.steps)
        started = time.monotonic()
        with contextlib.redirect_stderr(io.StringIO()):  # hides the line printed per epoch
            fit(
                trainer,
                self.examples,
                validation,
                self.checkpoints,
                lambda history: self.tracked.log_history(history.rows),
            )
        total = time.monotonic() - started
        self.checkpoints.remove()
        seconds = trainer.history.seconds[-1]
        return sum(map(len, indices[-steps:])) / seconds, total - seconds


@dataclass(frozen=True)
class Round:
    """Images per second of each contestant, measured one after the other."""

    limit: float
    ours: float
    ours_all: float
    plain: float
    torchvision: float


def measure_rounds(data: Data, params: Params, count: int, steps: int, temporary: Path) -> dict[str, list[Round]]:
    """The rounds of each network, in turn."""
    from benchmarks import rivals  # here: a process that measures our memory does without them

    jpegs = temporary / "jpegs"
    rivals.extract_jpegs(data.folder / "archive.zip", jpegs)
    mean_std = [[value / 255 for value in values] for values in (data.dataset.mean, data.dataset.std)]
    policy = params.augment.policy
    plain = rivals.endless_batches(rivals.albumentations_folder(jpegs, policy, *mean_std), BATCH_SIZE)
    torchvision = rivals.endless_batches(rivals.torchvision_folder(jpegs, *mean_std), BATCH_SIZE)
    for loader in (plain, torchvision):
        next(loader)  # starts its workers while this process has no threads yet
    for epoch in range(count):
        data.images(epoch)  # verifies the views, which also reads them into the page cache
    device = compute.setup(params.compute)
    batch = data.first_batch(device)
    classes = len(data.dataset.class_ids)
    ours = {name: Ours(name, data, params, device, temporary) for name in params.model.names}
    usual = {name: rivals.UsualTraining(name, classes, params.train) for name in params.model.names}
    rounds: dict[str, list[Round]] = {name: [] for name in params.model.names}
    for number in tqdm(range(count), "rounds", disable=None):
        for name, training in ours.items():
            before = step_seconds(training.trainer, batch, -(-steps // 2))
            rate, other_seconds = training.train(number, steps, data.dataset.validation)
            after = step_seconds(training.trainer, batch, -(-steps // 2))
            rate_all = len(data.labels) / (len(data.labels) / rate + other_seconds)
            result = Round(
                limit=BATCH_SIZE / mean([before, after]),
                ours=rate,
                ours_all=rate_all,
                plain=usual[name].images_per_second(plain, steps),
                torchvision=usual[name].images_per_second(torchvision, steps),
            )
            rounds[name].append(result)
    return rounds


def peak_memory(model: str, folder: Path, temporary: Path) -> list[int]:
    """Train on one view after the other, in a new process; its peak memory up to the end of each.

    In bytes, without the page cache. Freed memory is kept (`compute.setup`), so what is held at the end is the peak.
    """
    params = load_params()
    data = Data(folder)
    validation = data.dataset.validation
    evaluated = arrays.Split(validation.images[:MEMORY_EVALUATED], validation.labels[:MEMORY_EVALUATED])
    training = Ours(model, data, params, compute.setup(params.compute), temporary)
    peaks = []
    for view in range(max(1, len(data.views.sha256))):
        training.train(view, min(MEMORY_STEPS, training.trainer.steps), evaluated)
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        peaks.append(1024 * int(status.partition("RssAnon:")[2].split()[0]))
    return peaks


def fresh_processes() -> ProcessPoolExecutor:
    """Runs each task in a new process, one at a time."""
    return ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1)


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Median (lowest–highest)."""
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def print_row(cells: Iterable[str]) -> None:
    print("".join(f"{cell:<24}" for cell in cells))


def show(rounds: dict[str, list[Round]]) -> None:
    contestants = [field.name for field in fields(Round)]
    print_row(["images a second", *contestants])
    for model, rates in rounds.items():
        print_row([model, *(spread([getattr(rate, name) for rate in rates]) for name in contestants)])
    rivals = ("limit", "plain", "torchvision")
    print_row(["\nratios", *(f"ours / {name}" for name in rivals)])
    for model, rates in rounds.items():
        print_row([model, *(spread([rate.ours / getattr(rate, name) for rate in rates], ".2f") for name in rivals)])
    print()
    for model, rates in rounds.items():
        shares = [1 - rate.ours_all / rate.ours for rate in rates]
        print(f"{model}: evaluation, checkpoint and logging take {spread(shares, '.1%')} of an epoch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="per contestant and round")
    arguments = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # log to a temporary database only
    params = load_params()
    machine = compute.describe_machine(compute.setup(params.compute))
    with tempfile.TemporaryDirectory() as temporary, fresh_processes() as executor:
        folder = data_folder(Path(temporary), params)
        data = Data(folder)
        most = steps_per_epoch(len(data.labels), BATCH_SIZE)
        if not 1 <= arguments.steps <= most:
            raise UserError(f"--steps {arguments.steps}: expected 1 to {most}, the steps of an epoch of these data")
        description = f"{len(data.labels):,} training images of {data.dataset.name}"
        print(f"{description}; batches of {BATCH_SIZE}; {machine}")
        rounds = measure_rounds(data, params, arguments.rounds, arguments.steps, Path(temporary))
        show(rounds)
        peaks = {}
        for model in params.model.names:
            peaks[model] = executor.submit(peak_memory, model, folder, Path(temporary)).result()
            shown = ", ".join(f"{size / 1e9:.2f} GB" for size in peaks[model])
            print(f"{model}: peak memory of training without the page cache, view by view: {shown}")
    networks = {
        model: {"rounds": [asdict(rates) for rates in measured], "peak_bytes": peaks[model]}
        for model, measured in rounds.items()
    }
    facts = {"data": description, "batch_size": BATCH_SIZE, "steps_per_round": arguments.steps, "machine": machine}
    write_json(Path("results/benchmark.json"), facts | {"networks": networks})


if __name__ == "__main__":
    with in_one_line("bench"):
        main()
