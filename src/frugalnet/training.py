"""Training: one network, one seed, from random weights to the last epoch, exactly resumable at any step."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from tqdm import tqdm

from frugalnet import accuracy, compute, efficiency, models
from frugalnet.arrays import Split
from frugalnet.batches import Normaliser, batches, epoch_turns, resident, steps_per_epoch
from frugalnet.checkpoint import Checkpoints
from frugalnet.errors import UserError
from frugalnet.inference import infer
from frugalnet.optim import OptimConfig, build_optimiser, learning_rate

LOOK_EVERY = 20  # steps between looks at loss, accuracy and energy: on a GPU each look waits for it
_COUNTS = ("epoch", "step", "seconds", "cpu_seconds", "joules")  # of a Trainer, as its checkpoints hold them


class TrainConfig(OptimConfig):
    """A recipe, the same for every network."""

    recipe: str
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    label_smoothing: float = Field(ge=0, lt=1)
    resolutions: list[Annotated[int, Field(ge=24, le=64)]] = Field(min_length=1)  # pixels a side, over the epochs

    @field_validator("resolutions")
    @classmethod
    def _all_are_used(cls, resolutions: list[int], info: ValidationInfo) -> list[int]:
        epochs = info.data.get("epochs", len(resolutions))
        if len(resolutions) > epochs:
            raise ValueError(f"{len(resolutions)} sizes for {epochs} epochs: give as many epochs or fewer sizes")
        return resolutions


def resolution(config: TrainConfig, epoch: int) -> int:
    """The pixels a side that epoch `epoch` (from 0) trains on: the list of them, spread evenly over the epochs."""
    return config.resolutions[epoch * len(config.resolutions) // config.epochs]


class Interrupted(Exception):
    """A signal asked the run to stop; its checkpoint is written."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; a checkpoint is written: run it again to go on")
        self.exit_code = 128 + number


@dataclass
class History:
    """What a run has to show for each finished epoch: a row of figures, and what its training steps spent.

    Processor seconds are of all threads. None: not measured, as joules are where a counter could not be read over the
    whole epoch.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float | None] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)

    def timing(self) -> dict[str, list[Any]]:
        """epoch_seconds, epoch_cpu_seconds, epoch_joules: what timing.json holds."""
        return {f"epoch_{key}": values for key, values in vars(self).items() if key != "rows"}


@contextmanager
def noting_signals() -> Iterator[list[int]]:
    """Give a list that SIGINT and SIGTERM are added to, in place of what they otherwise do."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stopwatch:
    """Wall-clock seconds, processor seconds over all threads, and joules where there is a counter."""

    def __init__(self, device: torch.device) -> None:
        self._meter = efficiency.EnergyMeter(device)
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def lap(self) -> tuple[float, float, float | None]:
        """What was spent since the last lap."""
        joules = self._meter.lap()
        wall, cpu, self._wall, self._cpu = self._wall, self._cpu, time.monotonic(), time.process_time()
        return self._wall - wall, self._cpu - cpu, joules


