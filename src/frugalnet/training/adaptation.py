"""What fine-tuning gains on a device that meets only a few of the classes, by the part of the network trained."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from tqdm import tqdm

from frugalnet import models
from frugalnet.data.arrays import Dataset, Split
from frugalnet.errors import UserError
from frugalnet.metrics.accuracy import predict
from frugalnet.metrics.energy import EnergyMeter
from frugalnet.metrics.timing import peak_allocated
from frugalnet.metrics.training_cost import saved_bytes, training_macs
from frugalnet.training import runs
from frugalnet.training.batches import Normaliser, Views
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.finetuning import (
    PARTS,
    Part,
    TuningConfig,
    build_optimiser,
    fine_tune,
    for_classes,
    step,
    train_only,
    trained_tensors,
)
from frugalnet.training.inference import infer
from frugalnet.training.job import Job

Scenario = Literal["seen", "unseen"]
METHODS = (*PARTS, "scratch")
_CHECKPOINTS = Path(".checkpoints/adapt")  # the last one stays: another adapt.steps needs no new training


class AdaptConfig(TuningConfig):
    """Which classes a device meets, how often that is drawn, and what is trained there."""

    scenarios: Annotated[list[Scenario], Field(min_length=1, max_length=2)]
    seed: int = Field(ge=0, lt=2**63)
    draws: int = Field(ge=0)  # of classes, which share none; 0: nothing is measured
    classes: int = Field(ge=2)  # of a draw
    pictures: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]  # of each class, to train on
    scratch_steps: int = Field(ge=1, le=1_000_000)  # from random weights, which takes longer
    unseen_epochs: int = Field(ge=1)  # at most, of the training without the drawn classes


def lacking(config: AdaptConfig, data: Dataset) -> str | None:
    """What the data (perhaps a subset of Tiny ImageNet) lack for the experiment, as a message; None if they suffice."""
    if config.draws * config.classes > len(data.class_ids) - 2:
        return (
            f"{config.draws} draws of {config.classes} classes each are too many for {len(data.class_ids)} classes, of "
            "which two must remain undrawn; lower adapt.draws or adapt.classes"
        )
    fewest, wanted = int(np.bincount(data.train.labels).min()), max(config.pictures)
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


def pretrain(job: Job, device: torch.device, environment: Mapping[str, Any], root: Path) -> nn.Module:
    """The network trained as the recipe says, but without some classes. Resumes from its checkpoints under `root`.

    environment: what its bits depend on. Raises what `fit` raises.
    """
    run = runs.describe(job, environment)
    checkpoints = Checkpoints(root / _CHECKPOINTS / f"{runs.name(run)}-{run['fingerprint'][:16]}")
    trainer = job.trainer(device)
    with checkpoints.locked():
        job.fit(trainer, checkpoints, checkpoint_minutes=5.0)
    return trainer.result.cpu()


def measure(
    network: nn.Module, model: str, scenario: str, data: Dataset, views: Views, config: AdaptConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every outcome, and what each took, ready for JSON: adapt.json and timing.json.

    network: trained on all classes, or for "unseen" without the drawn ones; it is not changed. Outcomes have a digit
    for each validation picture of a draw's classes, by class: 1 if it was classified correctly.
    - general, restricted (only "seen"): the network as it is, and its answers among the draw's classes alone.
    - classifier, norms, blocks, all: that part fine-tuned, see `finetuning.modules_of`; scratch: everything, from
      random weights, so the same in every scenario and only done in the first. For each number of pictures a class.
    """
    draws, normalise = draw_classes(config, len(data.class_ids)), Normaliser(data.mean, data.std, torch.device("cpu"))
    found: dict[str, Any] = {"measured": True, "model": model, "scenario": scenario, **config.model_dump()}
    outcomes, seconds, joules = [], [], []
    methods = METHODS if scenario == config.scenarios[0] else PARTS
    todo = [(d, n, m) for d in range(len(draws)) for n in config.pictures for m in methods]
    for d, n, method in tqdm(todo, f"adapt {model}, {scenario}", unit=" training runs", disable=None):
        validation, labels = _of_classes(data.validation, draws[d])
        if scenario == "seen" and (n, method) == (config.pictures[0], METHODS[0]):
            answers = predict(infer(network, validation, normalise))
            outcomes.append(_outcome(d, 0, "general", answers == np.array(draws[d])[labels]))
            restricted = for_classes(network, model, config.seed, config.classes, draws[d])
            outcomes.append(_outcome(d, 0, "restricted", predict(infer(restricted, validation, normalise)) == labels))
        chosen = choose_pictures(data.train.labels, draws[d], n, config.seed)
        tuned, part, tuning = _start(network, model, scenario, method, config, draws[d], d)
        stored = [np.array(view[chosen]) for view in _views(views, data)]
        meter, start = EnergyMeter(torch.device("cpu")), time.perf_counter()
        try:
            fine_tune(
                tuned,
                part,
                lambda epoch, stored=stored: stored[epoch % len(stored)],  # type: ignore[misc]
                np.repeat(np.arange(config.classes), n),
                normalise,
                tuning,
                config.seed + d,
                learning_rate=getattr(config.learning_rate, method),
            )
        except UserError as error:
            raise UserError(f"params.yaml: adapt.learning_rate.{method}: {error}") from error
        seconds.append(time.perf_counter() - start)
        joules.append(meter.lap())
        outcomes.append(_outcome(d, n, method, predict(infer(tuned, validation, normalise)) == labels))
    costs, peaks = _costs(network, model, scenario, data, config, normalise, draws[0])
    found |= {"drawn": [[data.class_ids[c] for c in draw] for draw in draws], "outcomes": outcomes, "costs": costs}
    took = [
        {"draw": d, "pictures": n, "method": m, "seconds": s, "joules": j}
        for (d, n, m), s, j in zip(todo, seconds, joules, strict=True)
    ]
    return found, {"trainings": took, "peak_memory_bytes": peaks}


