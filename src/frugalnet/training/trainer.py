"""A network in training: its state, a step, an epoch's figures. `loop` and `frugalnet.distributed` drive it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from frugalnet import models
from frugalnet.data.arrays import Split
from frugalnet.errors import UserError
from frugalnet.metrics import accuracy, counts
from frugalnet.metrics.energy import Stopwatch
from frugalnet.training.batches import Batch, Normaliser, steps_per_epoch
from frugalnet.training.config import TrainConfig
from frugalnet.training.distillation import divergence
from frugalnet.training.inference import infer
from frugalnet.training.optim import build_optimiser, learning_rate

CHECK_EVERY_STEPS = 20  # between checks of the losses and readings of the energy counter: each waits for a GPU
_COUNTS = ("epoch", "step", "seconds", "cpu_seconds", "joules")  # a Trainer's attributes in its checkpoints


def resolution(config: TrainConfig, epoch: int) -> int:
    """The size, in pixels a side, of epoch `epoch` (from 0): `resolutions` are spread evenly over the epochs."""
    return config.resolutions[epoch * len(config.resolutions) // config.epochs]


def _moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights and running statistics, in `.module`."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)


@dataclass
class History:
    """Each finished epoch: a row of figures, and what its training steps took.

    cpu_seconds: of all threads. None: not measured; joules need a counter that could be read over the whole epoch.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float | None] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)

    def timing(self) -> dict[str, list[Any]]:
        """epoch_seconds, epoch_cpu_seconds, epoch_joules: as in timing.json."""
        return {f"epoch_{key}": values for key, values in vars(self).items() if key != "rows"}


