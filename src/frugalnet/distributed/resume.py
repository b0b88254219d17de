"""Checkpoints of a distributed run: written on every host, resumed from the newest, with any number of workers."""

import copy
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frugalnet.distributed.exchange import Cost, Peers
from frugalnet.training.checkpoint import Checkpoints


class Resumption:
    """The state that all workers had in common at the last exchange and, where they differ, each worker's own.

    The first worker on every host writes it there, so that any remaining host can resume the run.
    """

    def __init__(self, folder: Path, own: Checkpoints, peers: Peers) -> None:
        """folder: of all hosts' checkpoints. own: this host's."""
        self.folder = folder
        self.own = own
        self.peers = peers

    def keep(self, state: dict[str, Any]) -> None:
        """Take a copy of the state that all workers now have in common."""
        self.common = copy.deepcopy(state)

    def save(self, everyone: list[dict[str, Any]] | None = None, **more: object) -> None:
        """Write the common state and, if they differ from it, the states of all workers."""
        if self.peers.first_on_host:
            about = {"world": self.peers.world, "costs": self.peers.costs, "cost": asdict(self.peers.cost)}
            reached = everyone[0] if everyone else self.common
            progress = reached["epoch"], reached["step"]  # finished epochs, and steps of the next one
            saved = {"common": self.common, "everyone": everyone, "progress": progress, **about, **more}
            self.own.save(saved, *progress)

    def load(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The newest checkpoint of all hosts, and this worker's state in it; both empty if there is none.

        A checkpoint of another number of workers gives the state that they had in common.
        """
        peers = self.peers
        hosts = [Checkpoints(folder) for folder in sorted(self.folder.glob("host-*/"))] if peers.first_on_host else []
        checkpoints = [saved for saved in (host.load() for host in hosts) if saved is not None]
        nothing: dict[str, Any] = {"progress": (-1, 0)}
        newest = max(checkpoints, key=lambda saved: saved["progress"], default=nothing)
        progress = peers.gather(tuple(newest["progress"]))
        saved = peers.broadcast(newest, progress.index(max(progress)))
        if "common" not in saved:
            return {}, {}
        everyone = saved["everyone"] if saved["world"] == peers.world else None
        if saved["world"] != peers.world and peers.rank == 0:
            print(
                f"the checkpoint is from {saved['world']} workers; resuming with {peers.world} from its last exchange",
                file=sys.stderr,
            )
        self.keep(saved["common"])
        state = everyone[peers.rank] if everyone else saved["common"]
        peers.costs = saved["costs"][: state["epoch"]]  # those of later epochs will be trained again
        if everyone and "cost" in saved:
            peers.cost = Cost(**saved["cost"])
        return saved, state
