"""Items on Ray: placed where there is room, placed again when a worker or a node is lost, ended in order."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from frugalnet.cluster import node
from frugalnet.cluster.items import Accepted, Epoch, Failed, Finished, Item, Job, Line, Placed, Refused, read_epoch
from frugalnet.cluster.resources import Resources
from frugalnet.cluster.view import View
from frugalnet.errors import UserError, printable
from frugalnet.processes import cores

# Ray is told before it is imported: no usage statistics, no metrics, and a cluster of this command's own listens on
# loopback only (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER decides that on Linux, too).
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")  # all: of a lost node, Ray would print the end of its log
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
if not os.environ.get("RAY_ADDRESS"):
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import ray
from ray.exceptions import RayError, RayTaskError

_MAX_LOSSES = 3  # of an item's worker or node, with no epoch finished in between
_STOP_SECONDS = 90  # in which all items have to end after a signal


@contextmanager
def connected() -> Iterator[str]:
    """Ray for the block: the cluster at RAY_ADDRESS, else one of this machine's cores and GPUs. Yields its name."""
    address = os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {} if address else {"include_dashboard": False, "num_cpus": cores()}
    try:
        if address:
            _check_reachable(address)
        ray.init(address=address or "local", log_to_driver=False, logging_level="critical", **own)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise UserError(f"no Ray cluster at {address or 'this machine'} (RAY_ADDRESS): {reason}") from error
    try:
        yield address or "this machine"
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing answers at host:port: Ray itself tries for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), timeout=10).close()


def nodes() -> list[Mapping[str, float]]:
    """What each node of the cluster has: CPU, GPU, memory (bytes)."""
    return [one["Resources"] for one in ray.nodes() if one["Alive"]]


def nodes_with_room(resources: Resources) -> set[str]:
    """The ids of the nodes that have what an item asks for, whether it is free or not."""
    asked = {"CPU": resources.cores, "GPU": resources.gpus, "memory": resources.memory_bytes}
    return {
        one["NodeID"]
        for one in ray.nodes()
        if one["Alive"] and all(one["Resources"].get(kind, 0) >= amount for kind, amount in asked.items())
    }


def check_room(resources: Resources) -> None:
    """Raise UserError if no node of the cluster has what an item asks for."""
    if not nodes_with_room(resources):
        found = "; ".join(
            f"{has.get('CPU', 0):g} cores, {has.get('GPU', 0):g} GPUs, {has.get('memory', 0) / 1e9:.1f} GB"
            for has in nodes()
        )
        raise UserError(f"a training asks for {resources}, but nodes have {found}: see cluster and compute.threads")


@dataclass
class _Running:
    item: Item
    node_id: str = ""
    place: str = ""


@dataclass
class Schedule:
    """Runs items and reports each through `view`.

    on_finished: takes a finished item's outputs, and raises UserError or OSError if it cannot. failures: of each item
    that failed for good, the reason.
    """

    job: Job
    resources: Resources
    view: View
    on_finished: Callable[[Item, Finished], None]
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._environment: dict[str, Any] | None = None
        self._known: set[str] = set()  # nodes whose environment is the expected one
        self._refused: dict[str, str] = {}  # node → reason
        self._losses: dict[str, int] = {}  # item → since its last finished epoch
        self._running: dict[Any, _Running] = {}

    def run(self, items: Sequence[Item], stop: Callable[[], int]) -> int:
        """Run all items. Returns a signal's number if `stop` did, and all items have been asked to end then, else 0."""
        self._job = ray.put(self.job)
        waiting = list(items)
        while (waiting or self._running) and not stop():
            # Until one node has said what the bits depend on there, the others have nothing to be compared with.
            room = len(waiting) if self._environment else 1 - len(self._running)
            for item in waiting[:room]:
                self._start(item)
            waiting = [*self._turn(), *waiting[room:]]
        number = stop()
        if number:
            self._end_all()
        return number

    def _start(self, item: Item) -> None:
        options = self.resources.options()
        if self._refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(self._refused))})"}
        task = ray.remote(node.run_task).options(num_returns="streaming", **options)
        stream = task.remote(self._job, item, self._environment, frozenset(self._known))
        self._running[stream] = _Running(item)

    def _turn(self) -> list[Item]:
        """Handle what nodes have reported. Returns the items that have to be placed again."""
        again: list[Item] = []
        if not self._running:
            return again
        ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0.5, fetch_local=False)
        for stream in ready:
            running = self._running[stream]
            try:
                event = ray.get(next(stream))
            except StopIteration:
                del self._running[stream]
                continue
            except RayTaskError as error:  # our own code failed there: another version of it, or a broken installation
                del self._running[stream]
                reason = printable(str(error).strip().splitlines()[-1])[:300]
                if running.node_id:
                    again += self._refuse(running, reason)
                else:  # not even the task could be loaded there
                    self._fail(running.item.name, f"a node cannot run items: {reason}")
                continue
            except (RayError, OSError) as error:
                del self._running[stream]
                again += self._lose(running, error)
                continue
            again += self._handle(running, event)
        return again

    def _handle(self, running: _Running, event: object) -> list[Item]:
        name = running.item.name
        match event:
            case Placed(node_id, host):
                running.node_id = node_id
                running.place = host
                self.view.place(name, host)
            case Accepted(environment):
                self._environment = self._environment or dict(environment)
                self._known.add(running.node_id)
            case Refused(reason):
                return self._refuse(running, reason)
            case Line(text):
                self.view.write(name, text)
                if isinstance(epoch := read_epoch(text), Epoch):
                    self._losses.pop(name, None)
                    self.view.finish_epoch(name, epoch)
            case Failed(stage, reason):
                self._fail(name, f"{stage} failed: {reason}")
            case Finished():
                try:
                    self.on_finished(running.item, event)
                    self.view.set_state(name, "done")
                except (UserError, OSError) as error:
                    self._fail(name, str(error))
        return []

    def _refuse(self, running: _Running, reason: str) -> list[Item]:
        """Use a node no longer. Raises UserError if no node is left."""
        if running.node_id not in self._refused:
            self._refused[running.node_id] = reason
            self.view.warn(f"node {running.place or running.node_id[:8]} is not used: {reason}")
        if nodes_with_room(self.resources) <= self._refused.keys():
            raise UserError(f"no node can run the items: {reason}")
        self.view.set_state(running.item.name, "waiting")
        return [running.item]

    def _lose(self, running: _Running, error: Exception) -> list[Item]:
        """Place an item again whose worker or node is gone, if it gets on."""
        name = running.item.name
        losses = self._losses[name] = self._losses.get(name, 0) + 1
        reason = printable(" ".join(str(error).split()))[:200] or type(error).__name__
        self.view.write(name, f"--- lost on {running.place}: {type(error).__name__}: {reason}")
        if losses > _MAX_LOSSES:
            self._fail(name, f"its worker was lost {losses} times in a row ({type(error).__name__}: {reason})")
            return []
        self.view.warn(
            f"{name}: its worker on {running.place or 'a node'} was lost ({type(error).__name__}); it resumes"
        )
        self.view.set_state(name, "waiting")
        return [running.item]

    def _fail(self, name: str, reason: str) -> None:
        self.failures[name] = reason
        self.view.write(name, f"--- {reason}")
        self.view.set_state(name, "failed")

    def _end_all(self) -> None:
        """Ask all items to write a checkpoint and end, and wait for them."""
        for stream in self._running:
            ray.cancel(stream)
        ends = [stream.completed() for stream in self._running]
        ray.wait(ends, num_returns=len(ends), timeout=_STOP_SECONDS, fetch_local=False)
