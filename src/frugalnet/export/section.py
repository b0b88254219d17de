"""The report's section "On a device": every network's files for other runtimes, as the stage export left them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frugalnet.comparison.compare import Comparison, Row
from frugalnet.document.blocks import Block, Cell, Chart, Point, Section, Table
from frugalnet.document.charts import colours, scatter
from frugalnet.document.wording import BYTES, MILLISECONDS, human, percent, scale, signed_points
from frugalnet.files import read_json
from frugalnet.metrics.statistics import wilson_interval

ID = "export"
TITLE = "On a device"
CHOICE = "model=study"
NAMES = {"pytorch": "PyTorch", "onnx": "ONNX", "int8": "ONNX, int8", "executorch": "ExecuTorch"}
DRAWN = {"onnx": "", "int8": " int8"}  # the formats of the chart, and what is added to the network's name


@dataclass(frozen=True)
class Exported:
    """A network's export.json, and the formats of its timing.json with their machine."""

    model: str
    seed: int
    found: dict[str, Any]
    costs: dict[str, Any]
    machine: dict[str, Any]


def read(results: Path, model: str, seed: int) -> Exported | None:
    """What `results` holds of a network's export; None if it was not exported and measured."""
    name = f"{model}-{seed}"
    export, timing = results / "export" / name / "export.json", results / "export_timing" / name / "timing.json"
    if not (export.is_file() and timing.is_file()):
        return None
    costs = read_json(timing)
    return Exported(model, seed, read_json(export), costs["formats"], costs["machine"])


@dataclass(frozen=True)
class Result:
    """The first seed of each network, as far as it was exported."""

    networks: list[Exported]


def load(results: Path, comparison: Comparison) -> Result | None:
    found = [read(results, row.model, row.records[0].seed) for row in comparison.rows]
    networks = [one for one in found if one]
    return Result(networks) if networks else None


def summary(result: Result, comparison: Comparison) -> dict[str, Any]:
    return {one.model: one.found for one in result.networks}


def section(result: Result, comparison: Comparison) -> Section:
    networks = result.networks
    blocks: list[Block] = [table(networks), note(networks), _chart(comparison.rows, networks), CHART]
    if (suffering := _suffering(networks)).rows:
        blocks += [suffering, SUFFERING]
    return Section("device", TITLE, blocks)


def table(networks: Sequence[Exported]) -> Table:
    """Accuracy, bytes, latency and memory of every network in every format, each column in one unit."""
    header = ("Network", "Format", "Top-1", "Differs from PyTorch", "File", "Latency, batch\u00a01", "Peak memory")
    shown = [(one, kind) for one in networks for kind in NAMES if kind in one.found["formats"]]
    costs = [one.costs[kind] for one, kind in shown]
    size = scale([one.found["formats"][kind]["bytes"] for one, kind in shown], BYTES)
    latency = scale([cost["latency_ms"]["median"] for cost in costs], MILLISECONDS)
    memory = scale([cost["peak_memory_bytes"] for cost in costs], BYTES)
    rows = []
    for (one, kind), cost in zip(shown, costs, strict=True):
        found, times, arena = one.found["formats"][kind], cost["latency_ms"], cost["arena_bytes"]
        others = f"{found['other_class']:,} of {one.found['n']:,}" if kind != "pytorch" else "–"
        rows.append(
            [
                Cell(one.model, style="network"),
                Cell(NAMES[kind]),
                Cell(percent(found["top1"]), _lost(one) if kind == "int8" else ()),
                Cell(others),
                Cell(size(found["bytes"])),
                Cell(latency(times["median"]), (latency.range(times["p5"], times["p95"]), f"n\u00a0{times['n']}")),
                Cell(memory(cost["peak_memory_bytes"]), (f"arena {human(arena)}B",) if arena else ()),
            ]
        )
    return Table("Formats of all networks", header, rows, (0, 1))


def _lost(one: Exported) -> tuple[str, ...]:
    """What int8 loses, with its interval, and whether that is too much."""
    change = {k: signed_points(-value / 100) for k, value in one.found["formats"]["int8"]["loss_points"].items()}
    lost = f"{change['estimate']} points ({change['high']} to {change['low']})"
    limit = f"not registered: loses more than {one.found['max_loss_points']:g} points"
    return (lost,) if one.found["int8_accepted"] else (lost, limit)


def note(networks: Sequence[Exported]) -> str:
    found, measured_on = networks[0].found, [one.machine for one in networks]
    machines = dict.fromkeys(f"{on['cpu']} ({on['cpu_capability']}, torch {on['torch']})" for on in measured_on)
    seeds = ", ".join(f"{one.model} {one.seed}" for one in networks)
    before = human(max(cost["before_bytes"] for one in networks for cost in one.costs.values()))
    return (
        f"Measured on one thread of {' or '.join(machines)}, all "
        f"formats of a network in alternating rounds; median, 5th to 95th percentile. Seeds: {seeds}. int8 is "
        f"quantised on {found['calibration_images']:,} training images; its top-1 is followed by the difference "
        "from PyTorch, paired by image, with its 95 % interval. Peak memory: resident, of a process that only runs the "
        f"network, in Python, which holds {before}B with NumPy before the runtime is loaded; ExecuTorch’s Python "
        "package loads PyTorch too, which a device does not. Arena: the memory that the runtime "
        "itself says it reserves for the activations of one image."
    )


def _chart(rows: Sequence[Row], networks: Sequence[Exported]) -> Chart:
    """Accuracy against the bytes of the ONNX files."""
    colour, points = colours(row.model for row in rows), []
    for one in networks:
        for kind in (kind for kind in DRAWN if kind in one.found["formats"]):
            top1, size, n = (*(one.found["formats"][kind][key] for key in ("top1", "bytes")), one.found["n"])
            low, high = map(float, wilson_interval(np.rint(top1 * n), np.array(n)))
            text = [f"top-1 {percent(top1)} ({percent(low)} to {percent(high)})", f"{human(size)}B"]
            name, bounds = one.model + DRAWN[kind], (100 * low, 100 * high)
            points.append(Point(name, colour[one.model], float(size), 100 * top1, bounds, text))
    return scatter("accuracy_bytes", "Top-1 against the bytes of the file", "bytes of the ONNX file", points)


def _suffering(networks: Sequence[Exported]) -> Table:
    rows = [
        [
            Cell(one.model, style="network"),
            Cell(c["name"]),
            *(Cell(f"{c[kind]} of {c['n']}") for kind in ("pytorch", "int8")),
        ]
        for one in networks
        for c in one.found["int8_classes_that_lose_most"]
    ]
    return Table("Classes that int8 hurts most", ("Network", "Class", "PyTorch", "int8"), rows, (0, 1))


CHART = (
    "Filled points are Pareto-optimal. Vertical bars are Wilson 95 % intervals. File sizes are on a logarithmic scale."
)
SUFFERING = "Images classified correctly. With so few images of a class, a difference of one or two is chance."
