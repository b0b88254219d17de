"""A distributed training run: what the command starts, and what each worker then does."""

import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from frugalnet import compute, project, tracking
from frugalnet.compute_config import ComputeConfig
from frugalnet.distributed import launch
from frugalnet.distributed.config import LaunchConfig, Workers
from frugalnet.distributed.exchange import Peers
from frugalnet.distributed.resume import Resumption
from frugalnet.distributed.synchronous import fit
from frugalnet.distributed.worker import Worker
from frugalnet.errors import Interrupted, UserError
from frugalnet.training import runs
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.config import TrainConfig


@dataclass(frozen=True)
class Task:
    """What to train. Each worker receives it and loads the data by itself."""

    model: str
    seed: int
    train: TrainConfig
    workers: Workers
    launch: LaunchConfig
    compute: ComputeConfig


class _Inputs:
    """A task's device, data and identity."""

    def __init__(self, task: Task) -> None:
        config = launch.divide_cores(task.compute, task.workers.workers)
        self.device = compute.setup(config)
        self.job = runs.job(task.model, task.seed, task.train)
        n_train = len(self.job.data.train.labels)
        self.backend = launch.check_workers(task.workers, task.launch, task.train, self.device, n_train)
        environment = compute.bits_depend_on(self.device, config)
        self.run = runs.describe(self.job, environment, distributed=launch.identity(task.workers))
        self.root = project.project_root()
        self.checkpoints = runs.checkpoints(self.root, self.run)

    def refusal(self, task: Task, started: int) -> str | None:
        """Why so many workers can't train this, if the user has to do something about it."""
        if started > task.workers.workers:
            return f"{started} workers were started, but distributed.workers is {task.workers.workers}"
        try:
            for epoch in range(min(task.train.epochs, len(self.job.views.sha256))):
                self.job.images_of(epoch)
        except UserError as error:
            return str(error)
        return None


def train(task: Task) -> None:
    """Start the workers on this machine and wait for them; or be one, if torchrun started this process."""
    if dist.is_torchelastic_launched():
        if message := work(task):
            raise UserError(message)
        return
    with _Inputs(task).checkpoints.locked():
        launch.start(task.workers.workers, task.launch, work, task)


def work(task: Task) -> str | None:
    """Be one of the workers. Returns a message if only the user can help: the agent must not start workers again."""
    try:
        _work(task)
    except UserError as error:
        return str(error)
    except Interrupted as stop:
        if os.environ["RANK"] == "0":
            print(f"train: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    return None


def _work(task: Task) -> None:
    inputs = _Inputs(task)
    job = inputs.job
    device = inputs.device
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        torch.cuda.set_device(local_rank)
    own = Checkpoints(inputs.checkpoints.folder / f"host-{os.environ['GROUP_RANK']}")
    with own.locked() if local_rank == 0 else nullcontext():
        peers = Peers(task.launch, inputs.backend)
        peers.check_same_run(inputs.run.fingerprint, inputs.refusal(task, peers.world))
        shared = replace(job, recipe=task.workers.recipe(task.train))
        trainer = shared.trainer(device, compute.compile_mode(device, task.compute))
        labels = job.examples().labels
        worker = Worker(trainer, peers, task.workers, job.images_of, labels, job.data.validation)
        resumption = Resumption(inputs.checkpoints.folder, own, peers)
        if peers.rank == 0:
            _fit_and_write(inputs, worker, resumption)
        else:
            fit(worker, resumption)
        dist.destroy_process_group()


def _fit_and_write(inputs: _Inputs, worker: Worker, resumption: Resumption) -> None:
    """Train as worker 0, which logs and writes the results."""
    run = inputs.run
    root = inputs.root
    peers = worker.peers
    provenance = project.provenance()
    runs.tell_of_other_checkpoints(root, run)
    print(f"{run.name} on {run.data}, {peers.world} workers; its bits depend on {run.environment}")
    with tracking.training_run(root, run, provenance) as tracked:
        fit(worker, resumption, lambda history: tracked.log_history(history.rows))
        timing = {"exchange": peers.costs, **provenance, "machine": compute.describe_machine(inputs.device)}
        tracked.identify("weights_sha256", runs.write_results(run, worker.trainer, timing))
