"""The project's training, as pipeline/train.py runs it, limited to the last steps of an epoch."""

import contextlib
import io
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.data import Data
from frugalnet import compute, tracking
from frugalnet.config import Params
from frugalnet.training import runs
from frugalnet.training.batches import Examples
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.job import Job
from frugalnet.training.loop import fit
from frugalnet.training.trainer import History, Trainer


def new_trainer(model: str, data: Data, params: Params, device: torch.device) -> Trainer:
    return job_of(model, data, params).trainer(device)


def job_of(model: str, data: Data, params: Params) -> Job:
    return Job(model, 0, params.train, data.dataset, data.views)


def logger(model: str, data: Data, params: Params, device: torch.device, root: Path) -> Callable[[History], None]:
    """The `on_epoch` callback of `fit`: logs the history to an MLflow database under `root`, which is created here."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # hides a message per new database
    environment = compute.bits_depend_on(device, params.compute)
    run = runs.describe(job_of(model, data, params), environment)
    tracked = tracking.training_run(root, run, tracking.provenance())
    tracked.log_history([])
    return lambda history: tracked.log_history(history.rows)


def end_of_epoch(
    trainer: Trainer, data: Data, epoch: int, steps: int, folder: Path, on_epoch: Callable[[History], None]
) -> tuple[float, float]:
    """Train the last `steps` steps of `epoch`, then evaluate all validation images, write a checkpoint and log.

    Returns the images per second of the steps, and the seconds of everything else.
    """
    trainer.config = trainer.config.model_copy(update={"epochs": epoch + 1})
    trainer.epoch, trainer.step = epoch, trainer.steps - steps
    sizes = [len(turn) for turn in np.array_split(np.arange(trainer.n_train), trainer.steps)]
    checkpoints = Checkpoints(folder / "checkpoints")
    with contextlib.redirect_stderr(io.StringIO()):  # hides the line printed per epoch
        started = time.monotonic()
        examples = Examples(
            lambda epoch: data.views.of_epoch(epoch, data.dataset.train.images), np.array(data.dataset.train.labels)
        )
        fit(trainer, examples, data.dataset.validation, checkpoints, on_epoch)
        total = time.monotonic() - started
    checkpoints.remove()
    seconds = trainer.history.seconds[-1]
    return sum(sizes[-steps:]) / seconds, total - seconds
