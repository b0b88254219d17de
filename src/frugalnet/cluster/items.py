"""What the scheduler and the nodes tell each other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EPOCH = re.compile(r"epoch (\d+)/(\d+): .*\(validation \S+, ([\d.]+)%\)(?:.*, ([\d,]+) images a second)?")


@dataclass(frozen=True)
class Stage:
    """A stage to run, `train@depthwise-0`, and the files that it leaves."""

    name: str
    outs: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One network and seed: the stages that are missing, in their order.

    name: `depthwise-0`. sources: the hash of the code that decides its weights. needs: what the stages read below
    `data/`. files: what the first stage reads of earlier ones, by path, for a node with a clone of its own.
    """

    name: str
    stages: tuple[Stage, ...]
    sources: str
    needs: tuple[str, ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Job:
    """What all items of a command have in common.

    root: the project's folder where the command runs. token: the content of the file TOKEN there; a node that finds it
    shares the folder. files: params.yaml, dvc.yaml and dvc.lock, by name. compute: the parameters `compute` as JSON.
    variables: of the environment, for the stages.
    """

    root: Path
    token: str
    files: Mapping[str, bytes]
    remote: str | None
    compute: str
    variables: Mapping[str, str]


TOKEN = Path(".dvc/tmp/train-all")  # of the running command, in the project's folder


class Refusal(Exception):
    """Why a node cannot run items, in one line."""


# What a node reports of an item: Placed, then Refused, or else Accepted, any number of Line, and Failed or Finished.


@dataclass(frozen=True)
class Placed:
    """The item has a node: Ray's id, and the host's name."""

    node_id: str
    host: str


@dataclass(frozen=True)
class Accepted:
    """The node can run items. environment: what their bits depend on there, see `compute.bits_depend_on`."""

    environment: Mapping[str, Any]


@dataclass(frozen=True)
class Refused:
    """The node cannot run items."""

    reason: str


@dataclass(frozen=True)
class Line:
    """What a stage printed."""

    text: str


@dataclass(frozen=True)
class Failed:
    """A stage ended with an error: its last line."""

    stage: str
    reason: str


@dataclass(frozen=True)
class Finished:
    """These stages ended well. outs: the content of their files, unless the node shares the project's folder."""

    stages: tuple[Stage, ...]
    outs: Mapping[str, bytes]


Event = Placed | Accepted | Refused | Line | Failed | Finished


# What becomes of the task that runs an item: it ends after its last event, or before it.


@dataclass(frozen=True)
class Ended:
    """The node has reported all."""


@dataclass(frozen=True)
class Broken:
    """The task itself failed on the node: its code is another version, or its installation is broken."""

    reason: str


@dataclass(frozen=True)
class Lost:
    """The worker or the node is gone. kind: the name of Ray's exception."""

    kind: str
    reason: str


Reported = Event | Ended | Broken | Lost


@dataclass(frozen=True)
class Epoch:
    """A finished epoch, as a training prints it. top1: on the validation images, in percent."""

    number: int
    of: int
    top1: float
    images_per_second: float | None


def read_epoch(line: str) -> Epoch | None:
    """The epoch that a line of a training's output reports, or None."""
    found = _EPOCH.match(line)
    if not found:
        return None
    number, of, top1, speed = found.groups()
    return Epoch(int(number), int(of), float(top1), float(speed.replace(",", "")) if speed else None)


def differences(expected: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In which settings of `compute.bits_depend_on` a node differs, in words; empty if in none."""
    keys = sorted({*expected, *here})
    return "; ".join(
        f"{key}: {here.get(key)} there, {expected.get(key)} expected"
        for key in keys
        if here.get(key) != expected.get(key)
    )