class Trainer:
    """A network on its way: everything that its next step depends on, and how that is saved and restored."""

    def __init__(
        self, name: str, seed: int, num_classes: int, n_train: int, normalise: Normaliser, config: TrainConfig
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.seed, self.n_train, self.normalise = config, seed, n_train, normalise
        self.device = normalise.device
        self.network: nn.Module = models.build(name, num_classes)
        self.macs = {size: efficiency.macs(self.network, (3, size, size)) for size in set(config.resolutions)}
        self.network.to(self.device).to(memory_format=torch.channels_last)
        if compute.compiles(self.device):
            self.network.compile()
        self.optimiser = build_optimiser(self.network, config)
        self.steps = steps_per_epoch(n_train, config.batch_size)
        self.history = History()
        self.epoch = 0  # finished epochs
        self.begin_epoch()

    def begin_epoch(self) -> None:
        self.step = 0  # finished steps of the epoch under way
        self.losses = torch.zeros(self.steps, device=self.device)  # a batch's sum, for each of them
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.seconds = self.cpu_seconds = 0.0  # spent on the finished steps
        self.joules: float | None = 0.0
        # What is random within an epoch (dropout) follows from the seed and the epoch, not from what went before.
        torch.manual_seed(int(np.random.default_rng([self.seed, self.epoch, 1]).integers(2**62)))

    def state(self) -> dict[str, object]:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": vars(self.history),
            **{name: getattr(self, name) for name in (*_COUNTS, "losses", "correct")},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }

    def restore(self, state: dict[str, object]) -> None:
        self.network.load_state_dict(state["network"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.history = History(**state["history"])  # type: ignore[arg-type]
        for name in _COUNTS:
            setattr(self, name, state[name])
        self.losses, self.correct = (state[name].to(self.device) for name in ("losses", "correct"))  # type: ignore[attr-defined]
        torch.set_rng_state(state["random"])  # type: ignore[arg-type]
        torch.cuda.set_rng_state_all(state["random_cuda"]) if state["random_cuda"] else None  # type: ignore[arg-type]

    def inputs(self, images: Tensor) -> Tensor:
        """What the network trains on in the epoch under way, of (n, H, W, 3) uint8 images: (n, 3, h, w) float32."""
        inputs: Tensor = self.normalise(images)
        if (size := resolution(self.config, self.epoch)) != images.shape[1]:
            inputs = interpolate(inputs, size=(size, size), mode="bilinear", antialias=True)
        return inputs

    def train_batch(self, images: Tensor, labels: Tensor) -> None:
        """One optimiser step on (n, H, W, 3) uint8 images and (n,) int64 labels."""
        rate = learning_rate(self.config, self.epoch * self.steps + self.step, self.config.epochs * self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        inputs = self.inputs(images)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.network(inputs)
            loss = cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.losses[self.step] = loss.detach() * len(labels)
        self.correct += (logits.detach().argmax(1) == labels).sum()
        self.step += 1

    def epoch_macs(self, epoch: int) -> int:
        """MACs of training in epoch `epoch` (from 0): the backward pass computes gradients for inputs and for weights,
        each at the price of a forward pass."""
        return 3 * self.n_train * self.macs[resolution(self.config, epoch)]

    def figures(self, validation: Split) -> dict[str, float]:
        """The epoch's row of the history: what its batches gave, and the network measured on the validation images."""
        logits = infer(self.network, validation.images, self.normalise)
        if not np.isfinite(logits).all():  # the last step's weights, whose loss no step has looked at
            raise UserError(
                f"after epoch {self.epoch + 1} the network's logits of the validation images are not all finite; "
                f"a lower train.learning_rate (now {self.config.learning_rate}) is the usual cure"
            )
        labels = np.asarray(validation.labels)
        total_steps = self.config.epochs * self.steps
        return {
            "epoch": self.epoch + 1,
            "learning_rate": learning_rate(self.config, (self.epoch + 1) * self.steps - 1, total_steps),
            "train_macs": self.epoch_macs(self.epoch),
            "train_loss": self.losses.sum().item() / self.n_train,
            "train_top1": self.correct.item() / self.n_train,
            "validation_loss": accuracy.cross_entropy(logits, labels),
            "validation_top1": accuracy.top_k(logits, labels, 1),
            "validation_top5": accuracy.top_k(logits, labels, 5),
        }

    def end_epoch(self, row: dict[str, float]) -> None:
        """Add the epoch to the history and begin the next one."""
        self.history.rows.append(row)
        self.history.seconds.append(self.seconds)
        self.history.cpu_seconds.append(self.cpu_seconds)
        self.history.joules.append(self.joules)
        self.epoch += 1
        self.begin_epoch()

    def spend(self, seconds: float, cpu_seconds: float, joules: float | None) -> None:
        """Add what the latest steps took to what the epoch has spent."""
        self.seconds += seconds
        self.cpu_seconds += cpu_seconds
        self.joules = None if self.joules is None or joules is None else self.joules + joules

    def check_losses(self) -> None:
        """Raise UserError, naming epoch and step, if a loss of this epoch is not finite."""
        finite = torch.isfinite(self.losses[: self.step])
        if not finite.all():
            step = int(finite.int().argmin())
            raise UserError(
                f"the loss is {self.losses[step].item()} at epoch {self.epoch + 1}, step {step + 1} of {self.steps}; "
                f"a lower train.learning_rate (now {self.config.learning_rate}) is the usual cure"
            )


def fit(
    trainer: Trainer,
    images_of: Callable[[int], np.ndarray],
    labels: np.ndarray,
    validation: Split,
    checkpoints: Checkpoints,
    on_epoch: Callable[[History], None] = lambda history: None,
    *,
    checkpoint_minutes: float = math.inf,
) -> None:
    """Train to the last epoch, from the newest checkpoint if there is one.

    images_of: gives the (N, H, W, 3) uint8 training images that an epoch (from 0) reads. labels: (N,) int64.
    on_epoch: given the history so far when training starts or goes on, and after each epoch.
    checkpoint_minutes: between checkpoints within an epoch, whose end makes one anyway.
    Raises UserError if a loss is not finite, Interrupted (with a checkpoint written) after SIGINT or SIGTERM.
    """
    config = trainer.config
    saved = checkpoints.load()
    if saved is not None:
        trainer.restore(saved)
        print(f"going on from the checkpoint: epoch {trainer.epoch + 1}, step {trainer.step + 1}", file=sys.stderr)
    on_epoch(trainer.history)

    stopwatch = Stopwatch(trainer.device)

    def save() -> None:
        checkpoints.save(trainer.state(), trainer.epoch, trainer.step)

    images_done = trainer.epoch * trainer.n_train + trainer.step * config.batch_size
    total = config.epochs * trainer.n_train
    bar = tqdm(total=total, initial=images_done, unit=" images", mininterval=1.0, disable=None)
    with noting_signals() as stop, bar:
        while trainer.epoch < config.epochs:
            bar.set_description(f"epoch {trainer.epoch + 1}/{config.epochs}")
            turns = epoch_turns(trainer.seed, trainer.epoch, trainer.n_train, trainer.steps)
            images = resident(images_of(trainer.epoch), trainer.device)
            stopwatch.lap()  # the epoch's time begins here
            saved_at = time.monotonic()
            for batch, targets in batches(images, labels, turns[trainer.step :], trainer.device):
                trainer.train_batch(batch, targets)
                bar.update(len(targets))
                if trainer.step % LOOK_EVERY == 0 or trainer.step == trainer.steps:
                    trainer.check_losses()
                    seen = trainer.n_train * trainer.step / trainer.steps
                    loss, top1 = trainer.losses.sum().item() / seen, trainer.correct.item() / seen
                    bar.set_postfix_str(f"loss {loss:.3f}, top-1 {top1:.1%}", refresh=False)
                    trainer.spend(*stopwatch.lap())
                due = time.monotonic() - saved_at > 60 * checkpoint_minutes
                if stop or (due and trainer.step < trainer.steps):
                    trainer.check_losses()
                    trainer.spend(*stopwatch.lap())
                    save()
                    saved_at = time.monotonic()
                if stop:
                    raise Interrupted(stop[0])
            trainer.end_epoch(trainer.figures(validation))
            save()
            row, rate = trainer.history.rows[-1], trainer.n_train / trainer.history.seconds[-1]
            tqdm.write(
                f"epoch {row['epoch']}/{config.epochs}: loss {row['train_loss']:.3f}, top-1 {row['train_top1']:.2%} "
                f"(validation {row['validation_loss']:.3f}, {row['validation_top1']:.2%}), {rate:,.0f} images a second",
                file=sys.stderr,
            )
            on_epoch(trainer.history)
            if stop and trainer.epoch < config.epochs:
                raise Interrupted(stop[0])
