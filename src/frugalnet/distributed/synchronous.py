"""Training with several workers: sub-models that exchange with a global network, and replicas that go in step.

The paper's section 5.2: sub-models of one structure train independently; at the end of every T epochs each gives its
parameters to the global network and takes the updated ones back. Averaged are parameters *and* the running statistics
of batch normalisation, weighted by the images that each share holds. Counts of batches are not: all workers take
the same number of steps, and measure their statistics on the same number of batches.
"""

import itertools
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import ceil, nan
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.swa_utils import update_bn

from frugalnet.data.arrays import Split
from frugalnet.distributed.launch import Ddp, GlobalNet, Peers, Resumption, Workers, flatten, share, unflatten
from frugalnet.distributed.replicas import Replica, synchronise
from frugalnet.errors import UserError
from frugalnet.training.batches import batches, epoch_turns, resident
from frugalnet.training.loop import LOOK_EVERY, Interrupted, Stopwatch, noting_signals
from frugalnet.training.optim import learning_rate
from frugalnet.training.trainer import History, Trainer

_FAILED, _STOPPED = 255, 254  # codes beyond every signal's number: here, and elsewhere
_LEAVES, _ASKS = -1, -2  # in place of a share: what a worker that is done, or that begins, says
_STOP = "stop"  # a key of the store, which all look at after each step; its value is why, or nothing when all is done
STATISTICS_IMAGES = 5_120  # of the training split, or more, give the global network its batch statistics
_CURVES = ("train_loss", "train_top1", "validation_top1")  # of each sub-model, beside the global network's


