"""Which of the stored networks fit a budget: each file of each, with its accuracy, bytes and latency."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from frugalnet import recommendation
from frugalnet.errors import UserError
from frugalnet.export.description import LICENCE
from frugalnet.export.formats import Format
from frugalnet.metrics.statistics import wilson_interval
from frugalnet.processes import cpu_model_name
from frugalnet.recommendation import Budget, Candidate, Cost
from frugalnet.schema import Config
from frugalnet.use import runtime, weights
from frugalnet.use.weights import Stored

MEASURED = "latency.json"  # in a folder of weights; apart from weights.json, which has the same bytes everywhere
ROUNDS = 20  # in each of which every file is timed in turn, so that a noisy machine favours none
CALLS = 20
_OPTIONS: dict[Cost, str] = {"macs": "--max-macs", "weights_bytes": "--max-bytes", "latency_ms": "--max-ms"}


class Latencies(Config):
    """Medians of one picture in milliseconds, of each network's files, and where they were measured."""

    machine: dict[str, str | int]
    latency_ms: dict[str, dict[Format, Annotated[float, Field(gt=0)]]]


@dataclass(frozen=True)
class Option:
    """A file of a stored network. latency_ms: None if it was not measured."""

    stored: Stored
    format: Format
    path: Path
    top1: float
    latency_ms: float | None

    @property
    def name(self) -> str:
        return f"{self.stored.name} {self.format}"

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of its top-1, over the pictures that it was evaluated on."""
        n = self.stored.entry.n
        low, high = wilson_interval(np.rint(self.top1 * n), np.array(n))
        return float(low), float(high)

    @property
    def candidate(self) -> Candidate:
        macs = self.stored.entry.macs
        return Candidate(self.name, self.top1, macs, weights_bytes=self.bytes, latency_ms=self.latency_ms)

    def described(self) -> dict[str, Any]:
        """As JSON: top-1 and its interval in 0..1."""
        entry = self.stored.entry
        low, high = self.interval
        accuracy = {"top1": self.top1, "top1_low": low, "top1_high": high, "n": entry.n}
        cost = {"macs": entry.macs, "bytes": self.bytes, "latency_ms": self.latency_ms}
        terms = {"data": entry.data, "licence": LICENCE}
        return {"network": self.stored.name, "format": self.format, **accuracy, **cost, **terms}


def list_options(networks: Sequence[Stored], measured: Latencies | None = None) -> list[Option]:
    """The files for ONNX Runtime of stored networks, of those whose accuracy is known. measured: their latencies."""
    options = []
    for stored in networks:
        entry = stored.entry
        latency = measured.latency_ms.get(stored.name, {}) if measured else {}
        if entry.onnx:
            path = stored.path.parent / entry.onnx.file
            options.append(Option(stored, "onnx", path, entry.top1, latency.get("onnx")))
        if entry.int8 and entry.int8.top1 is not None:
            path = stored.path.parent / entry.int8.file
            options.append(Option(stored, "int8", path, entry.int8.top1, latency.get("int8")))
    return options


def read_options(where: Path | None = None, kind: Format | None = None) -> tuple[list[Option], Latencies | None]:
    """The ONNX files, or those of one format, of a folder or file of weights, by default the project's.

    Also returns where their latencies were measured. Raises UserError if there are none.
    """
    networks = weights.list_networks(where)
    timed = networks[0].path.with_name(MEASURED)
    measured = weights.read_description(Latencies, timed) if timed.exists() else None
    options = [option for option in list_options(networks, measured) if kind in (None, option.format)]
    if not options:
        raise UserError(f"{where or timed.parent}: holds no {kind or 'onnx'} file; write some with frugalnet export")
    return options, measured


def with_latencies(options: Sequence[Option], measured: Latencies) -> list[Option]:
    """The same files with other latencies."""
    return [replace(option, latency_ms=measured.latency_ms[option.stored.name][option.format]) for option in options]


def time_options(options: Sequence[Option]) -> Latencies:
    """Time one picture on one thread with each file, alternating between them."""
    runs = [runtime.open_onnx(option.path) for option in options]
    sides = [option.stored.entry.side for option in options]
    pictures = [np.full((1, side, side, 3), 127, np.uint8) for side in sides]
    seconds: list[list[float]] = [[] for _ in options]
    for run, picture in zip(runs, pictures, strict=True):
        run(picture)
    for _ in range(ROUNDS):
        for run, picture, times in zip(runs, pictures, seconds, strict=True):
            for _ in range(CALLS):
                start = time.perf_counter()
                run(picture)
                times.append(time.perf_counter() - start)
    medians: dict[str, dict[Format, float]] = {}
    for option, times in zip(options, seconds, strict=True):
        medians.setdefault(option.stored.name, {})[option.format] = 1000 * float(np.median(times))
    machine: dict[str, str | int] = {"cpu": cpu_model_name(), "threads": 1, "onnxruntime": version("onnxruntime")}
    return Latencies(machine=machine, latency_ms=medians)


def fitting(options: Sequence[Option], budget: Budget) -> list[Option]:
    """The files within a budget, best first: by top-1, then by MACs.

    Raises UserError, naming the closest, if none is.
    """
    by_name = {option.name: option for option in options}
    choice = recommendation.choose([option.candidate for option in options], budget)
    if choice.fitting:
        return [by_name[candidate.name] for candidate in choice.fitting]
    limits = " ".join(f"{_OPTIONS[cost]} {limit:,.10g}" for cost, limit in budget.limits.items())
    if choice.unknown:
        names = ", ".join(candidate.name for candidate in choice.unknown)
        raise UserError(f"no network is known to fit {limits}: not measured for {names}; time them with --measure")
    if choice.closest is None:
        raise UserError(f"no network fits {limits}")
    cost, times = max(budget.exceeded(choice.closest).items(), key=lambda item: item[1])
    closest = f"the closest, {choice.closest.name}, needs {times:.3g} times as much as {_OPTIONS[cost]} allows"
    raise UserError(f"no network fits {limits}; {closest}")


def why(option: Option, measured: Latencies | None) -> str:
    """Which network was chosen, and its figures, in a line. measured: where its latency was."""
    low, high = option.interval
    accuracy = f"top-1 {option.top1:.1%} ({100 * low:.1f} to {100 * high:.1f} %) on {option.stored.entry.data}"
    cost = f"{option.stored.entry.macs / 1e6:.2f} M MACs, {option.bytes:,} bytes as {option.format}"
    time = f", {option.latency_ms:.2f} ms on {_machine(measured)}" if option.latency_ms and measured else ""
    return f"{option.stored.name}, the most accurate within the limits: {accuracy}, {cost}{time}"


def table(options: Sequence[Option], measured: Latencies | None) -> str:
    """A line for each file, for a terminal; where the latencies were measured; the licence."""
    lines = [("network", "file", "top-1 (95 % interval)", "MACs", "bytes", "latency", "data")]
    for option in options:
        low, high = option.interval
        accuracy = f"{option.top1:.1%} ({100 * low:.1f} to {100 * high:.1f} %)"
        latency = f"{option.latency_ms:.2f} ms" if option.latency_ms else "not measured"
        cost = f"{option.stored.entry.macs / 1e6:.2f} M", f"{option.bytes:,}", latency
        lines.append((option.stored.name, option.format, accuracy, *cost, option.stored.entry.data))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    timed = [f"Latency of one picture, measured on: {_machine(measured)}."] if measured else []
    return "\n".join([*rows, *timed, f"Licence of the networks: {LICENCE}; the data have their own."])


def _machine(measured: Latencies) -> str:
    return ", ".join(f"{key} {value}" for key, value in measured.machine.items())
