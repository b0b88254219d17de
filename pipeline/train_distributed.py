"""Train one architecture with one seed and several workers: what pipeline.train does where `distributed` says so."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frugalnet import compute, config, tracking
from frugalnet.data import arrays
from frugalnet.distributed import launch
from frugalnet.distributed.synchronous import Worker, fit
from frugalnet.errors import UserError
from frugalnet.training import runs
from frugalnet.training.batches import Normaliser, Views
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.loop import Interrupted
from frugalnet.training.trainer import Trainer


def main(params: config.Params, model: str, seed: int) -> None:
    """Start the workers on this machine; or be one, where torchrun has started this process."""
    if launch.launched():
        if refusal := work(model, seed):
            raise UserError(refusal)
        return
    task = _Task(params, model, seed)
    with runs.checkpoints(tracking.project_root(), task.run).locked():
        launch.launch(task.workers, work, model, seed)


def work(model: str, seed: int) -> str | None:
    """What each worker does; returns what a person must mend, which starting again would not."""
    try:
        _train(model, seed)
    except UserError as refusal:
        return str(refusal)
    except Interrupted as stop:
        sys.exit(stop.exit_code)
    return None


class _Task:
    """What is to be trained, on what and with what, as each worker and their parent make it out."""

    def __init__(self, params: config.Params, model: str, seed: int) -> None:
        assert not isinstance(params.distributed, launch.Single)
        self.workers, self.train = params.distributed, params.train
        compute_config = launch.threads(params.compute, self.workers.workers)
        self.device = compute.setup(compute_config)
        self.data, self.views = arrays.load(Path("data/arrays")), Views(Path("data/views"))
        self.backend = launch.check(self.workers, self.train, self.device, len(self.data.train.labels))
        environment, identity = compute.bits_depend_on(self.device, compute_config), launch.identity(self.workers)
        self.run = runs.describe(model, seed, self.data, self.views.sha256, self.train, environment, identity)

    def refusal(self, present: int) -> str | None:
        """What a person must mend before this many workers can train."""
        if present > self.workers.workers:
            return f"{present} workers were started where launch.workers says {self.workers.workers}"
        try:
            for epoch in range(min(self.train.epochs, len(self.views.sha256))):
                self.images_of(epoch)
        except UserError as error:
            return str(error)
        return None

    def images_of(self, epoch: int) -> np.ndarray:
        return self.views.of_epoch(epoch, self.data.train.images)


def _train(model: str, seed: int) -> None:
    task, host, place = _Task(config.load(), model, seed), os.environ["GROUP_RANK"], int(os.environ["LOCAL_RANK"])
    data, run, root = task.data, task.run, tracking.project_root()
    if task.device.type == "cuda":
        torch.cuda.set_device(place)
    folder = runs.checkpoints(root, run).folder
    checkpoints = Checkpoints(folder / f"host-{host}")
    with checkpoints.locked() if place == 0 else nullcontext():
        peers = launch.Peers(task.workers, task.backend)
        peers.agree(run["fingerprint"], task.refusal(peers.world))
        normalise = Normaliser(data.mean, data.std, task.device)
        recipe = task.workers.recipe(task.train)
        trainer = Trainer(model, seed, len(data.class_ids), len(data.train.labels), normalise, recipe)
        labels = np.array(data.train.labels)
        worker = Worker(trainer, peers, task.workers, task.images_of, labels, data.validation)
        resumption = launch.Resumption(folder, checkpoints, peers)
        if peers.rank == 0:
            runs.tell_of_other_checkpoints(root, run)
            _track(run, worker, resumption, root)
        else:
            fit(worker, resumption)
        peers.leave()


def _track(run: dict[str, Any], worker: Worker, resumption: launch.Resumption, root: Path) -> None:
    """Train as worker 0, which logs and writes for all."""
    trainer, peers = worker.trainer, worker.peers
    print(f"{runs.name(run)} on {run['data']}, {peers.world} workers; its bits depend on {run['environment']}")
    provenance = tracking.provenance()
    tracked = tracking.training_run(root, run, provenance)
    try:
        fit(worker, resumption, lambda history: tracked.log_history(history.rows))
    except Interrupted as stop:
        tracked.finish("KILLED")
        print(f"{runs.name(run)}: {stop}", file=sys.stderr)
        raise
    except Exception:
        tracked.finish("FAILED")
        raise
    timing = {"exchange": peers.costs, **provenance, "machine": compute.describe_machine(trainer.device)}
    tracked.identify("weights_sha256", runs.write_results(run, trainer, timing))
    tracked.finish()
