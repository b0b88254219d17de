"""Synchronous training: replicas that take every step together, or sub-models that average at the same time.

The paper's section 5.2: sub-models of one structure train independently; at the end of every T epochs they give their
parameters to a global network and take the updated ones.
"""

import signal
import sys
from collections.abc import Callable

from frugalnet.distributed.config import GlobalNet
from frugalnet.distributed.resume import Resumption
from frugalnet.distributed.worker import STATISTICS_IMAGES, Worker
from frugalnet.errors import Interrupted
from frugalnet.training.loop import caught_signals
from frugalnet.training.trainer import History

_FAILED = 255  # larger than every signal's number


def fit(worker: Worker, resumption: Resumption, on_epoch: Callable[[History], None] = lambda history: None) -> None:
    """Train to the last epoch, from the newest checkpoint if there is one. Worker 0 then holds the global network.

    on_epoch: called on worker 0, as by `training.loop.fit`. Raises as that does, on all workers.
    """
    trainer = worker.trainer
    config = worker.config
    saved, state = resumption.load()
    if state:
        worker.restore(state)
        if worker.peers.rank == 0:
            print(f"resuming from the checkpoint: epoch {trainer.epoch + 1}, step {trainer.step + 1}", file=sys.stderr)
    else:
        resumption.keep(worker.state())
    # What `caught_signals` goes back to after a Ctrl-C: another one, from torch's agent, must not interrupt the exit.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with caught_signals() as signals:
        if isinstance(config, GlobalNet) and config.exchange == "asynchronous":
            from frugalnet.distributed.asynchronous import Asynchronous

            Asynchronous(worker, config, resumption, saved, signals).train(on_epoch)
        else:
            _train(worker, resumption, signals, on_epoch)
    signal.signal(signal.SIGINT, before)


def _train(worker: Worker, resumption: Resumption, signals: list[int], on_epoch: Callable[[History], None]) -> None:
    trainer = worker.trainer
    peers = worker.peers
    config = worker.config
    period = config.period if isinstance(config, GlobalNet) else 1
    on_epoch(trainer.history)
    validated = trainer.history.rows[-1] if trainer.history.rows else worker.figures()
    while trainer.epoch < trainer.config.epochs:
        for until in worker.exchanges(trainer.epoch):
            _train_until(until, worker, resumption, signals)
            if until < trainer.steps:
                worker.exchange()
                worker.outer_step()
        if worker.replica is not None:
            worker.exchange()
        own = worker.figures()
        worker.raise_failures()
        figures, cpu_seconds = zip(*peers.gather((own, trainer.cpu_seconds)), strict=True)
        trainer.cpu_seconds = sum(cpu_seconds)
        trainer.joules = None  # a counter covers a GPU or a machine, so the workers' readings can't be added
        finished = trainer.epoch + 1
        is_last = finished == trainer.config.epochs
        averages = worker.warms_up(trainer.epoch) or finished % period == 0 or is_last
        if worker.replica is not None:
            validated = own
        elif averages:
            validated = _average(worker)
            if not is_last:
                worker.outer_step()
        trainer.end_epoch(worker.row(list(enumerate(figures)), validated))
        peers.end_costs()
        if averages:
            differ = isinstance(config, GlobalNet) and config.optimiser_state == "kept"
            resumption.keep(worker.state())
            resumption.save(peers.gather(worker.state()) if differ else None)
        worker.report_epoch()
        on_epoch(trainer.history)


def _train_until(until: int, worker: Worker, resumption: Resumption, signals: list[int]) -> None:
    """Train to step `until` of the epoch, then wait for all workers. If one has failed or got a signal, all stop."""
    trainer = worker.trainer
    peers = worker.peers

    def code() -> int:
        if trainer.failure:
            return _FAILED
        return signals[0] if signals else 0

    # Replicas must all stop after the same step.
    worker.train_shard(peers.rank, code if worker.replica is None else lambda: peers.all_reduce_max(code()), until)
    agreed = peers.all_reduce_max(code())
    if agreed == _FAILED:
        worker.raise_failures()
    if agreed:
        resumption.save(peers.gather(worker.state()))
        raise Interrupted(agreed)


def _average(worker: Worker) -> dict[str, float]:
    """Average the sub-models, measure the global network's statistics, and return its figures."""
    peers = worker.peers
    worker.exchange()
    if worker.measure_statistics(peers.rank, STATISTICS_IMAGES // peers.world):
        peers.average(worker.statistics(), 1 / peers.world)
    measured = worker.figures() if peers.rank == 0 else None
    worker.raise_failures()
    return peers.broadcast(measured, 0)
