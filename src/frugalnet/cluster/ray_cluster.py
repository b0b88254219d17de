"""Ray's part: it connects to a cluster, runs items on its nodes, and says what nodes have."""

import os
import socket
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from frugalnet.cluster import node
from frugalnet.cluster.items import Broken, Ended, Item, Job, Lost, Reported
from frugalnet.cluster.resources import Resources
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
        # Ray gives no reason. `ray start --head` asks for a token where there is one; it is not sent unless asked for.
        is_unasked = address and "RAY_AUTH_MODE" not in os.environ
        token = "; set RAY_AUTH_MODE=token if it asks for a token" if is_unasked else ""
        raise UserError(f"no Ray cluster at {address or 'this machine'} (RAY_ADDRESS): {reason}{token}") from error
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


class RayCluster:
    """The cluster that this process is connected to. A task is Ray's stream of what a node reports."""

    def __init__(self, job: Job, resources: Resources) -> None:
        self._job = ray.put(job)
        self._resources = resources

    def nodes_with_room(self) -> set[str]:
        """The ids of the nodes that have what an item asks for, whether it is free or not."""
        asks = self._resources
        asked = {"CPU": asks.cores, "GPU": asks.gpus, "memory": asks.memory_bytes}
        return {
            one["NodeID"]
            for one in ray.nodes()
            if one["Alive"] and all(one["Resources"].get(kind, 0) >= amount for kind, amount in asked.items())
        }

    def start(
        self, item: Item, expected: Mapping[str, Any] | None, known: Container[str], refused: Sequence[str]
    ) -> Any:
        """See `schedule.Cluster`."""
        options = self._resources.options()
        if refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(refused)})"}
        task = ray.remote(node.run_task).options(num_returns="streaming", **options)
        return task.remote(self._job, item, expected, known)

    def reports(self, tasks: Sequence[Any]) -> Iterator[tuple[Any, Reported]]:
        """See `schedule.Cluster`."""
        ready, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=0.5, fetch_local=False)
        for task in ready:
            yield task, _next_report(task)

    def end(self, tasks: Sequence[Any]) -> None:
        """See `schedule.Cluster`."""
        for task in tasks:
            ray.cancel(task)
        if ends := [task.completed() for task in tasks]:
            ray.wait(ends, num_returns=len(ends), timeout=_STOP_SECONDS, fetch_local=False)


def _next_report(task: Any) -> Reported:
    try:
        report: Reported = ray.get(next(task))
    except StopIteration:
        return Ended()
    except RayTaskError as error:  # our own code failed there: another version of it, or a broken installation
        return Broken(printable(str(error).strip().splitlines()[-1])[:300])
    except (RayError, OSError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        return Lost(type(error).__name__, reason or type(error).__name__)
    return report
