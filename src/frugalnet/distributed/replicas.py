"""Replicas of one network that take every step together, with averaged gradients."""

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from frugalnet.distributed.exchange import Peers
from frugalnet.training.batches import Batch


class Replica(DistributedDataParallel):
    """A network whose gradient is that of the mean loss over all workers' images. Its state dict is the network's."""

    weight = 1.0  # of this worker's mean loss in the current step

    def __init__(self, network: nn.Module, peers: Peers) -> None:
        # Running statistics take no part in training: they are averaged once an epoch instead of sent in every step.
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # renamed in newer versions of torch
            super().__init__(network, broadcast_buffers=False)
        self.register_comm_hook(peers, _average)
        self.world = peers.world

    def weighted(self, batches: Iterable[Batch], sizes: Sequence[int]) -> Iterator[Batch]:
        """The same batches. Each sets this worker's weight, since its part of a step may be an image larger or smaller.

        sizes: the images of each step, of all workers together.
        """
        for (images, labels), size in zip(batches, sizes, strict=True):
            self.weight = len(labels) * self.world / size
            yield images, labels

    def forward(self, images: Tensor) -> Tensor:
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
    """Average a bucket of gradients over the workers, and count the cost."""
    gradients = bucket.buffer().div_(peers.world)
    peers.heartbeat()
    started = time.monotonic()

    def count(reduced: Future[list[Tensor]]) -> Tensor:
        peers.cost.add(gradients.nbytes if peers.world > 1 else 0, time.monotonic() - started)
        return reduced.value()[0]

    future: Future[Tensor] = dist.all_reduce(gradients, async_op=True).get_future().then(count)
    return future


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """On CUDA, normalise by the statistics of all workers' images. On the CPU, which torch does not support, each
    worker normalises by its own part of the batch."""
    if device.type != "cuda":
        return network
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted
