"""What fine-tuning gains on a device that meets only a few of the classes, by the part of the network trained."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from frugalnet import compute, models
from frugalnet.adaptation.config import PARTS, TRAINED, AdaptConfig, Part, Scenario, Trained, TuningConfig
from frugalnet.adaptation.cost import saved_bytes, training_macs
from frugalnet.adaptation.finetuning import (
    build_optimiser,
    fine_tune,
    for_classes,
    step,
    train_only,
    trained_tensors,
)
from frugalnet.adaptation.result import Cost, Method, NetworkResult, Outcome, Timing, Training
from frugalnet.compute import describe_machine
from frugalnet.compute_config import ComputeConfig
from frugalnet.data.arrays import Dataset, Split
from frugalnet.errors import UserError
from frugalnet.metrics.accuracy import predict
from frugalnet.metrics.energy import EnergyMeter
from frugalnet.metrics.timing import peak_allocated
from frugalnet.project import checkpoints_folder
from frugalnet.training import runs
from frugalnet.training.batches import Examples, Normaliser, PerView
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.inference import infer
from frugalnet.training.job import Job

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Experiment:
    """A network, trained on all classes or, for "unseen", on all but the drawn ones; and what is tried with it."""

    network: nn.Module
    model: str
    scenario: Scenario
    data: Dataset
    views: PerView
    config: AdaptConfig

    @property
    def normalise(self) -> Normaliser:
        return Normaliser(self.data.mean, self.data.std, CPU)

    @property
    def batch(self) -> torch.Tensor:
        """A full batch, normalised, to measure the cost of a step."""
        pictures = torch.from_numpy(np.array(self.data.train.images[: self.config.batch_size]))
        batch: torch.Tensor = self.normalise(pictures)
        return batch


def lacking(config: AdaptConfig, data: Dataset) -> str | None:
    """What the data (perhaps a subset of Tiny ImageNet) lack for the experiment, as a message; None if they suffice."""
    if config.draws * config.classes > len(data.class_ids) - 2:
        return (
            f"{config.draws} draws of {config.classes} classes each are too many for {len(data.class_ids)} classes, of "
            "which two must remain undrawn; lower adapt.draws or adapt.classes"
        )
    fewest = int(np.bincount(data.train.labels).min())
    wanted = max(config.pictures)
    if wanted > fewest:
        return f"{wanted} pictures of each class to train on, but one has only {fewest}; lower adapt.pictures"
    return None


def draw_classes(config: AdaptConfig, num_classes: int) -> list[list[int]]:
    """The classes of each draw, sorted; as `lacking` wants, there are enough."""
    order = np.random.default_rng(config.seed).permutation(num_classes)
    drawn = order[: config.draws * config.classes].reshape(config.draws, config.classes)
    return [sorted(draw.tolist()) for draw in drawn]


def choose_pictures(labels: NDArray[np.int64], classes: Sequence[int], count: int, seed: int) -> NDArray[np.int64]:
    """The indices of `count` pictures of each class, by class; those of a smaller count are among them."""
    return np.concatenate(
        [np.random.default_rng([seed, c]).permutation(np.flatnonzero(labels == c))[:count] for c in classes]
    )


def pretrain(job: Job, settings: ComputeConfig, root: Path) -> nn.Module:
    """The network trained as the recipe says, but without some classes. Resumes from the checkpoints of a project.

    root: the project's. The last checkpoint stays: another adapt.steps needs no new training. Raises what `fit` raises.
    """
    settings = settings.model_copy(update={"compile": "off"})  # for so few epochs
    device = compute.setup(settings)
    run = runs.describe(job, compute.bits_depend_on(device, settings))
    checkpoints = Checkpoints(checkpoints_folder(root) / "adapt" / f"{run.name}-{run.fingerprint[:16]}")
    trainer = job.trainer(device)
    with checkpoints.locked():
        job.fit(trainer, checkpoints, settings.checkpoint_minutes)
    return trainer.result.cpu()


def measure(experiment: Experiment) -> NetworkResult:
    """Every outcome, and what each took. The experiment's network is not changed.

    - general, restricted (only "seen"): the network as it is, and its answers among the draw's classes alone.
    - classifier, norms, blocks, all: that part fine-tuned, see `finetuning.modules_of`; scratch: everything, from
      random weights, so the same in every scenario and only done in the first. For each number of pictures a class.

    Raises UserError if a loss is not finite.
    """
    config = experiment.config
    data = experiment.data
    draws = [
        _Draw(number, classes, _of_classes(data.validation, classes))
        for number, classes in enumerate(draw_classes(config, len(data.class_ids)))
    ]
    methods = TRAINED if experiment.scenario == config.scenarios[0] else PARTS
    todo = [*product(draws, config.pictures, methods)]
    progress = tqdm(todo, f"adapt {experiment.model}, {experiment.scenario}", unit=" training runs", disable=None)
    trained = [_train(experiment, draw, pictures, method) for draw, pictures, method in progress]
    untrained = chain.from_iterable(_untrained(experiment, draw) for draw in draws)
    outcomes = [*(untrained if experiment.scenario == "seen" else []), *(outcome for outcome, _ in trained)]
    return NetworkResult(
        model=experiment.model,
        scenario=experiment.scenario,
        **dict(config),
        drawn=[[data.class_ids[label] for label in draw.classes] for draw in draws],
        outcomes=sorted(outcomes, key=lambda outcome: outcome.draw),
        costs={method: _cost(experiment, draws[0], method) for method in TRAINED},
        timing=Timing(
            trainings=[training for _, training in trained],
            peak_memory_bytes={method: _peak_memory(experiment, draws[0], method) for method in TRAINED},
            machine=describe_machine(CPU),
        ),
    )


@dataclass(frozen=True)
class _Draw:
    """The classes that a device meets, and their validation pictures, by class; labels are positions in `classes`."""

    number: int
    classes: list[int]
    validation: Split

    def outcome(self, method: Method, pictures: int, right: NDArray[np.bool_]) -> Outcome:
        digits = "".join("1" if correct else "0" for correct in right)
        return Outcome(draw=self.number, pictures=pictures, method=method, right=digits)


def _of_classes(split: Split, classes: Sequence[int]) -> Split:
    indices = [np.flatnonzero(split.labels == label) for label in classes]
    labels = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in indices])
    return Split(split.images[np.concatenate(indices)], labels)


def _untrained(experiment: Experiment, draw: _Draw) -> list[Outcome]:
    """The network as it is, with all classes possible and with the draw's alone."""
    images = draw.validation.images
    labels = draw.validation.labels
    config = experiment.config
    restricted = for_classes(experiment.network, experiment.model, config.seed, config.classes, draw.classes)
    answers = predict(infer(experiment.network, images, experiment.normalise))
    among = predict(infer(restricted, images, experiment.normalise))
    return [
        draw.outcome("general", 0, answers == np.array(draw.classes)[labels]),
        draw.outcome("restricted", 0, among == labels),
    ]


def _train(experiment: Experiment, draw: _Draw, pictures: int, method: Trained) -> tuple[Outcome, Training]:
    """Train on so many pictures of each class. Raises UserError if a loss is not finite."""
    config = experiment.config
    images = experiment.data.train.images
    views = experiment.views
    chosen = choose_pictures(experiment.data.train.labels, draw.classes, pictures, config.seed)
    network, part, tuning = _start(experiment, draw, method)
    stored = [np.array(views.of_epoch(epoch, images)[chosen]) for epoch in range(max(len(views.sha256), 1))]
    labels = np.repeat(np.arange(config.classes), pictures)
    examples = Examples(lambda epoch: stored[epoch % len(stored)], labels)
    meter = EnergyMeter(CPU)
    began = time.perf_counter()
    try:
        fine_tune(network, part, examples, experiment.normalise, tuning, config.seed + draw.number)
    except UserError as error:
        raise UserError(f"params.yaml: adapt.learning_rate.{method}: {error}") from error
    seconds = time.perf_counter() - began
    joules = meter.lap()
    right = predict(infer(network, draw.validation.images, experiment.normalise)) == draw.validation.labels
    training = Training(draw=draw.number, pictures=pictures, method=method, seconds=seconds, joules=joules)
    return draw.outcome(method, pictures, right), training


def _start(experiment: Experiment, draw: _Draw, method: Trained) -> tuple[nn.Module, Part, TuningConfig]:
    """The network that a training starts from, the part that is trained, and how."""
    config = experiment.config
    tuning = TuningConfig(steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate)
    seed = config.seed + draw.number
    if method == "scratch":
        torch.manual_seed(seed)
        fresh = models.build(experiment.model, config.classes).to(memory_format=torch.channels_last)
        rates = config.learning_rate.model_copy(update={"all": config.learning_rate.scratch})
        return fresh, "all", tuning.model_copy(update={"steps": config.scratch_steps, "learning_rate": rates})
    kept = draw.classes if experiment.scenario == "seen" else None
    return for_classes(experiment.network, experiment.model, seed, config.classes, kept), method, tuning


def _cost(experiment: Experiment, draw: _Draw, method: Trained) -> Cost:
    """What a step takes for a full batch."""
    network, part, tuning = _start(experiment, draw, method)
    train_only(network, part)
    inputs = experiment.batch
    return Cost(
        macs_per_picture=training_macs(network, inputs),
        steps=tuning.steps,
        stored_bytes=sum(value.nbytes for value in trained_tensors(network).values()),
        saved_bytes_by_layer=saved_bytes(network, inputs),
        batch=len(inputs),
    )


def _peak_memory(experiment: Experiment, draw: _Draw, method: Trained) -> int:
    """The most bytes that PyTorch allocates in a step, beyond the weights and the batch: activations, gradients and the
    optimiser's state."""
    network, part, _ = _start(experiment, draw, method)
    train_only(network, part)
    optimiser = build_optimiser(network, 1e-9)
    inputs = experiment.batch
    labels = torch.zeros(len(inputs), dtype=torch.int64)

    def train() -> None:
        step(network, optimiser, inputs, labels)

    peak = peak_allocated(train, CPU)
    assert peak is not None  # on a CPU
    return peak