class Worker:
    """One of the workers: its trainer, what it reads, and the others."""

    def __init__(
        self,
        trainer: Trainer,
        peers: Peers,
        config: Workers,
        images_of: Callable[[int], np.ndarray],
        labels: np.ndarray,
        validation: Split,
    ) -> None:
        self.trainer, self.peers, self.config = trainer, peers, config
        self.images_of, self.labels, self.validation = images_of, labels, validation
        self.network = trainer.network
        self.failure: UserError | None = None
        if isinstance(config, Ddp):
            if config.sync_batch_norm:
                synchronise(self.network, peers)
            trainer.network = Replica(self.network, peers)
        self.before = [parameter.detach().clone() for parameter in self.network.parameters()]  # the last exchange
        self.velocity = [torch.zeros_like(parameter) for parameter in self.before]

    def state(self) -> dict[str, Any]:
        """The trainer's, and what the next exchange sets out from."""
        return self.trainer.state() | {"before": self.before, "velocity": self.velocity}

    def restore(self, state: dict[str, Any]) -> None:
        self.trainer.restore(state)
        self.before, self.velocity = (  # copies: both are changed in place, and the state may be what all share
            [tensor.to(self.trainer.device, copy=True) for tensor in state[key]] for key in ("before", "velocity")
        )

    def train_share(self, part: int, stop: Callable[[], int], until: int | None = None) -> int:
        """Train on a share of the epoch under way, from the step that is reached, until its end (or `until` so many
        steps are done) or until `stop` says a code other than 0; that code."""
        trainer = self.trainer
        mine = self._turns(part)
        images = resident(self.images_of(trainer.epoch), trainer.device)
        if trainer.step == 0 and part:  # what is random within an epoch differs between shares
            torch.manual_seed(int(np.random.default_rng([trainer.seed, trainer.epoch, 1, part]).integers(2**62)))
        stopwatch = Stopwatch(trainer.device)
        for batch, targets in batches(images, self.labels, mine[trainer.step : until], trainer.device):
            if isinstance(trainer.network, Replica):
                together = trainer.n_train // trainer.steps + (trainer.step < trainer.n_train % trainer.steps)
                trainer.network.weight = len(targets) * self.peers.world / together
                with self.peers.expecting_answers():
                    trainer.train_batch(batch, targets)
            else:
                trainer.train_batch(batch, targets)
            if trainer.step % LOOK_EVERY == 0 or trainer.step == trainer.steps:
                try:
                    trainer.check_losses()
                except UserError as error:
                    self.failure = error
            trainer.spend(*stopwatch.lap())
            if code := stop():
                return code
        return 0

    def exchanged(self) -> list[Tensor]:
        """What an exchange averages. Replicas differ in their running statistics only, if at all."""
        if isinstance(self.config, Ddp):
            return self.statistics()
        floats = [tensor for tensor in self.network.state_dict().values() if tensor.is_floating_point()]
        if self.config.momentum == "averaged":
            state = self.trainer.optimiser.state_dict()["state"]
            floats += [t for key in sorted(state) for t in state[key].values() if isinstance(t, Tensor)]
        return floats

    def exchange(self) -> None:
        """Give to the global network and take it, in step with all others, whose shares count by their images."""
        images = len(range(self.peers.rank, self.trainer.n_train, self.peers.world))
        self.peers.average(self.exchanged(), images / self.trainer.n_train)
        self.after_exchange()

    @torch.no_grad()
    def move_on(self) -> None:
        """Set out from beyond the average: moved by Nesterov's momentum of what averages moved the sub-models by.

        The outer optimiser of DiLoCo (Douillard et al. 2023) with a rate of 1. An average of sub-models moves about as
        far as one of them, and each reads a part of the images only. The average itself is the global network: the
        point from which they set out is a worse one, which their next gradients are to correct.
        """
        momentum = self.config.outer_momentum if isinstance(self.config, GlobalNet) else 0
        for now, before, velocity in zip(self.network.parameters(), self.before, self.velocity, strict=True):
            if momentum == 0 or self.peers.world == 1:  # whoever joins a lonely worker begins without momentum
                before.copy_(now)
                velocity.zero_()
                continue
            moved = now - before
            velocity.mul_(momentum).add_(moved)
            now.copy_(before.add_(moved).add_(velocity, alpha=momentum))

    def after_exchange(self) -> None:
        if isinstance(self.config, GlobalNet) and self.config.momentum == "reset" and self.peers.world > 1:
            self.trainer.optimiser.state.clear()

    def exchanges(self, epoch: int) -> list[int]:
        """After how many steps of an epoch the workers exchange, its end the last: those yet to come."""
        config, steps, count = self.config, self.trainer.steps, 1
        if (
            isinstance(config, GlobalNet)
            and self.peers.world > 1
            and config.warms_up(epoch, self.trainer.config.epochs)
        ):
            count = min(config.warmup_exchanges, steps)
        # Whoever was stopped when that many steps were done has not exchanged after them yet.
        return [end for end in (steps * number // count for number in range(1, count + 1)) if end >= self.trainer.step]

    def measure_statistics(self, part: int, images: int) -> bool:
        """Give the network the batch statistics that it has itself, over so many images of a share of this epoch, if
        the configuration says so and there are others; whether it does.

        The average of the sub-models' statistics is not that: activations of averaged weights vary less than those of
        the weights that were averaged (Izmailov et al. 2018, section 3.2). Only evaluation reads them.
        """
        trainer = self.trainer
        if not isinstance(self.config, GlobalNet) or self.config.batch_norm == "averaged" or self.peers.world == 1:
            return False
        count = ceil(images / (trainer.n_train // (trainer.steps * self.peers.world)))  # of turns: the same for all
        seen = batches(self.images_of(trainer.epoch), self.labels, self._turns(part)[:count], trainer.device)
        update_bn((trainer.inputs(batch) for batch, _ in seen), self.network)
        return True

    def _turns(self, part: int) -> list[np.ndarray]:
        """What a share of the epoch under way reads in each step."""
        trainer = self.trainer
        return share(epoch_turns(trainer.seed, trainer.epoch, trainer.n_train, trainer.steps), part, self.peers.world)

    def statistics(self) -> list[Tensor]:
        return [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]

    def tell(self) -> None:
        row = self.trainer.history.rows[-1]
        if self.peers.rank == 0:
            print(
                f"epoch {row['epoch']}/{self.trainer.config.epochs}: loss {row['train_loss']:.3f}, top-1 "
                f"{row['train_top1']:.2%} (validation {row['validation_loss']:.3f}, {row['validation_top1']:.2%}), "
                f"{self.peers.world} workers, {self.trainer.history.seconds[-1]:.1f} s",
                file=sys.stderr,
            )

    def row(
        self, epoch: int, shares: Sequence[tuple[int, dict[str, float]]], validated: dict[str, float]
    ) -> dict[str, float]:
        """An epoch's row: how its shares were trained, each with its worker, and how the global network was measured;
        beside them every sub-model's own curves, nan where it trained none."""
        trainer, config = self.trainer, self.trainer.config
        row = {
            "epoch": epoch + 1,
            "learning_rate": learning_rate(config, (epoch + 1) * trainer.steps - 1, config.epochs * trainer.steps),
            "train_macs": trainer.epoch_macs(epoch),
            **{key: sum(figures[key] for _, figures in shares) for key in ("train_loss", "train_top1")},
            **{key: value for key, value in validated.items() if key.startswith("validation")},
        }
        if isinstance(self.config, GlobalNet):
            row |= {f"sub_models/{key}_{rank}": nan for key in _CURVES for rank in range(self.config.workers)}
            for rank, figures in shares:
                # Sums over a share, divided by the images of all: times the number of shares they are the share's own.
                own = {key: figures[key] * (1 if key == "validation_top1" else len(shares)) for key in _CURVES}
                row |= {f"sub_models/{key}_{rank}": value for key, value in own.items()}
        return row


def fit(worker: Worker, resumption: Resumption, on_epoch: Callable[[History], None] = lambda history: None) -> None:
    """Train to the last epoch, from the newest checkpoint if there is one; the trainer then holds the global network.

    on_epoch: called on worker 0 as by `loop.fit`. Raises as that does, on all workers.
    """
    trainer = worker.trainer
    saved, state = resumption.load()
    if state:
        worker.restore(state)
    else:
        resumption.share(worker.state())
    if saved and worker.peers.rank == 0:
        print(f"going on from the checkpoint: epoch {trainer.epoch + 1}, step {trainer.step + 1}", file=sys.stderr)
    with noting_signals() as noted:
        if isinstance(worker.config, GlobalNet) and worker.config.exchange == "asynchronous":
            _Asynchronous(worker, worker.config, resumption, saved, noted, on_epoch).run()
        else:
            _synchronous(worker, resumption, noted, on_epoch)


def _synchronous(worker: Worker, resumption: Resumption, noted: list[int], on_epoch: Callable[[History], None]) -> None:
    trainer, peers, config = worker.trainer, worker.peers, worker.config
    in_step = isinstance(config, Ddp)
    period = config.period if isinstance(config, GlobalNet) else 1
    own_momentum = isinstance(config, GlobalNet) and config.momentum == "kept"
    on_epoch(trainer.history)
    validated = trainer.history.rows[-1] if trainer.history.rows else trainer.figures(worker.validation)

    def wish() -> int:
        return _FAILED if worker.failure else noted[0] if noted else 0

    while trainer.epoch < trainer.config.epochs:
        for until in worker.exchanges(trainer.epoch):
            # Replicas must stop after the same step.
            code = worker.train_share(peers.rank, (lambda: peers.meet(wish())) if in_step else wish, until)
            code = peers.meet(code)
            if code == _FAILED:
                raise next(failure for failure in peers.gather(worker.failure) if failure)
            if code:
                resumption.save(peers.gather(worker.state()))
                raise Interrupted(code)
            if until < trainer.steps:
                worker.exchange()
                worker.move_on()
        if in_step:
            worker.exchange()
        own = trainer.figures(worker.validation)
        gathered = peers.gather((own, trainer.cpu_seconds))
        shares = [(rank, figures) for rank, (figures, _) in enumerate(gathered)]
        trainer.cpu_seconds = sum(spent for _, spent in gathered)
        trainer.joules = None  # a counter is a machine's or a GPU's: what each worker reads can't be added up
        last = trainer.epoch + 1
        warm = isinstance(config, GlobalNet) and config.warms_up(trainer.epoch, trainer.config.epochs)
        due = warm or last % period == 0 or last == trainer.config.epochs
        if in_step:
            validated = own
        elif due:
            worker.exchange()
            if worker.measure_statistics(peers.rank, STATISTICS_IMAGES // peers.world):
                peers.average(worker.statistics(), 1 / peers.world)
            validated = peers.hear(trainer.figures(worker.validation) if peers.rank == 0 else None, 0)
            if last < trainer.config.epochs:
                worker.move_on()
        trainer.end_epoch(worker.row(trainer.epoch, shares, validated))
        peers.end_costs()
        if due:
            resumption.share(worker.state())
            resumption.save(peers.gather(worker.state()) if own_momentum else None)
        worker.tell()
        on_epoch(trainer.history)


class GlobalNetwork:
    """The global network of an asynchronous run, kept by worker 0: every worker gives and takes when it likes.

    Work is handed out in shares of T epochs, so that a slow worker trains fewer of them instead of being waited for;
    shares that nobody has finished are handed out again once there are no others. What a worker gives moves the global
    network towards it by 1 / (1 + staleness), the staleness being the number of gives since it took: N workers that
    took the same parameters give their average, as a synchronous exchange does, and a late one moves little
    (elastic averaging, Zhang, Choromanska and LeCun 2015, whose moving rate is constant).
    """

    def __init__(
        self, vector: Tensor, shares: int, given: dict[int, list[float]], recorded: int, bound: int, peers: Peers
    ) -> None:
        self.vector, self.shares, self.bound, self.peers = vector, shares, bound, peers
        self.lock = threading.Lock()
        self.given = given  # share → who trained it, the seconds of his exchange before, his figures; in order of time
        # After as many gives as there are workers, and when; what was given before a restart and not recorded too.
        self.snapshots = [(vector.clone(), time.monotonic())] * (len(given) // peers.world - recorded)
        self.turn = itertools.count()
        self.handed_out: dict[int, int] = {}  # share → at which turn
        self.taken_at = [0] * peers.world
        self.version = 0
        self.left: set[int] = set()
        self.error: Exception | None = None

    def exchange(self, rank: int, message: Tensor) -> None:
        """Give and take: a worker's message becomes the answer."""
        with self.lock:
            share, figures = int(message[0]), message[1 : -len(self.vector)].tolist()
            staleness = self.version - self.taken_at[rank]
            if share >= 0 and share not in self.given and staleness <= self.bound:
                self.vector.lerp_(message[-len(self.vector) :], 1 / (1 + staleness))
                self.version += 1
                self.given[share] = [rank, *figures]
                if len(self.given) % self.peers.world == 0:
                    self.snapshots.append((self.vector.clone(), time.monotonic()))
            self.taken_at[rank] = self.version
            message[0] = _LEAVES if share == _LEAVES else self._next()
            message[-len(self.vector) :] = self.vector
            if message[0] == _LEAVES:
                self.left.add(rank)

    def _next(self) -> int:
        waiting = [share for share in range(self.shares) if share not in self.given]
        if not waiting:
            self.peers.store.set(_STOP, "")
            return _LEAVES
        share = min(waiting, key=lambda share: self.handed_out.get(share, -1))
        self.handed_out[share] = next(self.turn)
        return share

    def serve(self, message: Tensor) -> None:
        """Answer the other workers until all have left: what a thread of worker 0 does."""
        others = set(range(1, self.peers.world))
        try:
            while not others <= self.left:
                heard_at = time.monotonic()
                rank = dist.recv(message)
                self.exchange(rank, message)
                dist.send(message, rank)
        except RuntimeError:
            self.error = self.peers.lost(sorted(others - self.left), time.monotonic() - heard_at)


def _begin_momentum(optimiser: torch.optim.Optimizer) -> None:
    """Give the optimiser the zeros from which its first step sets out: an exchange may come before it."""
    for group in optimiser.param_groups:
        group["lr"] = 0.0  # each step of training sets its own
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for state in optimiser.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()


class _Asynchronous:
    """A worker of an asynchronous run. Worker 0 also keeps the global network, measures it and writes checkpoints."""

    def __init__(
        self,
        worker: Worker,
        config: GlobalNet,
        resumption: Resumption,
        saved: dict[str, Any],
        noted: list[int],
        on_epoch: Callable[[History], None],
    ) -> None:
        self.worker, self.trainer, self.peers = worker, worker.trainer, worker.peers
        self.resumption, self.noted, self.on_epoch = resumption, noted, on_epoch
        trainer, peers, epochs = self.trainer, self.peers, self.trainer.config.epochs
        self.periods = [range(first, min(first + config.period, epochs)) for first in range(0, epochs, config.period)]
        self.recorded = sum(period[-1] < len(trainer.history.rows) for period in self.periods)
        # Other workers than before divide the epochs otherwise: they go on after the last one that was recorded.
        whole: dict[int, list[float]] = {share: [] for share in range(self.recorded * peers.world)}
        given = saved["given"] if saved.get("world") == peers.world else whole
        if config.momentum == "averaged" and not trainer.optimiser.state:
            _begin_momentum(trainer.optimiser)
        self.header = 2 + len(_CURVES) * config.period  # share, seconds of the exchange before, figures
        self.message = torch.cat([torch.zeros(self.header), flatten(worker.exchanged()).cpu()])
        shares = len(self.periods) * peers.world
        vector = self.message[self.header :].clone()
        self.network = GlobalNetwork(vector, shares, given, self.recorded, config.staleness, peers)
        self.validated = trainer.history.rows[-1] if trainer.history.rows else trainer.figures(worker.validation)
        self.recorded_at = self.heard_at = time.monotonic()
        self.told_to_stop = self.over = False

    def run(self) -> None:
        """Train one share after the other, until none is left."""
        listener = threading.Thread(target=self._listen, daemon=True)
        listener.start()
        try:
            self._train_shares()
        finally:
            self.over = True
            listener.join(1)  # a process that ends while a thread talks to the store is aborted

    def _train_shares(self) -> None:
        keeper = threading.Thread(target=self.network.serve, args=(self.message.clone(),), daemon=True)
        if self.peers.rank == 0:
            keeper.start()
            self.on_epoch(self.trainer.history)
        share, seconds, figures = _ASKS, 0.0, list[float]()
        while True:
            share, seconds = self._exchange(share, seconds, figures)
            if share == _LEAVES:
                break
            figures = self._train(share)
            if self.noted:
                if self.peers.rank == 0:
                    self._save()
                raise Interrupted(self.noted[0])
            if not figures:  # stopped within it
                share = _LEAVES
        if self.peers.rank == 0:
            keeper.join()  # first, since the others can't leave without it
        if self.network.error is not None:
            raise self.network.error
        if reason := self.peers.store.get(_STOP).decode():
            raise UserError(reason)
        if self.peers.rank == 0:
            self._hold(self.network.vector, self.trainer.config.epochs - 1)

    def _exchange(self, share: int, seconds: float, figures: list[float]) -> tuple[int, float]:
        """Give what was trained and take the global network: the next share, and the seconds that this took."""
        message, header, worker = self.message, self.header, self.worker
        padding = [nan] * (header - 2 - len(figures))
        message[:header] = torch.tensor([share, seconds, *figures, *padding])
        message[header:] = flatten(worker.exchanged())
        started = time.monotonic()
        if self.peers.rank == 0:
            self.network.exchange(0, message)
        else:
            with self.peers.expecting_answers([0]):
                dist.send(message, 0)
                dist.recv(message, 0)
        seconds = time.monotonic() - started
        if self.peers.rank == 0:
            self._record()
        unflatten(message[header:].to(self.trainer.device), worker.exchanged())
        worker.after_exchange()
        return int(message[0]), seconds

    def _hold(self, vector: Tensor, epoch: int) -> None:
        """Let the trainer's network be the global one, with its statistics over images of an epoch."""
        trainer = self.trainer
        unflatten(vector.to(trainer.device), self.worker.exchanged())
        trainer.epoch = epoch
        self.worker.measure_statistics(0, STATISTICS_IMAGES)

    def _train(self, share: int) -> list[float]:
        """Train a share through the epochs of its period; its curves' figures, or [] if it was stopped before."""
        figures = []
        for epoch in self.periods[share // self.peers.world]:
            self.trainer.epoch = epoch
            self.trainer.begin_epoch()
            if self.worker.train_share(share % self.peers.world, self._stop):
                return []
            own = self.trainer.figures(self.worker.validation)
            figures += [own[key] for key in _CURVES]
        return figures

    def _stop(self) -> int:
        if self.worker.failure:
            self.peers.store.set(_STOP, str(self.worker.failure))
            return _STOPPED
        if (silence := time.monotonic() - self.heard_at) > self.peers.timeout.total_seconds():
            raise self.peers.lost([0], silence)
        return self.noted[0] if self.noted else _STOPPED if self.network.error or self.told_to_stop else 0

    def _listen(self) -> None:
        """Note whether all shall stop: what a thread of each worker does, for it waits for ever if worker 0 hangs."""
        store = self.peers.store
        with suppress(RuntimeError):  # its connection is gone
            while not (self.told_to_stop or self.over):
                self.told_to_stop = store.check([_STOP])
                self.heard_at = time.monotonic()
                time.sleep(0.1)

    def _record(self) -> None:
        """Measure the global network wherever an epoch's worth of shares was given, and write a checkpoint."""
        trainer, peers, network = self.trainer, self.peers, self.network
        while network.snapshots:
            vector, at = network.snapshots.pop(0)
            period = self.periods[self.recorded]
            self._hold(vector, period[-1])
            fresh = trainer.figures(self.worker.validation)
            window = list(network.given.values())[self.recorded * peers.world : (self.recorded + 1) * peers.world]
            for number, epoch in enumerate(period):
                self.validated = fresh if epoch == period[-1] else self.validated
                trained = [
                    (int(rank), dict(zip(_CURVES, figures[number * len(_CURVES) :], strict=False)))
                    for rank, _, *figures in window
                ]
                trainer.history.rows.append(self.worker.row(epoch, trained, self.validated))
                trainer.history.seconds.append((at - self.recorded_at) / len(period))
                trainer.history.cpu_seconds.append(None)
                trainer.history.joules.append(None)
                of_others = sum(rank != 0 for rank, *_ in window)
                peers.bytes = of_others * self.message.nbytes // (peers.world * len(period))
                peers.seconds = sum(seconds for _, seconds, *_ in window) / (peers.world * len(period))
                peers.end_costs()
                self.worker.tell()
            self.recorded, self.recorded_at = self.recorded + 1, at
            self.on_epoch(trainer.history)
        self._save()

    def _save(self) -> None:
        trainer = self.trainer
        with self.network.lock:  # not while the disk writes: the others would wait
            vector, given = self.network.vector.clone(), dict(self.network.given)
        unflatten(vector.to(trainer.device), self.worker.exchanged())
        trainer.epoch = len(trainer.history.rows)
        trainer.begin_epoch()
        self.resumption.share(self.worker.state())
        self.resumption.save(given=given)
