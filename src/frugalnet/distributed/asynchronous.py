"""The asynchronous exchange: each worker pushes to and pulls from the global network without waiting for the others."""

import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from frugalnet.distributed.config import GlobalNet
from frugalnet.distributed.exchange import Cost, pack, unpack, within
from frugalnet.distributed.parameter_server import CPU, DONE, JOIN, STOP, Curves, GlobalNetwork
from frugalnet.distributed.resume import Resumption
from frugalnet.distributed.worker import STATISTICS_IMAGES, Worker
from frugalnet.errors import Interrupted, UserError
from frugalnet.training.trainer import History


class Asynchronous:
    """A worker of an asynchronous run."""

    def __init__(
        self, worker: Worker, config: GlobalNet, resumption: Resumption, saved: dict[str, Any], signals: list[int]
    ) -> None:
        self.worker = worker
        self.trainer = worker.trainer
        self.peers = worker.peers
        self.resumption = resumption
        self.signals = signals
        history = self.trainer.history
        world = self.peers.world
        epochs = self.trainer.config.epochs
        self.periods = [range(first, min(first + config.period, epochs)) for first in range(0, epochs, config.period)]
        self.recorded = sum(period[-1] < len(history.rows) for period in self.periods)
        # Another number of workers divides epochs differently: it resumes after the last recorded period.
        whole: dict[int, Any] = dict.fromkeys(range(self.recorded * world))
        pushed = saved["pushed"] if saved.get("world") == world else whole
        values = pack(worker.exchanged()).cpu()
        shards = len(self.periods) * world
        self.network = GlobalNetwork(values, shards, pushed, self.recorded, config.staleness, self.peers)
        self.validated = history.rows[-1] if history.rows else worker.figures()
        self.checked_at = time.monotonic()
        # The shards pushed before a stop took time, too.
        self.recorded_at = self.checked_at - (saved.get("spent", 0.0) if saved.get("world") == world else 0.0)

    def train(self, on_epoch: Callable[[History], None]) -> None:
        """Train one shard after another until none is left; worker 0 then holds the global network.

        Raises as `training.loop.fit`, on all workers.
        """
        server = threading.Thread(target=self.network.serve, daemon=True)
        if is_server := self.peers.rank == 0:
            server.start()
            on_epoch(self.trainer.history)
        shard = JOIN
        seconds = 0.0
        curves = Curves()
        while True:
            shard, values, seconds = self._exchange(shard, seconds, curves)
            if is_server:
                self._record(on_epoch)
            self._take(values)
            self.worker.end_exchange()
            if shard == DONE:
                break
            curves = self._train_shard(shard)
            if self.signals:
                if is_server:
                    self._record(on_epoch)
                raise Interrupted(self.signals[0])
            shard = shard if curves else DONE
        if is_server:
            server.join()  # before anything is raised: the others need an answer to leave
        if failure := self.network.error or self.trainer.failure:
            raise failure
        if reason := self.peers.store.get(STOP).decode():
            raise UserError(reason)
        if is_server:
            self._load(self.network.values, self.trainer.config.epochs - 1)

    def _exchange(self, shard: int, seconds: float, curves: Curves) -> tuple[int, Tensor, float]:
        """Push a trained shard. Returns the next one, the global network, and how long this took."""
        message: list[Any] = [(shard, seconds, curves, pack(self.worker.exchanged()).cpu())]
        started = time.monotonic()
        if self.peers.rank == 0:
            return *self.network.exchange(0, *message[0]), time.monotonic() - started
        with self.peers.expecting_answers([0]):
            dist.send(torch.zeros(1), 0)  # an object takes two messages: the server must know whose to receive
            dist.send_object_list(message, 0, device=CPU)
            dist.recv_object_list(message, 0, device=CPU)
        return *message[0], time.monotonic() - started

    def _train_shard(self, shard: int) -> Curves:
        """Train a shard through the epochs of its period. Returns its curves, none if it was stopped."""
        curves = []
        for epoch in self.periods[shard // self.peers.world]:
            self.trainer.epoch = epoch
            self.trainer.begin_epoch()
            stopped = self.worker.train_shard(shard % self.peers.world, self._stop)
            figures = {} if stopped else self.worker.figures()
            if stopped or self._stop():
                return []
            curves.append(figures)
        return curves

    def _stop(self) -> bool:
        """Whether to stop: after a signal, after any worker's failure (the store tells all), or when all is trained."""
        if self.trainer.failure:
            self.peers.store.set(STOP, str(self.trainer.failure))
        if self.signals or self.trainer.failure or self.network.error:
            return True
        if time.monotonic() < self.checked_at + 0.1:
            return False
        timeout = self.peers.timeout.total_seconds()
        stop = within(timeout, lambda: bool(self.peers.store.check([STOP])), None)
        if stop is None:
            raise self.peers.lost([0], timeout)
        self.checked_at = time.monotonic()
        return stop

    def _take(self, values: Tensor) -> None:
        unpack(values.to(self.trainer.device), self.worker.exchanged())

    def _load(self, values: Tensor, epoch: int) -> None:
        """Make the trainer's network the global one, with statistics measured on images of an epoch."""
        self._take(values)
        self.trainer.epoch = epoch
        self.worker.measure_statistics(0, STATISTICS_IMAGES)

    def _record(self, on_epoch: Callable[[History], None]) -> None:
        """Measure the global network after each finished period, add its epochs to the history, write a checkpoint."""
        world = self.peers.world
        history = self.trainer.history
        while self.network.snapshots:
            values, at = self.network.snapshots.pop(0)
            period = self.periods[self.recorded]
            self._load(values, period[-1])
            measured = self.worker.figures()
            if self.trainer.failure:
                return
            pushes = list(self.network.pushed.values())[self.recorded * world :][:world]
            worker_epochs = world * len(period)
            payload_bytes = values.nbytes * sum(rank != 0 for rank, *_ in pushes)
            seconds = sum(took for _, took, _ in pushes)
            for number, epoch in enumerate(period):
                self.validated = measured if epoch == period[-1] else self.validated
                row = self.worker.row([(rank, curves[number]) for rank, _, curves in pushes], self.validated)
                history.rows.append(row)
                history.seconds.append((at - self.recorded_at) / len(period))
                history.cpu_seconds.append(None)
                history.joules.append(None)
                self.peers.cost = Cost(world, payload_bytes // worker_epochs, seconds / worker_epochs)
                self.peers.end_costs()
                self.worker.report_epoch()
            self.recorded += 1
            self.recorded_at = at
            on_epoch(history)
        with self.network.lock:  # released before writing: the others would wait for the disk
            values = self.network.values.clone()
            pushed = dict(self.network.pushed)
        self._take(values)
        self.trainer.epoch = len(history.rows)
        self.trainer.begin_epoch()
        self.resumption.keep(self.worker.state())
        self.resumption.save(pushed=pushed, spent=time.monotonic() - self.recorded_at)
