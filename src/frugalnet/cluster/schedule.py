"""Items on a cluster: placed where there is room, placed again when a worker or a node is lost, ended in order."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from frugalnet.cluster.items import (
    Accepted,
    Broken,
    Ended,
    Epoch,
    Failed,
    Finished,
    Item,
    Line,
    Lost,
    Placed,
    Refused,
    Reported,
    read_epoch,
)
from frugalnet.cluster.view import View
from frugalnet.errors import UserError

_MAX_LOSSES = 3  # of an item's worker or node, with no epoch finished in between


class Cluster(Protocol):
    """Where items run: `ray_cluster.RayCluster`."""

    def nodes_with_room(self) -> set[str]:
        """The ids of the nodes that have what an item asks for, whether it is free or not."""

    def start(
        self, item: Item, expected: Mapping[str, Any] | None, known: Container[str], refused: Sequence[str]
    ) -> Any:
        """Have a node run the item as soon as it has room; returns the task.

        expected, known: see `node.run_task`. refused: the ids of nodes that are not used.
        """

    def reports(self, tasks: Sequence[Any]) -> Iterable[tuple[Any, Reported]]:
        """Of tasks that have reported, the task and its next report. Waits half a second for the first."""

    def end(self, tasks: Sequence[Any]) -> None:
        """Ask tasks to write a checkpoint and end, and wait for them."""


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

    cluster: Cluster
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
        """Run all items. Returns a signal's number if `stop` did, and all items have been asked to end then, else 0.

        Raises UserError if no node can run items.
        """
        waiting = list(items)
        while (waiting or self._running) and not stop():
            # Until one node has said what the bits depend on there, the others have nothing to be compared with.
            room = len(waiting) if self._environment else 1 - len(self._running)
            for item in waiting[:room]:
                task = self.cluster.start(item, self._environment, frozenset(self._known), sorted(self._refused))
                self._running[task] = _Running(item)
            again: list[Item] = []
            for task, report in self.cluster.reports(list(self._running)):
                again += self._handle(task, report)
            waiting = [*again, *waiting[room:]]
        number = stop()
        if number:
            self.cluster.end(list(self._running))
        return number

    def _handle(self, task: Any, report: Reported) -> list[Item]:
        """Take note of a report. Returns the items that have to be placed again."""
        running = self._running[task]
        name = running.item.name
        if isinstance(report, Ended | Broken | Lost):
            del self._running[task]
        match report:
            case Placed(node_id, host):
                running.node_id = node_id
                running.place = host
                self.view.place(name, host)
            case Accepted(environment):
                self._environment = self._environment or dict(environment)
                self._known.add(running.node_id)
            case Refused(reason):
                return self._refuse(running, reason)
            case Broken(reason) if running.node_id:
                return self._refuse(running, reason)
            case Broken(reason):  # not even the task could be loaded there
                self._fail(name, f"a node cannot run items: {reason}")
            case Lost():
                return self._lose(running, report)
            case Line(text):
                self._show(name, text)
            case Failed(stage, reason):
                self._fail(name, f"{stage} failed: {reason}")
            case Finished():
                try:
                    self.on_finished(running.item, report)
                    self.view.set_state(name, "done")
                except (UserError, OSError) as error:
                    self._fail(name, str(error))
        return []

    def _show(self, name: str, text: str) -> None:
        self.view.write(name, text)
        if isinstance(epoch := read_epoch(text), Epoch):
            self._losses.pop(name, None)
            self.view.finish_epoch(name, epoch)
        elif text.startswith("tracking: "):  # what MLflow lacks, which a serial run says, too
            self.view.warn(text)

    def _refuse(self, running: _Running, reason: str) -> list[Item]:
        """Use a node no longer. Raises UserError if no node is left."""
        if running.node_id not in self._refused:
            self._refused[running.node_id] = reason
            self.view.warn(f"node {running.place or running.node_id[:8]} is not used: {reason}")
        if self.cluster.nodes_with_room() <= self._refused.keys():
            raise UserError(f"no node can run the items: {reason}")
        self.view.set_state(running.item.name, "waiting")
        return [running.item]

    def _lose(self, running: _Running, lost: Lost) -> list[Item]:
        """Place an item again whose worker or node is gone, if it gets on."""
        name = running.item.name
        losses = self._losses[name] = self._losses.get(name, 0) + 1
        self.view.write(name, f"--- lost on {running.place}: {lost.kind}: {lost.reason}")
        if losses > _MAX_LOSSES:
            self._fail(name, f"its worker was lost {losses} times in a row ({lost.kind}: {lost.reason})")
            return []
        self.view.warn(f"{name}: its worker on {running.place or 'a node'} was lost ({lost.kind}); it resumes")
        self.view.set_state(name, "waiting")
        return [running.item]

    def _fail(self, name: str, reason: str) -> None:
        self.failures[name] = reason
        self.view.write(name, f"--- {reason}")
        self.view.set_state(name, "failed")