class Trainer:
    """A network and everything that its next step depends on, which can be saved and restored exactly."""

    def __init__(
        self,
        name: str,
        seed: int,
        num_classes: int,
        n_train: int,
        normalise: Normaliser,
        config: TrainConfig,
    ) -> None:
        torch.manual_seed(seed)
        self.config = config
        self.seed = seed
        self.n_train = n_train
        self.normalise = normalise
        self.device = normalise.device
        self.network: nn.Module = models.build(name, num_classes)
        self.macs = {size: counts.macs(self.network, (3, size, size)) for size in set(config.resolutions)}
        self.network.to(self.device).to(memory_format=torch.channels_last)
        self.average = _moving_average(self.network, config.ema_decay) if config.ema_decay else None
        self.optimiser = build_optimiser(self.network, config)
        self.steps = steps_per_epoch(n_train, config.batch_size)
        self.history = History()
        self.class_weights: Tensor | None = None  # in the loss, (classes,)
        self.failure: UserError | None = None  # set by `check_losses`
        self._stopwatch = Stopwatch(self.device)
        self.epoch = 0  # finished epochs
        self.begin_epoch()

    def compile(self, mode: str) -> None:
        """Compile the network. mode: of torch.compile."""
        # Every size of batch and image is compiled for itself: there are few, and kernels for any size are slower.
        self.network.compile(mode=mode, dynamic=False)

    def begin_epoch(self) -> None:
        self.step = 0  # finished steps of the epoch under way
        self.losses = torch.zeros(self.steps, device=self.device)  # summed over each step's batch
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.seconds = self.cpu_seconds = 0.0  # of the finished steps
        self.joules: float | None = 0.0
        # Randomness within an epoch (dropout) is a function of seed and epoch, not of the epochs before.
        torch.manual_seed(int(np.random.default_rng([self.seed, self.epoch, 1]).integers(2**62)))

    def state(self) -> dict[str, object]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimiser": self.optimiser.state_dict(),
            "history": vars(self.history),
            **{name: getattr(self, name) for name in (*_COUNTS, "losses", "correct")},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, object]) -> None:
        self.network.load_state_dict(state["network"])  # type: ignore[arg-type]
        if self.average:
            self.average.load_state_dict(state["average"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.history = History(**state["history"])  # type: ignore[arg-type]
        for name in _COUNTS:
            setattr(self, name, state[name])
        self.losses, self.correct = (state[name].to(self.device) for name in ("losses", "correct"))  # type: ignore[attr-defined]
        torch.set_rng_state(state["random"])  # type: ignore[arg-type]
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.device)  # type: ignore[arg-type]

    @property
    def result(self) -> nn.Module:
        """The network that is evaluated and stored: the moving average, if the recipe has one."""
        return self.average.module if self.average else self.network

    def inputs(self, images: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 images → the network's (n, 3, h, w) float32 inputs, at the current epoch's size."""
        inputs: Tensor = self.normalise(images)
        if (size := resolution(self.config, self.epoch)) != images.shape[1]:
            inputs = interpolate(inputs, size=(size, size), mode="bilinear", antialias=True)
        return inputs

    def train_batch(self, images: Tensor, labels: Tensor, taught: Tensor | None = None) -> None:
        """One optimiser step on (n, H, W, 3) uint8 images, (n,) int64 labels and a teacher's (n, classes) logits."""
        rate = learning_rate(self.config, self.epoch * self.steps + self.step, self.config.epochs * self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        inputs = self.inputs(images)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.network(inputs)
            loss = cross_entropy(logits, labels, self.class_weights, label_smoothing=self.config.label_smoothing)
            if taught is not None:
                own = self.config.distillation
                loss = (1 - own) * loss + own * divergence(logits, taught, self.config.temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        if self.average:
            self.average.update_parameters(self.network)
        self.losses[self.step] = loss.detach() * len(labels)
        self.correct += (logits.detach().argmax(1) == labels).sum()
        self.step += 1

    def train_steps(self, batches: Iterable[Batch], stop: Callable[[], int]) -> int:
        """Take one step per batch until none is left or `stop` returns a code other than 0; return that code, or 0.

        stop: called after each step. Losses are checked at intervals: see `check_losses`.
        """
        self._stopwatch.lap()
        code = 0
        checked = True
        for batch in batches:
            self.train_batch(*batch)
            if checked := self.step % CHECK_EVERY_STEPS == 0 or self.step == self.steps:
                self.check_losses()
                self._book()
            if code := stop():
                break
        if not checked:
            self._book()
        return code

    def epoch_macs(self, epoch: int) -> int:
        """MACs of training in epoch `epoch` (from 0), three times the forward pass's: the backward pass computes
        gradients of inputs and of weights, each as costly as the forward pass."""
        return 3 * self.n_train * self.macs[resolution(self.config, epoch)]

    def figures(self, validation: Split) -> dict[str, float]:
        """The epoch's row of the history: loss and accuracy in training, and on the validation images.

        Raises UserError if the network's logits are not finite.
        """
        logits = infer(self.result, validation.images, self.normalise)
        if not np.isfinite(logits).all():  # no loss has seen the last step's weights
            raise UserError(
                f"after epoch {self.epoch + 1} the logits of the validation images are not all finite; "
                f"lower train.learning_rate (now {self.config.learning_rate})"
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

    def check_losses(self) -> None:
        """Set `failure`, naming epoch and step, if a loss of this epoch is not finite. Several workers then agree."""
        finite = torch.isfinite(self.losses[: self.step])
        if self.failure is None and not finite.all():
            step = int(finite.int().argmin())
            self.failure = UserError(
                f"the loss is {self.losses[step].item()} at epoch {self.epoch + 1}, step {step + 1} of {self.steps}; "
                f"lower train.learning_rate (now {self.config.learning_rate})"
            )

    def _book(self) -> None:
        """Add the time and energy of the latest steps to the epoch's."""
        seconds, cpu_seconds, joules = self._stopwatch.lap()
        self.seconds += seconds
        self.cpu_seconds += cpu_seconds
        self.joules = None if self.joules is None or joules is None else self.joules + joules
