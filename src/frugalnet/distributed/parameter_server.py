"""The global network of an asynchronous run: worker 0 holds it, and hands out the work.

Work is handed out in shards of T epochs, so a slow worker trains fewer of them.
"""

import threading
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from frugalnet.distributed.exchange import Peers

Curves = list[dict[str, float]]  # a shard's figures, one dictionary for each of its epochs
JOIN = -2  # instead of a shard: the worker has trained none yet
DONE = -1  # instead of a shard: there is nothing left to train
STOP = "stop"  # a key in the store that all workers watch; its value is a failure, or empty if all is trained
CPU = torch.device("cpu")


class GlobalNetwork:
    """The parameter server.

    A push moves the global network towards the sub-model by 1 / (1 + staleness). Staleness counts the pushes since that
    worker's last pull: N workers that pulled the same network give their average, and a late one moves it little.
    (Elastic averaging, Zhang, Choromanska and LeCun 2015, has a constant rate.)
    """

    def __init__(
        self, values: Tensor, shards: int, pushed: dict[int, Any], recorded: int, bound: int, peers: Peers
    ) -> None:
        """pushed: shard → rank, seconds of its last exchange, curves; in order of time. recorded: finished periods."""
        self.values = values
        self.pushed = pushed
        self.bound = bound
        self.peers = peers
        self.waiting = [shard for shard in range(shards) if shard not in pushed]  # the next to hand out comes first
        # The global network after every N pushes, and when: also those that a restarted run has not recorded yet.
        self.snapshots = [(values.clone(), time.monotonic())] * (len(pushed) // peers.world - recorded)
        self.version = 0  # of the global network
        self.pulled = [0] * peers.world  # the version that each worker has
        self.left: set[int] = set()
        self.lock = threading.Lock()
        self.error: Exception | None = None

    def exchange(self, rank: int, shard: int, seconds: float, curves: Curves, values: Tensor) -> tuple[int, Tensor]:
        """Push a trained shard's sub-model; pull the next shard and the global network.

        A push that is more than `bound` versions late is discarded, and its shard handed out again.
        """
        with self.lock:
            staleness = self.version - self.pulled[rank]
            if shard in self.waiting and staleness <= self.bound:
                self.values.lerp_(values, 1 / (1 + staleness))
                self.version += 1
                self.pushed[shard] = (rank, seconds, curves)
                self.waiting.remove(shard)
                if len(self.pushed) % self.peers.world == 0:
                    self.snapshots.append((self.values.clone(), time.monotonic()))
            self.pulled[rank] = self.version
            if shard == DONE or not self.waiting:
                if shard != DONE:
                    self.peers.store.set(STOP, "")
                self.left.add(rank)
                return DONE, self.values.clone()
            self.waiting.append(self.waiting.pop(0))  # handed out again once all others are, if nobody finishes it
            return self.waiting[-1], self.values.clone()

    def serve(self) -> None:
        """Answer the other workers until all have left. Runs in a thread of worker 0."""
        others = set(range(1, self.peers.world))
        message: list[Any] = [None]
        try:
            while not others <= self.left:
                idle_since = time.monotonic()
                rank = dist.recv(torch.zeros(1))
                dist.recv_object_list(message, rank, device=CPU)
                dist.send_object_list([self.exchange(rank, *message[0])], rank, device=CPU)
        except RuntimeError:
            self.error = self.peers.lost(sorted(others - self.left), time.monotonic() - idle_since)
