"""What the command shows: a live table on a terminal, else a line for each event. A log of each item is kept."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from frugalnet.cluster.items import Epoch

# In the table's order: a terminal cuts off what is below its last line.
_STATES = ("training", "starting", "failed", "waiting", "done")
_COLUMNS = ("item", "node", "state", "epoch", "top-1", "images/s", "left")


@dataclass
class Row:
    """One item: where it is, and how far."""

    name: str
    node: str = ""
    state: str = "waiting"
    epoch: Epoch | None = None
    started: float = field(default_factory=time.monotonic)  # the latest epoch, by `time.monotonic`
    seconds: float | None = None  # of the latest epoch

    def place(self, node: str) -> None:
        self.node = node
        self.state = "starting"
        self.started = time.monotonic()

    def finish(self, epoch: Epoch) -> None:
        """Take note of a finished epoch."""
        now = time.monotonic()
        self.seconds = now - self.started
        self.started = now
        self.state = "training"
        self.epoch = epoch

    def cells(self) -> list[str]:
        """The row of the table."""
        if self.epoch is None:
            return [self.name, self.node, self.state, "", "", "", ""]
        speed = f"{self.epoch.images_per_second:,.0f}" if self.epoch.images_per_second else ""
        rest = self.epoch.of - self.epoch.number
        left = _duration(rest * self.seconds) if self.seconds and rest else ""
        reached = f"{self.epoch.number}/{self.epoch.of}"
        return [self.name, self.node, self.state, reached, f"{self.epoch.top1:.1f} %", speed, left]


class View:
    """The rows of all items, shown on stderr; `logs` is the folder of their logs."""

    def __init__(self, names: Sequence[str], logs: Path) -> None:
        self.rows = {name: Row(name) for name in names}
        self.logs = logs
        self._console = Console(stderr=True)
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2)

    def __enter__(self) -> "View":
        self.logs.mkdir(parents=True, exist_ok=True)
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def log(self, name: str) -> Path:
        """The file that holds what an item's stages printed."""
        return self.logs / f"{name}.log"

    def place(self, name: str, node: str) -> None:
        self.rows[name].place(node)
        self.write(name, f"--- on {node}")
        self.say(f"{name}: on {node}")

    def write(self, name: str, line: str) -> None:
        """Append a line to an item's log."""
        with self.log(name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def finish_epoch(self, name: str, epoch: Epoch) -> None:
        row = self.rows[name]
        row.finish(epoch)
        _, _, _, reached, top1, speed, left = row.cells()
        more = [f"{speed} images/s"] * bool(speed) + [f"{left} left"] * bool(left)
        self.say(", ".join([f"{name}: epoch {reached}, top-1 {top1}", *more]))

    def set_state(self, name: str, state: str) -> None:
        """Show an item's state, one of _STATES."""
        self.rows[name].state = state
        self.say(f"{name}: {state}")

    def say(self, line: str) -> None:
        """Print what the table shows by itself, where there is no table."""
        if not self._console.is_terminal:
            print(line, file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        """Print a line that stays."""
        if self._console.is_terminal:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _table(self) -> Table:
        rows = sorted(self.rows.values(), key=lambda row: _STATES.index(row.state))
        counts = ", ".join(f"{n} {state}" for state in _STATES if (n := sum(row.state == state for row in rows)))
        table = Table(box=None, pad_edge=False, title=counts, title_justify="left")
        for column in _COLUMNS:
            table.add_column(column, no_wrap=True, justify="left" if column in _COLUMNS[:3] else "right")
        for row in rows:
            table.add_row(*row.cells())
        return table


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
