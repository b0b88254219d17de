"""One worker of a distributed run: what it trains on, what it exchanges, and how the global network is measured."""

import sys
from collections.abc import Callable, Sequence
from math import ceil, nan
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from frugalnet.data.arrays import Split
from frugalnet.distributed.config import GlobalNet, Workers
from frugalnet.distributed.exchange import Peers, shard
from frugalnet.distributed.replicas import Replica, synchronise_batch_norm
from frugalnet.errors import UserError
from frugalnet.training.batches import Resident, batch_indices, batches
from frugalnet.training.loop import epoch_line
from frugalnet.training.trainer import Trainer

STATISTICS_IMAGES = 5_120  # at least so many training images give the global network its batch statistics
CURVES = ("train_loss", "train_top1", "validation_top1")  # of each sub-model, beside the global network's


class Worker:
    """A trainer, the data that it reads, and the other workers.

    `network` is the plain network; with replicas, `trainer.network` is a `Replica` of it.
    """

    def __init__(
        self,
        trainer: Trainer,
        peers: Peers,
        config: Workers,
        images_of: Callable[[int], np.ndarray],
        labels: np.ndarray,
        validation: Split,
    ) -> None:
        self.trainer = trainer
        self.peers = peers
        self.config = config
        self.images_of = images_of
        self.labels = labels
        self.validation = validation
        self._resident = Resident(trainer.device)
        self.network = trainer.network
        self.replica: Replica | None = None
        if not isinstance(config, GlobalNet):
            if config.sync_batch_norm:
                self.network = synchronise_batch_norm(self.network, trainer.device)
            trainer.network = self.replica = Replica(self.network, peers)
        self.last_average = [parameter.detach().clone() for parameter in self.network.parameters()]
        self.velocity = [torch.zeros_like(parameter) for parameter in self.last_average]

    def state(self) -> dict[str, Any]:
        """The trainer's state and the outer optimiser's."""
        return self.trainer.state() | {"last_average": self.last_average, "velocity": self.velocity}

    def restore(self, state: dict[str, Any]) -> None:
        self.trainer.restore(state)
        self.last_average, self.velocity = (  # copies, since both change in place
            [tensor.to(self.trainer.device, copy=True) for tensor in state[key]] for key in ("last_average", "velocity")
        )

    def train_shard(self, part: int, stop: Callable[[], int], until: int | None = None) -> int:
        """Train on shard `part` of the current epoch, from the current step to step `until` (default: the last).

        Returns early, with the code, when `stop` returns a code other than 0. `trainer.failure` is up to date then.
        """
        trainer = self.trainer
        whole = self._indices()[trainer.step : until]
        mine = shard(self._indices(), part, self.peers.world)[trainer.step : until]
        images = self._resident.of(self.images_of(trainer.epoch))
        if trainer.step == 0 and part:  # randomness within an epoch (dropout) differs between shards
            torch.manual_seed(int(np.random.default_rng([trainer.seed, trainer.epoch, 1, part]).integers(2**62)))
        loaded = batches(images, self.labels, mine, trainer.device)
        if self.replica is None:
            code = trainer.train_steps(loaded, stop)
        else:
            with self.peers.expecting_answers():
                code = trainer.train_steps(self.replica.weighted(loaded, list(map(len, whole))), stop)
        trainer.check_losses()
        return code

    def exchanged(self) -> list[Tensor]:
        """The tensors that an exchange averages. Replicas differ in their running statistics only."""
        if not isinstance(self.config, GlobalNet):
            return self.statistics()
        tensors = [tensor for tensor in self.network.state_dict().values() if tensor.is_floating_point()]
        if self.config.optimiser_state == "averaged":
            if not self.trainer.optimiser.state:
                _fill_with_zeros(self.trainer.optimiser)
            state = self.trainer.optimiser.state_dict()["state"]
            for key in sorted(state):
                tensors += [value for value in state[key].values() if isinstance(value, Tensor)]
        return tensors

    def exchange(self) -> None:
        """Replace what is exchanged by the average over all workers, each weighted by the images of its shard."""
        images = len(range(self.peers.rank, self.trainer.n_train, self.peers.world))
        self.peers.average(self.exchanged(), images / self.trainer.n_train)
        self.end_exchange()

    def end_exchange(self) -> None:
        """Reset the optimiser, if the configuration says so."""
        if isinstance(self.config, GlobalNet) and self.config.optimiser_state == "reset" and self.peers.world > 1:
            self.trainer.optimiser.state.clear()

    @torch.no_grad()
    def outer_step(self) -> None:
        """Move the sub-model beyond the average, by Nesterov momentum of how far the last averages moved.

        This is the outer optimiser of DiLoCo (Douillard et al. 2023) with a learning rate of 1. An average of N
        sub-models moves about as far as one of them, which has seen 1/N of the images. The global network is the
        average itself: the point beyond it is worse until the next gradients correct it.
        """
        momentum = self.config.outer_momentum if isinstance(self.config, GlobalNet) else 0
        for now, last, velocity in zip(self.network.parameters(), self.last_average, self.velocity, strict=True):
            if momentum == 0 or self.peers.world == 1:  # workers that join a single one start without momentum
                last.copy_(now)
                velocity.zero_()
                continue
            moved = now - last
            velocity.mul_(momentum).add_(moved)
            now.copy_(last.add_(moved).add_(velocity, alpha=momentum))

    def exchanges(self, epoch: int) -> list[int]:
        """The steps of an epoch after which workers exchange, from the current one on; the last ends the epoch."""
        steps = self.trainer.steps
        count = 1
        if isinstance(self.config, GlobalNet) and self.peers.world > 1 and self.warms_up(epoch):
            count = min(self.config.warmup_exchanges, steps)
        ends = [steps * number // count for number in range(1, count + 1)]
        # A run that was stopped after one of these steps has not exchanged there yet.
        return [end for end in ends if end >= self.trainer.step]

    def warms_up(self, epoch: int) -> bool:
        """Whether sub-models exchange several times in epoch `epoch` (from 0)."""
        if not isinstance(self.config, GlobalNet):
            return False
        return epoch < round(self.config.warmup * self.trainer.config.epochs, 9)  # 0.07 × 100 is slightly more than 7

    def measure_statistics(self, part: int, images: int) -> bool:
        """Measure the network's batch statistics on at least so many images of a shard of the current epoch.

        Returns False, having done nothing, if the configuration averages statistics or there is one worker only.
        The average of the sub-models' statistics differs: activations of averaged weights vary less than those of the
        weights that were averaged (Izmailov et al. 2018, section 3.2). Only evaluation uses these statistics.
        """
        trainer = self.trainer
        world = self.peers.world
        if not isinstance(self.config, GlobalNet) or self.config.batch_norm == "averaged" or world == 1:
            return False
        count = ceil(images / (trainer.n_train // (trainer.steps * world)))  # of batches: the same for all workers
        mine = shard(self._indices(), part, world)[:count]
        seen = batches(self.images_of(trainer.epoch), self.labels, mine, trainer.device)
        update_bn((trainer.inputs(batch) for batch, _ in seen), self.network)
        return True

    def statistics(self) -> list[Tensor]:
        """The running means and variances. Counts of batches are equal on all workers, and are not averaged."""
        return [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]

    def figures(self) -> dict[str, float]:
        """The epoch's figures of the current network; empty, with `trainer.failure` set, if logits are not finite."""
        try:
            return self.trainer.figures(self.validation)
        except UserError as error:
            self.trainer.failure = error
            return {}

    def raise_failures(self) -> None:
        """Raise a worker's `trainer.failure` on all workers."""
        for failure in self.peers.gather(self.trainer.failure):
            if failure:
                raise failure

    def row(self, shards: Sequence[tuple[int, dict[str, float]]], validated: dict[str, float]) -> dict[str, float]:
        """An epoch's row of the history.

        shards: for each shard, the rank that trained it and its figures. validated: the global network's figures.
        Each sub-model's own curves stand beside them, nan if it trained no shard.
        """
        row = {
            **shards[0][1],
            **{key: sum(figures[key] for _, figures in shards) for key in ("train_loss", "train_top1")},
            **{key: value for key, value in validated.items() if key.startswith("validation")},
        }
        if isinstance(self.config, GlobalNet):
            row |= {f"sub_models/{key}_{rank}": nan for key in CURVES for rank in range(self.config.workers)}
            for rank, figures in shards:
                # Training figures are sums over a shard divided by all images, so multiply by the number of shards.
                own = {key: figures[key] * (1 if key == "validation_top1" else len(shards)) for key in CURVES}
                row |= {f"sub_models/{key}_{rank}": value for key, value in own.items()}
        return row

    def report_epoch(self) -> None:
        """Print the last epoch's figures, on worker 0."""
        history = self.trainer.history
        if self.peers.rank == 0:
            line = epoch_line(history.rows[-1], self.trainer.config.epochs)
            print(f"{line}, {self.peers.world} workers, {history.seconds[-1]:.1f} s", file=sys.stderr)

    def _indices(self) -> list[np.ndarray]:
        trainer = self.trainer
        return batch_indices(trainer.seed, trainer.epoch, trainer.n_train, trainer.steps)


def _fill_with_zeros(optimiser: torch.optim.Optimizer) -> None:
    """Create the state that an optimiser has before its first step: asynchronous exchanges begin with a pull."""
    for group in optimiser.param_groups:
        group["lr"] = 0.0  # every training step sets its own
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for value in (value for state in optimiser.state.values() for value in state.values()):
        if isinstance(value, Tensor):
            value.zero_()
