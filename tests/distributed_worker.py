"""What the workers of the distributed tests run: several trainings, one after another, in one group of processes."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from pydantic import BaseModel, Field
from tiny import RECIPE, TRAIN, VALIDATION, images_of
from torch import nn

from frugalnet import models
from frugalnet.distributed import launch
from frugalnet.distributed.config import Ddp, GlobalNet, LaunchConfig
from frugalnet.distributed.exchange import Cost, Peers
from frugalnet.distributed.resume import Resumption
from frugalnet.distributed.synchronous import fit
from frugalnet.distributed.worker import Worker
from frugalnet.errors import Interrupted, UserError
from frugalnet.training.batches import Normaliser
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.config import TrainConfig
from frugalnet.training.trainer import Trainer

EVEN, UNEVEN = 160, 157  # images; the second leads to batches and shards of unequal sizes


class Fault(BaseModel):
    """What goes wrong in a training: each worker sleeps for some seconds per image; or workers `ranks`, once, at a
    step of an epoch when the checkpoint of that epoch's beginning is written, get a signal, raise an error
    ("raise"), or lose their weights ("diverge")."""

    seconds: list[float] = []
    signal: str = "none"
    ranks: list[int] = [1]
    epoch: int = 1
    step: int = 3


class Training(BaseModel):
    config: Ddp | GlobalNet = Field(discriminator="kind")
    recipe: TrainConfig = RECIPE
    images: int = UNEVEN
    network: str = "residual"
    fault: Fault = Fault()
    resumes: str = ""  # the training whose checkpoints it uses; by default its own


class Trainings(BaseModel):
    """`fit` all of them in one group. The last one's failure or signal ends the group; others are recorded."""

    workers: int
    launch: LaunchConfig
    trainings: dict[str, Training]


def without_batch_norm(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, num_classes),
    )


def new_trainer(recipe: TrainConfig = RECIPE, count: int = EVEN, network: str = "residual") -> Trainer:
    torch.set_num_threads(1)
    plain = patch.object(models, "build", lambda name, num_classes: without_batch_norm(num_classes))
    with plain if network == "without batch norm" else nullcontext():
        return Trainer(network, 0, 4, count, Normaliser([120.0] * 3, [60.0] * 3, torch.device("cpu")), recipe)


@contextmanager
def faulty(fault: Fault, peers: Peers, once: Path, checkpoints: Path) -> Iterator[None]:
    train_batch = Trainer.train_batch

    def misbehaving(trainer: Trainer, images: torch.Tensor, labels: torch.Tensor) -> None:
        time.sleep(fault.seconds[peers.rank] * len(labels) if fault.seconds else 0)
        train_batch(trainer, images, labels)
        here = peers.rank in fault.ranks and (trainer.epoch, trainer.step) == (fault.epoch, fault.step)
        if here and fault.signal != "none" and not once.exists():
            while peers.rank and not list(checkpoints.glob(f"host-0/{trainer.epoch:05d}-*.ckpt")):
                time.sleep(0.01)
            once.touch()
            if fault.signal == "raise":
                raise OSError("the disk is broken")
            if fault.signal == "diverge":
                next(trainer.network.parameters()).data.fill_(torch.nan)
                return
            os.kill(os.getpid(), signal.Signals[fault.signal])

    with patch.object(Trainer, "train_batch", misbehaving):
        yield


def train(peers: Peers, folder: Path, name: str, training: Training) -> dict[str, Any]:
    """Train as one of the peers; what is then left."""
    config, count = training.config.model_copy(update={"workers": peers.world}), training.images
    trainer = new_trainer(config.recipe(training.recipe), count, training.network)
    checkpoints = folder / (training.resumes or name) / "checkpoints"
    own = Checkpoints(checkpoints / f"host-{os.environ['GROUP_RANK']}")
    worker = Worker(trainer, peers, config, lambda epoch: images_of(epoch)[:count], TRAIN.labels[:count], VALIDATION)
    peers.costs, peers.cost = [], Cost(peers.world)
    started = time.monotonic()
    with faulty(training.fault, peers, folder / name / f"{peers.rank}.fault", checkpoints):
        fit(worker, Resumption(checkpoints, own, peers))
    return {
        "weights": dict(worker.network.state_dict()),
        "optimiser": trainer.optimiser.state_dict(),
        "rows": trainer.history.rows,
        "costs": peers.costs,
        "seconds": time.monotonic() - started,
    }


def work(folder: str) -> str | None:
    """Run `folder`/trainings.json; leaves each worker's state, or what ended it, in `folder`/<name>/<rank>.pt."""
    all_of_them = Trainings.model_validate_json((Path(folder) / "trainings.json").read_text())
    peers = Peers(all_of_them.launch, "gloo")
    for name, training in all_of_them.trainings.items():
        peers.store = dist.PrefixStore(name, peers.store)  # the next training must not read the last one's keys
        left, out = {}, Path(folder) / name / f"{peers.rank}.pt"
        if out.exists():  # before a restart
            continue
        out.parent.mkdir(exist_ok=True)
        is_last = name == list(all_of_them.trainings)[-1]
        try:
            left = train(peers, Path(folder), name, training)
        except UserError as error:
            left["ended"] = str(error)
            if is_last:
                return str(error)
        except Interrupted as stop:
            left["ended"] = str(stop)
            signal.raise_signal(signal.SIGINT)  # torch's agent may pass Ctrl-C on late: it must not interrupt the exit
            if is_last:
                print(stop, file=sys.stderr)
                sys.exit(stop.exit_code)
        torch.save(left, out)
    dist.destroy_process_group()
    return None


if __name__ == "__main__":
    if dist.is_torchelastic_launched():
        sys.exit(work(sys.argv[1]))
    described = Trainings.model_validate_json((Path(sys.argv[1]) / "trainings.json").read_text())
    launch.start(described.workers, described.launch, work, sys.argv[1])
