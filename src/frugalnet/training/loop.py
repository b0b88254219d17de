"""The training loop of a single process: epochs, checkpoints, progress, and what happens on a signal."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

from tqdm import tqdm

from frugalnet.data.arrays import Split
from frugalnet.errors import Interrupted
from frugalnet.training.batches import Batch, Examples, Resident, batches, images_of_steps
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.trainer import CHECK_EVERY_STEPS, History, Trainer


def fit(
    trainer: Trainer,
    examples: Examples,
    validation: Split,
    checkpoints: Checkpoints,
    on_epoch: Callable[[History], None] = lambda history: None,
    checkpoint_minutes: float = math.inf,
) -> None:
    """Train to the last epoch, from the newest checkpoint if there is one.

    on_epoch: called with the history when training starts or resumes, and after each epoch.
    checkpoint_minutes: time between checkpoints within an epoch; the end of an epoch always writes one.
    Raises UserError if a loss is not finite, and Interrupted after SIGINT or SIGTERM.
    """
    if saved := checkpoints.load():
        trainer.restore(saved)
        print(f"resuming from the checkpoint: epoch {trainer.epoch + 1}, step {trainer.step + 1}", file=sys.stderr)
    on_epoch(trainer.history)
    resident = Resident(trainer.device)
    with caught_signals() as signals, _Progress(trainer) as progress:
        while trainer.epoch < trainer.config.epochs:
            indices = examples.indices(trainer.seed, trainer.epoch, trainer.n_train, trainer.steps)
            images = resident.of(examples.images_of(trainer.epoch))
            logits = examples.taught(trainer.epoch)
            while trainer.step < trainer.steps:
                due = time.monotonic() + 60 * checkpoint_minutes
                rest = progress.of(batches(images, examples.labels, indices[trainer.step :], trainer.device, logits))
                trainer.train_steps(rest, partial(_pauses, trainer, signals, due))
                trainer.check_losses()
                if trainer.failure:
                    raise trainer.failure
                if signals or trainer.step < trainer.steps:
                    checkpoints.save(trainer.state(), trainer.epoch, trainer.step)
                if signals:
                    raise Interrupted(signals[0])
            trainer.end_epoch(trainer.figures(validation))
            checkpoints.save(trainer.state(), trainer.epoch, trainer.step)
            progress.end_epoch()
            on_epoch(trainer.history)
            if signals and trainer.epoch < trainer.config.epochs:
                raise Interrupted(signals[0])


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list that this yields, in place of their usual effect."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pauses(trainer: Trainer, signals: list[int], due: float) -> bool:
    """Whether training stops here: to end, or to write a checkpoint that is due at a `time.monotonic`."""
    return bool(signals or trainer.failure or time.monotonic() > due)


class _Progress:
    """A progress bar on stderr (where that is a terminal), and a line for each finished epoch."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        done = trainer.epoch * trainer.n_train + self._seen()
        total = trainer.config.epochs * trainer.n_train
        self._bar = tqdm(total=total, initial=done, unit=" images", mininterval=1.0, disable=None)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def of(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; the bar moves on after each."""
        trainer = self._trainer
        self._bar.set_description(f"epoch {trainer.epoch + 1}/{trainer.config.epochs}")
        for batch in batches:
            yield batch
            self._bar.update(len(batch[0]))
            if trainer.step % CHECK_EVERY_STEPS == 0 and not self._bar.disable:
                seen = self._seen()
                loss, top1 = trainer.losses.sum().item() / seen, trainer.correct.item() / seen
                self._bar.set_postfix_str(f"loss {loss:.3f}, top-1 {top1:.1%}", refresh=False)

    def _seen(self) -> int:
        """The number of images in the finished steps of the epoch under way."""
        return images_of_steps(self._trainer.step, self._trainer.n_train, self._trainer.steps)

    def end_epoch(self) -> None:
        row = self._trainer.history.rows[-1]
        seconds = self._trainer.history.seconds[-1]
        tqdm.write(
            f"{epoch_line(row, self._trainer.config.epochs)}, {self._trainer.n_train / seconds:,.0f} images a second",
            file=sys.stderr,
        )


def epoch_line(row: dict[str, float], epochs: int) -> str:
    """What an epoch's row of the history says, in one line."""
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.3f}, top-1 {row['train_top1']:.2%} "
        f"(validation {row['validation_loss']:.3f}, {row['validation_top1']:.2%})"
    )
