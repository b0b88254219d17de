"""Charts of training curves: top-1 by epoch, of training (dotted) and validation (solid)."""

from collections.abc import Mapping, Sequence

import numpy as np

from frugalnet.comparison.families import colours
from frugalnet.comparison.networks import Row
from frugalnet.comparison.records import Epoch
from frugalnet.document.blocks import Chart, Line
from frugalnet.document.charts import end_labels

KINDS = (("train_top1", "training", True), ("validation_top1", "validation", False))  # key, name, whether dotted
Curves = Mapping[str, Sequence[float]]  # percent by epoch, for each key of KINDS


def curves_of(history: Sequence[Epoch]) -> Curves:
    return {key: [100 * getattr(epoch, key) for epoch in history] for key, *_ in KINDS}


def mean_curves(of_seeds: Sequence[Curves]) -> Curves:
    """The means over seeds, as far as all of them went."""
    return {
        key: [float(np.mean(values)) for values in zip(*(curves[key] for curves in of_seeds), strict=False)]
        for key, *_ in KINDS
    }


def line(curve: Sequence[float], colour: str, text: str, dotted: bool, width: float = 2) -> Line:
    return Line(range(1, len(curve) + 1), curve, colour, text, dotted, width)


def chart(
    name: str,
    title: str,
    lines: Sequence[Line],
    ends: Mapping[str, tuple[float, str]],
    top: float | None = None,
    height: int = 260,
) -> Chart:
    """Lines over all of their epochs, with names at their ends. top: of the y axis; by default it fits the lines."""
    top = top or axis_top(lines)
    epochs = max(line.x[-1] for line in lines)
    x_range = (min(1, epochs - 1), epochs)
    return Chart(name, title, "epoch", x_range, (0, top), lines, labels=end_labels(ends, top, height), height=height)


def axis_top(lines: Sequence[Line]) -> float:
    return 1.08 * max(1.0, *(value for line in lines for value in line.y))


def together(name: str, title: str, networks: Mapping[str, tuple[Curves, str]], top: float | None = None) -> Chart:
    """All networks. networks: the curves and the colour of each, by name."""
    lines = [
        line(curves[key], colour, f"{network}, {kind}", dotted, 1.3 if dotted else 2.4)
        for network, (curves, colour) in networks.items()
        for key, kind, dotted in KINDS
    ]
    ends = {network: (curves["validation_top1"][-1], colour) for network, (curves, colour) in networks.items()}
    return chart(name, title, lines, ends, top, 420)


def charts(rows: Sequence[Row]) -> list[Chart]:
    """A chart for each network with a line for each seed, then one of all networks, means over their seeds."""
    colour = colours(rows)
    means: dict[str, tuple[Curves, str]] = {}
    lines: dict[str, list[Line]] = {}
    ends: dict[str, dict[str, tuple[float, str]]] = {}
    for row in rows:
        seeds = {record.seed: curves_of(record.history) for record in row.records}
        mean = mean_curves([*seeds.values()])
        means[row.model] = mean, colour[row.model]
        lines[row.model] = [
            line(curves[key], colour[row.model], f"{kind}, seed {seed}", dotted)
            for key, kind, dotted in KINDS
            for seed, curves in seeds.items()
        ]
        ends[row.model] = {
            f"{kind} {mean[key][-1]:.0f} %": (mean[key][-1], "@muted" if dotted else "@ink")
            for key, kind, dotted in KINDS
        }
    top = axis_top([line for drawn in lines.values() for line in drawn])
    own = [chart(f"curves_{model}", f"Training curves of {model}", lines[model], ends[model], top) for model in lines]
    return [*own, together("curves_together", "Training curves of all networks", means, top)]
