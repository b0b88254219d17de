"""Training: one network, one seed, from random weights to the last epoch, exactly resumable at any step."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np
import torch
from tqdm import tqdm

from frugalnet.data.arrays import Split
from frugalnet.metrics import energy
from frugalnet.training.batches import batches, epoch_turns, resident
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.trainer import History, Trainer

LOOK_EVERY = 20  # steps between looks at loss, accuracy and energy: on a GPU each look waits for it


class Interrupted(Exception):
    """A signal asked the run to stop; its checkpoint is written."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; a checkpoint is written: run it again to go on")
        self.exit_code = 128 + number


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
        self._meter = energy.EnergyMeter(device)
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def lap(self) -> tuple[float, float, float | None]:
        """What was spent since the last lap."""
        joules = self._meter.lap()
        wall, cpu, self._wall, self._cpu = self._wall, self._cpu, time.monotonic(), time.process_time()
        return self._wall - wall, self._cpu - cpu, joules


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
