"""Where and when items run, and what is shown of it: all of `make train-all` that needs neither Ray nor DVC."""

import io
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from frugalnet.cluster.config import ClusterConfig
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
from frugalnet.cluster.resources import Resources, choose_resources
from frugalnet.cluster.schedule import Schedule
from frugalnet.cluster.view import View
from frugalnet.compute_config import ComputeConfig
from frugalnet.errors import UserError
from frugalnet.training.loop import epoch_line

COMPUTE = {
    "device": "auto",
    "threads": 0,
    "processes": 1,
    "compile": "off",
    "deterministic": False,
    "checkpoint_minutes": 5.0,
    "records": "none",
}
ENVIRONMENT = {"threads": 1}
PLACED = Placed("id-a", "a")
FIRST = [PLACED, Accepted(ENVIRONMENT)]
DONE = Finished((), {})
LOST = Lost("NodeDiedError", "no heartbeat")
EPOCH = Line("epoch 1/9: loss 1.0, top-1 50.00% (validation 1.0, 50.00%), 10 images a second")


class Script:
    """A cluster that reports what a test lists: of each item, a list for each time it is started.

    A task is the item's name and how often it was started before; each turn brings one report of each task.
    """

    def __init__(self, reports: dict[str, list[list[Reported]]], ids: tuple[str, ...] = ("id-a", "id-b")) -> None:
        self.left = {(name, n): list(each) for name, lists in reports.items() for n, each in enumerate(lists)}
        self.ids = set(ids)
        self.started: list[tuple[str, Any, Any]] = []  # item, expected, refused
        self.ended: list[Any] = []

    def nodes_with_room(self) -> set[str]:
        return self.ids

    def start(self, item: Item, expected: Any, known: Any, refused: Any) -> Any:
        before = sum(name == item.name for name, *_ in self.started)
        self.started.append((item.name, expected, refused))
        return item.name, before

    def reports(self, tasks: Any) -> Iterator[tuple[Any, Reported]]:
        assert tasks
        for task in tasks:
            yield task, self.left[task].pop(0) if self.left[task] else Ended()

    def end(self, tasks: Any) -> None:
        self.ended += tasks


@pytest.fixture
def scheduled(tmp_path):
    """Runs the items of a script to their end; the schedule, and the names of those that finished."""

    def run(script: Script, stop=lambda: 0, on_finished=lambda item: None) -> tuple[Schedule, list[str]]:
        finished = []

        def finish(item: Item, _: Finished) -> None:
            on_finished(item)
            finished.append(item.name)

        names = list(dict.fromkeys(name for name, _ in script.left))
        with View(names, tmp_path) as view:
            schedule = Schedule(script, view, finish)
            schedule.number = schedule.run([Item(name, (), "", (), {}) for name in names], stop)
        return schedule, finished

    return run


def test_the_first_item_says_what_the_others_bits_have_to_depend_on(scheduled):
    script = Script({"a-0": [[*FIRST, DONE]], "b-0": [[PLACED, DONE]], "c-0": [[PLACED, EPOCH, DONE]]})
    schedule, finished = scheduled(script)
    assert script.started == [("a-0", None, []), ("b-0", ENVIRONMENT, []), ("c-0", ENVIRONMENT, [])]
    assert finished == ["a-0", "b-0", "c-0"]
    assert (schedule.failures, schedule.number, script.ended) == ({}, 0, [])


def test_a_lost_item_is_placed_again_and_fails_after_four_losses_without_an_epoch_in_between(scheduled, capsys):
    moving = [[*FIRST, LOST], [PLACED, LOST], [PLACED, EPOCH, LOST], [PLACED, LOST], [LOST], [PLACED, DONE]]
    script = Script({"a-0": moving, "b-0": 4 * [[PLACED, LOST]], "c-0": [[PLACED, DONE]]})
    schedule, finished = scheduled(script)
    assert sorted(finished) == ["a-0", "c-0"]
    assert schedule.failures == {"b-0": "its worker was lost 4 times in a row (NodeDiedError: no heartbeat)"}
    assert [name for name, *_ in script.started].count("b-0") == 4
    assert capsys.readouterr().err.count("was lost (NodeDiedError); it resumes") == 5 + 3


@pytest.mark.parametrize("report", [Refused("other code"), Broken("other code")])
def test_a_refused_node_is_named_once_and_its_items_go_elsewhere(scheduled, capsys, report):
    script = Script({"a-0": [[PLACED, report], [Placed("id-b", "b"), Accepted(ENVIRONMENT), DONE]], "b-0": [[DONE]]})
    _, finished = scheduled(script)
    assert finished == ["a-0", "b-0"]
    assert script.started == [("a-0", None, []), ("a-0", None, ["id-a"]), ("b-0", ENVIRONMENT, ["id-a"])]
    assert capsys.readouterr().err.count("node a is not used: other code") == 1
    with pytest.raises(UserError, match=r"^no node can run the items: other code$"):
        scheduled(Script({"a-0": [[PLACED, report]]}, ("id-a",)))


def test_what_fails_is_named_with_its_reason_and_the_others_finish(scheduled, tmp_path):
    def commit(item: Item) -> None:
        if item.name == "c-0":
            raise OSError("No space left on device")

    failed = [PLACED, Line("no luck"), Failed("train@b-0", "no luck")]
    lists = {"a-0": [*FIRST, DONE], "b-0": failed, "c-0": [PLACED, DONE], "d-0": [Broken("no frugalnet")]}
    schedule, finished = scheduled(Script({name: [each] for name, each in lists.items()}), on_finished=commit)
    assert finished == ["a-0"]
    assert schedule.failures == {
        "b-0": "train@b-0 failed: no luck",
        "c-0": "No space left on device",
        "d-0": "a node cannot run items: no frugalnet",
    }
    assert (tmp_path / "b-0.log").read_text() == "--- on a\nno luck\n--- train@b-0 failed: no luck\n"


