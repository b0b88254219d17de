"""What the workers of the distributed tests do: some trainings, one after the other, in one group of processes."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from test_training import RECIPE, TRAIN, VALIDATION, images_of

from frugalnet.distributed import launch
from frugalnet.distributed.launch import Ddp, GlobalNet, Peers, Resumption
from frugalnet.distributed.synchronous import Worker, fit
from frugalnet.errors import UserError
from frugalnet.training.batches import Normaliser
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.loop import Interrupted
from frugalnet.training.trainer import TrainConfig, Trainer

COMMON = {
    "workers": 2,
    "batch": "divided",
    "learning_rate_scale": 1.0,
    "backend": "auto",
    "timeout_minutes": 5.0,
    "restarts": 0,
}
PLAIN = {"batch_norm": "averaged", "warmup": 0, "warmup_exchanges": 1, "outer_momentum": 0}  # averages
GLOBAL_NET = GlobalNet(
    kind="global_net", period=1, exchange="synchronous", momentum="averaged", staleness=16, **PLAIN, **COMMON
)
DDP = Ddp(kind="ddp", sync_batch_norm=True, **COMMON)


def new_trainer(recipe: TrainConfig = RECIPE, count: int = len(TRAIN.labels)) -> Trainer:
    torch.set_num_threads(1)
    return Trainer("residual", 0, 4, count, Normaliser([120.0] * 3, [60.0] * 3, torch.device("cpu")), recipe)


def train(peers: Peers, folder: Path, config: launch.Workers, recipe: TrainConfig, count: int) -> None:
    """Train as one of the peers; leaves the weights, the history and what was booked in `folder`/<rank>.pt."""
    trainer = new_trainer(config.recipe(recipe), count)
    own = Checkpoints(folder / "checkpoints" / f"host-{os.environ['GROUP_RANK']}")
    worker = Worker(trainer, peers, config, lambda epoch: images_of(epoch)[:count], TRAIN.labels[:count], VALIDATION)
    peers.costs = []
    started = time.monotonic()
    fit(worker, Resumption(folder / "checkpoints", own, peers))
    folder.mkdir(exist_ok=True)
    left = {
        "weights": dict(trainer.network.state_dict()),
        "optimiser": trainer.optimiser.state_dict(),
        "rows": trainer.history.rows,
        "costs": peers.costs,
        "seconds": time.monotonic() - started,
    }
    torch.save(left, folder / f"{peers.rank}.pt")


def misbehave(peers: Peers, folder: Path, what: dict[str, Any]) -> None:
    """From now on each worker sleeps its `seconds` for every image; or worker `rank` gets a signal or fails, once, at
    a step of an epoch, when the checkpoint of that epoch's beginning is written."""
    train_batch = Trainer.train_batch

    def misbehaving(trainer: Trainer, images: torch.Tensor, labels: torch.Tensor) -> None:
        time.sleep(what["seconds"][peers.rank] * len(labels) if "seconds" in what else 0)
        train_batch(trainer, images, labels)
        here = (peers.rank, trainer.epoch, trainer.step) == (what.get("rank"), what.get("epoch"), what.get("step"))
        if here and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            while peers.rank and not list(folder.glob(f"checkpoints/host-0/{trainer.epoch:05d}-*.ckpt")):
                time.sleep(0.01)
            if what["signal"] == "none":
                raise OSError("the disk is broken")
            os.kill(os.getpid(), signal.Signals[what["signal"]])

    Trainer.train_batch = misbehaving  # type: ignore[method-assign]


def work(folder: str) -> str | None:
    """Each training that `folder`/trainings.json holds: its name → configuration, recipe, number of images."""
    trainings = json.loads((Path(folder) / "trainings.json").read_text())
    peers: Peers | None = None
    for name, (config, recipe, count, fault) in trainings.items():
        config = (GlobalNet if config["kind"] == "global_net" else Ddp).model_validate(config)
        peers = peers or Peers(config, "gloo")
        peers.store = dist.PrefixStore(name, peers.store)  # what one training said is nothing to the next
        if fault:
            misbehave(peers, Path(folder) / name, fault)
        try:
            train(peers, Path(folder) / name, config, TrainConfig.model_validate(recipe), count)
        except UserError as refusal:
            return str(refusal)
        except Interrupted as stop:
            print(stop, file=sys.stderr)
            sys.exit(stop.exit_code)
    peers.leave()
    return None


if __name__ == "__main__":
    if launch.launched():
        sys.exit(work(sys.argv[1]))
    with_workers = json.loads((Path(sys.argv[1]) / "trainings.json").read_text()).values()
    configuration = next(iter(with_workers))[0]
    launch.launch((GlobalNet if "period" in configuration else Ddp).model_validate(configuration), work, sys.argv[1])
