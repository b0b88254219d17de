"""Replicas of one network that make every step together: averaged gradients, batch statistics over all of a batch."""

import time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from frugalnet.distributed.launch import Peers


class Replica(DistributedDataParallel):
    """The network in this worker; its gradient is that of the mean loss over all workers' images.

    Its state dict is the plain network's.
    """

    weight = 1.0  # of this worker's mean loss in the step: its images, times the workers, over all images

    def __init__(self, network: nn.Module, peers: Peers) -> None:
        # Running statistics take no part in training: they are averaged once an epoch, not sent in every step.
        super().__init__(network, broadcast_buffers=False)
        self.register_comm_hook(peers, _average)

    def forward(self, images: Tensor) -> Tensor:
        """What the plain network gives. Shares of a batch differ by an image where the workers don't divide it."""
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        if self.training and self.weight != 1.0:
            logits.register_hook(lambda gradient: gradient * self.weight)  # type: ignore[no-untyped-call]
        return logits

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        state: dict[str, Tensor] = self.module.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Tensor], *args: object, **kwargs: object) -> None:  # type: ignore[override]
        self.module.load_state_dict(state_dict)


def _average(peers: Peers, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]
    """Average a bucket of gradients over the workers, and book the bytes and the seconds."""
    gradients = bucket.buffer().div_(peers.world)
    peers.say()
    started = time.monotonic()

    def book(reduced: Future[list[Tensor]]) -> Tensor:
        peers.book(gradients.nbytes if peers.world > 1 else 0, time.monotonic() - started)
        return reduced.value()[0]

    future: Future[Tensor] = dist.all_reduce(gradients, async_op=True).get_future().then(book)
    return future


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the mean and variance over all workers' images.

    torch.nn.SyncBatchNorm refuses the CPU. This one runs wherever the workers' engine does, on (n, C, H, W) of any n.
    """

    peers: Peers

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.peers.world == 1:
            return super().forward(x)
        per_channel = x.numel() / x.shape[1]
        sums = self._of_all(torch.cat([x.sum((0, 2, 3)), x.new_tensor([per_channel])]))
        mean, count = sums[:-1] / sums[-1], sums[-1]
        centred = x - mean[:, None, None]
        # Squares of what is centred: E[x²] − E[x]² would lose the digits that count.
        variance = self._of_all(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.momentum is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised

    def _of_all(self, x: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(x, self.peers)
        return total


class _Sum(torch.autograd.Function):
    """Sum over the workers. What each one's loss owes to the sum comes back from all of them."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, peers: Peers) -> Tensor:
        ctx.peers = peers  # type: ignore[attr-defined]
        return _sum(x, peers)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum(gradient, ctx.peers), None  # type: ignore[attr-defined]


def _sum(x: Tensor, peers: Peers) -> Tensor:
    total = x.clone()
    peers.say()
    started = time.monotonic()
    dist.all_reduce(total)
    peers.book(total.nbytes, time.monotonic() - started)
    return total


def synchronise(network: nn.Module, peers: Peers) -> None:
    """Make every batch normalisation of the network one over all workers' images, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d  # the same parameters and statistics, which optimiser and weights know
            module.peers = peers  # type: ignore[assignment]