def test_a_signal_ends_what_runs_and_nothing_is_started_any_more(scheduled):
    signals: list[int] = []
    lists = {"a-0": [*FIRST, EPOCH, DONE], "b-0": [LOST], "c-0": [DONE]}
    script = Script({name: [each] for name, each in lists.items()})
    schedule, finished = scheduled(
        script, lambda: signals[0] if signals else 0, on_finished=lambda item: signals.append(signal.SIGTERM)
    )
    assert finished == ["c-0"]
    assert schedule.number == signal.SIGTERM
    assert [name for name, *_ in script.started] == ["a-0", "b-0", "c-0"]
    assert script.ended == [("a-0", 0), ("c-0", 0)]


def test_what_mlflow_lacks_is_shown_beside_the_table(scheduled, capsys):
    line = "tracking: depthwise: its curves could not be logged (no connection). Results are on disk"
    scheduled(Script({"a-0": [[*FIRST, Line(line), Line("more"), DONE]]}))
    said = capsys.readouterr().err.splitlines()
    assert line in said
    assert "more" not in said


def resources(
    available: list[dict[str, int]], items: int, gpus: float = 1, workers: int = 1, **changes: Any
) -> Resources:
    compute = ComputeConfig(**(COMPUTE | changes))
    return choose_resources(compute, ClusterConfig(gpus=gpus, memory_gb=0, remote=None), workers, available, items)


@pytest.mark.parametrize(
    ("nodes", "gpus", "workers", "items", "cores"),
    [
        ([{"CPU": 2}], 1, 1, 3, 1),  # fewer cores than trainings
        ([{"CPU": 16}], 1, 1, 3, 5),
        ([{"CPU": 16}], 1, 2, 3, 4),  # two workers each
        ([{"CPU": 8}, {"CPU": 4}], 1, 1, 3, 4),  # no training on two nodes
        ([{"CPU": 16, "GPU": 4}, {"CPU": 8}], 1, 1, 3, 4),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 6, "GPU": 2}], 0.5, 1, 9, 1),
        ([{"CPU": 16, "GPU": 4}], 0.5, 2, 9, 8),  # a GPU for each worker
        ([{"CPU": 1, "GPU": 2}], 1, 1, 9, 1),
    ],
)
def test_cores_are_divided_among_trainings(monkeypatch, nodes, gpus, workers, items, cores):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert resources(nodes, items, gpus, workers).cores == cores


def test_a_training_asks_for_gpus_where_there_are_some_and_cuda_without_any_is_refused(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    mixed = [{"CPU": 4}, {"CPU": 4, "GPU": 2}]
    assert resources(mixed, 2).gpus == 1
    assert resources(mixed, 2, gpus=0.5, device="cuda").gpus == 0.5
    assert resources(mixed, 2, gpus=0.5, workers=2).gpus == 2
    assert resources(mixed, 2, device="cpu").gpus == resources([{"CPU": 4}], 2).gpus == 0
    with pytest.raises(UserError, match=r"^compute.device: 'cuda' is not available: no node of the cluster has a GPU"):
        resources([{"CPU": 4}], 2, device="cuda")


def test_omp_num_threads_decides_if_the_parameter_does_not_and_one_that_is_overridden_is_said(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert resources([{"CPU": 4}], 2).cores == 3
    assert capsys.readouterr().err == ""
    assert resources([{"CPU": 4}], 2, threads=2).cores == 2
    assert capsys.readouterr().err == "2 threads (compute.threads), not the 3 of OMP_NUM_THREADS\n"


def test_an_epoch_is_read_from_the_line_that_a_training_prints():
    row = {"epoch": 3, "train_loss": 1.2, "train_top1": 0.5, "validation_loss": float("nan"), "validation_top1": 0.345}
    assert read_epoch(f"{epoch_line(row, 30)}, 1,234 images a second") == Epoch(3, 30, 34.5, 1234.0)
    assert read_epoch(f"{epoch_line(row, 30)}, 2 workers, 3.4 s") == Epoch(3, 30, 34.5, None)
    assert read_epoch("resuming from the checkpoint: epoch 2, step 1") is None


def test_without_a_terminal_each_event_is_a_line_and_the_log_has_all(tmp_path, capsys):
    with View(["residual-0", "depthwise-0"], tmp_path / "logs") as view:
        view.place("depthwise-0", "the-node")
        view.write("depthwise-0", "what a stage prints")
        view.rows["depthwise-0"].started -= 90
        view.finish_epoch("depthwise-0", Epoch(1, 3, 34.5, 1234.0))
    said = capsys.readouterr().err.splitlines()
    assert said == ["depthwise-0: on the-node", "depthwise-0: epoch 1/3, top-1 34.5 %, 1,234 images/s, 3 min left"]
    assert view.log("depthwise-0").read_text() == "--- on the-node\nwhat a stage prints\n"
    with Console(width=100, record=True, file=io.StringIO()) as console:
        console.print(view._table())
    counts, _, running, waiting = (line.split() for line in console.export_text().splitlines())
    assert counts == ["1", "training,", "1", "waiting"]
    assert running == ["depthwise-0", "the-node", "training", "1/3", "34.5", "%", "1,234", "3", "min"]
    assert waiting == ["residual-0", "waiting"]
