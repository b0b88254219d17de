"""The report's section "On a device": every network's files for other runtimes, as the stage export left them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.experiment import Experiment
from frugalnet.comparison.families import colours
from frugalnet.comparison.networks import Row
from frugalnet.document.blocks import Block, Cell, Chart, Point, Section, Table, network_cell
from frugalnet.document.charts import scatter
from frugalnet.document.wording import BYTES, MILLISECONDS, human, percent, scale, signed_points
from frugalnet.export.formats import NAMES, QUANTISED, Format
from frugalnet.export.records import Exported, read_exported
from frugalnet.export.result import ExportResult
from frugalnet.metrics.statistics import wilson_interval
from frugalnet.schema import Config

TITLE = "On a device"
DRAWN: dict[Format, str] = {"onnx": "", "int8": " int8"}  # of the chart, and what is added to the network's name


class Result(Config):
    """The first seed of each network, as far as it was exported."""

    networks: list[Exported]


def load(results: Path, comparison: Comparison) -> Result | None:
    """What was measured of the networks compared, in their order."""
    read = (read_exported(results, row.model, row.records[0].seed) for row in comparison.rows)
    networks = [network for network in read if network is not None]
    return Result(networks=networks) if networks else None


def summary(result: Result, comparison: Comparison) -> dict[str, Any]:
    """The accuracy and bytes of every format, ready for JSON."""
    return {network.model: {"seed": network.seed, **_figures(network.result)} for network in result.networks}


def _figures(result: ExportResult) -> dict[str, Any]:
    return {
        "top1": {kind: measured.top1 for kind, measured in result.formats.items()},
        "bytes": {kind: measured.bytes for kind, measured in result.formats.items()},
        "int8_loss_points": asdict(result.int8_loss),
    }


def section(result: Result, comparison: Comparison) -> Section:
    """A table of all formats, accuracy against bytes, and the classes that int8 hurts most."""
    networks = result.networks
    blocks: list[Block] = [table(networks), note(networks), _chart(comparison.rows, networks), CHART]
    if (suffering := _suffering(networks)).rows:
        blocks += [suffering, SUFFERING]
    return Section("device", TITLE, blocks)


def table(networks: Sequence[Exported]) -> Table:
    """Accuracy, bytes, latency and memory of every network in every format, each column in one unit."""
    header = ("Network", "Format", "Top-1", "Differs from PyTorch", "File", "Latency, batch\u00a01", "Peak memory")
    formats = [(network, kind) for network in networks for kind in NAMES if kind in network.result.formats]
    measured = [network.result.formats[kind] for network, kind in formats]
    costs = [network.costs.formats[kind] for network, kind in formats]
    size = scale([figures.bytes for figures in measured], BYTES)
    latency = scale([cost.latency_ms.median for cost in costs], MILLISECONDS)
    memory = scale([cost.peak_memory_bytes for cost in costs], BYTES)
    rows = []
    for (network, kind), figures, cost in zip(formats, measured, costs, strict=True):
        others = f"{figures.other_class:,} of {network.result.n:,}" if kind != "pytorch" else "–"
        times = cost.latency_ms
        arena = (f"arena {human(cost.arena_bytes)}B",) if cost.arena_bytes else ()
        rows.append(
            [
                network_cell(network.model),
                Cell(NAMES[kind]),
                Cell(percent(figures.top1), _lost(network.result, kind) if kind in QUANTISED else ()),
                Cell(others),
                Cell(size(figures.bytes)),
                Cell(latency(times.median), (latency.range(times.p5, times.p95), f"n\u00a0{times.n}")),
                Cell(memory(cost.peak_memory_bytes), arena),
            ]
        )
    return Table("Formats of all networks", header, rows, (0, 1))


def _lost(result: ExportResult, kind: Format) -> tuple[str, ...]:
    """What a format of eight bits loses, with its interval, and whether that is too much."""
    loss = result.formats[kind].loss_points
    estimate, low, high = (signed_points(-points / 100) for points in (loss.estimate, loss.high, loss.low))
    lost = f"{estimate} points ({low} to {high})"
    limit = f"not registered: loses more than {result.max_loss_points:g} points"
    return (lost,) if result.accepts(kind) else (lost, limit)


def note(networks: Sequence[Exported]) -> str:
    """How the figures were measured."""
    machines = dict.fromkeys(str(network.costs.machine) for network in networks)
    seeds = ", ".join(f"{network.model} {network.seed}" for network in networks)
    before = human(max(cost.before_bytes for network in networks for cost in network.costs.formats.values()))
    calibrated = networks[0].result.calibration_images
    has_tflite = any("tflite" in network.result.formats for network in networks)
    micro = "; for TFLite, TensorFlow Lite Micro, which microcontrollers run" if has_tflite else ""
    return (
        f"Measured on one thread of {' or '.join(machines)}, all "
        f"formats of a network in alternating rounds; median, 5th to 95th percentile. Seeds: {seeds}. int8 is "
        f"quantised on {calibrated:,} training images; its top-1 is followed by the difference "
        "from PyTorch, paired by image, with its 95 % interval. Peak memory: resident, of a process that only runs the "
        f"network, in Python, which holds {before}B with NumPy before the runtime is loaded; ExecuTorch’s Python "
        "package loads PyTorch too, which a device does not. Arena: the memory that the runtime "
        f"itself says it reserves for the activations of one image{micro}."
    )


def _chart(rows: Sequence[Row], networks: Sequence[Exported]) -> Chart:
    """Accuracy against the bytes of the ONNX files."""
    colour = colours(rows)
    points = [
        _point(network, kind, colour[network.model])
        for network in networks
        for kind in DRAWN
        if kind in network.result.formats
    ]
    return scatter("accuracy_bytes", "Top-1 against the bytes of the file", "bytes of the ONNX file", points)


def _point(network: Exported, kind: Format, colour: str) -> Point:
    n = network.result.n
    figures = network.result.formats[kind]
    low, high = map(float, wilson_interval(np.rint(figures.top1 * n), np.array(n)))
    text = [f"top-1 {percent(figures.top1)} ({percent(low)} to {percent(high)})", f"{human(figures.bytes)}B"]
    bounds = (100 * low, 100 * high)
    return Point(network.model + DRAWN[kind], colour, float(figures.bytes), 100 * figures.top1, bounds, text)


def _suffering(networks: Sequence[Exported]) -> Table:
    rows = [
        [
            network_cell(network.model),
            Cell(loss.name),
            Cell(f"{loss.pytorch} of {loss.n}"),
            Cell(f"{loss.int8} of {loss.n}"),
        ]
        for network in networks
        for loss in network.result.int8_classes_that_lose_most
    ]
    return Table("Classes that int8 hurts most", ("Network", "Class", "PyTorch", "int8"), rows, (0, 1))


CHART = (
    "Filled points are Pareto-optimal. Vertical bars are Wilson 95 % intervals. File sizes are on a logarithmic scale."
)
SUFFERING = "Images classified correctly. With so few images of a class, a difference of one or two is chance."


EXPERIMENT = Experiment(
    id="export",
    title=TITLE,
    choice="model=study",
    result=Result,
    load=load,
    section=section,
    summary=summary,
)
