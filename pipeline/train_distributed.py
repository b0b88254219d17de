"""Train one architecture with one seed and several workers: what pipeline.train does where `distributed` says so."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frugalnet import arrays, compute, config, distributed, efficiency, runs, tracking
from frugalnet.batches import Normaliser, Views
from frugalnet.checkpoint import Checkpoints
from frugalnet.errors import UserError
from frugalnet.global_network import Worker, fit
from frugalnet.training import Interrupted, Trainer


def main(params: config.Params, model: str, seed: str) -> None:
    """Start the workers on this machine; or be one, where torchrun has started this process."""
    if distributed.launched():
        if refusal := work(model, seed):
            raise UserError(refusal)
        return
    assert not isinstance(params.distributed, distributed.Single)
    n_train = len(arrays.load(Path("data/arrays")).train.labels)
    distributed.check(params.distributed, params.train, compute.setup(params.compute), n_train)
    distributed.launch(params.distributed, work, model, seed)


def work(model: str, seed: str) -> str | None:
    """What each worker does; returns what a person must mend, which starting again would not."""
    try:
        _train(model, int(seed))
    except UserError as refusal:
        return str(refusal)
    except Interrupted as stop:
        sys.exit(stop.exit_code)
    return None


def _train(model: str, seed: int) -> None:
    params, host, place = config.load(), os.environ["GROUP_RANK"], int(os.environ["LOCAL_RANK"])
    workers = params.distributed
    assert not isinstance(workers, distributed.Single)
    setting = distributed.threads(params.compute)
    device = compute.setup(setting)
    if device.type == "cuda":
        torch.cuda.set_device(place)
    data, views = arrays.load(Path("data/arrays")), Views(Path("data/views"))
    backend = distributed.check(workers, params.train, device, len(data.train.labels))
    environment, identity = compute.bits_depend_on(device, setting), distributed.identity(workers)
    run = runs.describe(model, seed, data, views.sha256, params.train, environment, identity)
    root = tracking.project_root()
    folder = runs.checkpoints(root, run).folder
    checkpoints = Checkpoints(folder / f"host-{host}")
    with checkpoints.locked() if place == 0 else nullcontext():
        peers = distributed.Peers(workers, backend)
        peers.agree(run["fingerprint"], _refusal(workers.workers, peers.world, views, data, params.train.epochs))
        normalise = Normaliser(data.mean, data.std, device)
        recipe = workers.recipe(params.train)
        trainer = Trainer(model, seed, len(data.class_ids), len(data.train.labels), normalise, recipe)
        labels = np.array(data.train.labels)
        worker = Worker(
            trainer, peers, workers, lambda epoch: views.of_epoch(epoch, data.train.images), labels, data.validation
        )
        resumption = distributed.Resumption(folder, checkpoints, peers)
        if peers.rank == 0:
            runs.tell_of_other_checkpoints(root, run)
            _track(run, worker, resumption, root)
        else:
            fit(worker, resumption)
        peers.leave()


def _track(run: dict[str, Any], worker: Worker, resumption: distributed.Resumption, root: Path) -> None:
    """Train as worker 0, which logs and writes for all."""
    trainer, peers = worker.trainer, worker.peers
    print(f"{runs.name(run)} on {run['data']}, {peers.world} workers; its bits depend on {run['environment']}")
    tracked, provenance = tracking.training_run(root, run), tracking.provenance()
    try:
        fit(worker, resumption, lambda history: tracked.log_history(history.rows))
    except Interrupted as stop:
        tracked.finish("KILLED")
        print(f"{runs.name(run)}: {stop}", file=sys.stderr)
        raise
    except Exception:
        tracked.finish("FAILED")
        raise
    timing = {"exchange": peers.costs, **provenance, "machine": efficiency.describe_machine(trainer.device)}
    tracked.identify("weights_sha256", runs.write_results(run, trainer, timing))
    tracked.finish()


def _refusal(expected: int, present: int, views: Views, data: arrays.Dataset, epochs: int) -> str | None:
    """What a person must mend before this worker can train."""
    if present > expected:
        return f"{present} workers were started where distributed.workers says {expected}"
    try:
        for epoch in range(min(epochs, len(views.sha256))):
            views.of_epoch(epoch, data.train.images)
    except UserError as error:
        return str(error)
    return None