def _start(
    network: nn.Module, model: str, scenario: str, method: str, config: AdaptConfig, classes: Sequence[int], d: int
) -> tuple[nn.Module, Part, TuningConfig]:
    """The network that a training starts from, the part that is trained, and how."""
    tuning = TuningConfig(steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate)
    if method == "scratch":
        torch.manual_seed(config.seed + d)
        fresh = models.build(model, config.classes).to(memory_format=torch.channels_last)
        return fresh, "all", tuning.model_copy(update={"steps": config.scratch_steps})
    kept = classes if scenario == "seen" else None
    tuned = for_classes(network, model, config.seed + d, config.classes, kept)
    return tuned, next(part for part in PARTS if part == method), tuning


def _views(views: Views, data: Dataset) -> Iterator[np.ndarray]:
    for view in range(max(len(views.sha256), 1)):
        yield views.of_epoch(view, data.train.images)


def _of_classes(split: Split, classes: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The split's pictures of these classes, by class, with their positions in `classes`."""
    found = [np.flatnonzero(split.labels == c) for c in classes]
    labels = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in found])
    return split.images[np.concatenate(found)], labels


def _outcome(draw: int, pictures: int, method: str, right: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "draw": draw, "pictures": pictures, "method": method, "right": "".join(map(str, right.astype(int).tolist()))
    }  # fmt: skip


def _costs(
    network: nn.Module, model: str, scenario: str, data: Dataset, config: AdaptConfig, normalise: Normaliser,
    classes: Sequence[int],
) -> tuple[dict[str, Any], dict[str, int | None]]:  # fmt: skip
    """What a step of each method takes for a full batch; and the most memory that PyTorch allocates in it, beyond the
    weights and the batch: activations, gradients and the optimiser's state."""
    batch = np.array(data.train.images[: config.batch_size])
    inputs, labels = normalise(torch.from_numpy(batch)), torch.zeros(len(batch), dtype=torch.int64)
    costs, peaks = {}, {}
    for method in METHODS:
        tuned, part, tuning = _start(network, model, scenario, method, config, classes, 0)
        train_only(tuned, part)
        costs[method] = {
            "macs_per_picture": training_macs(tuned, inputs),
            "steps": tuning.steps,
            "stored_bytes": sum(value.nbytes for value in trained_tensors(tuned).values()),
            "saved_bytes_by_layer": saved_bytes(tuned, inputs),
            "batch": len(batch),
        }
        optimiser = build_optimiser(tuned, 1e-9)
        peaks[method] = peak_allocated(partial(_step, tuned, optimiser, inputs, labels), normalise.device)
    return costs, peaks


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    step(network, optimiser, inputs, labels)
