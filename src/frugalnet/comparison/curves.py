"""Charts of training curves: top-1 by epoch, of training (dotted) and validation (solid)."""

from collections.abc import Mapping, Sequence

import numpy as np

from frugalnet.comparison.compare import Row
from frugalnet.document.blocks import Chart, Line
from frugalnet.document.charts import colours, end_labels

KINDS = (("train_top1", "training", True), ("validation_top1", "validation", False))  # key, name, whether dotted
Curves = Mapping[str, Sequence[float]]  # percent by epoch, for each key of KINDS


def curves_of(history: Sequence[Mapping[str, float]]) -> Curves:
    return {key: [100 * epoch[key] for epoch in history] for key, *_ in KINDS}


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
    x_range, labels = (min(1, epochs - 1), epochs), end_labels(ends, top, height)
    return Chart(name, title, "epoch", x_range, (0, top), lines, labels=labels, height=height)


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
    colour, of_network, means = colours(row.model for row in rows), {}, {}
    for row in rows:
        seeds = {record.seed: curves_of(record.history) for record in row.records}
        means[row.model] = (mean := mean_curves([*seeds.values()])), colour[row.model]
        lines, ends = [], {}
        for key, kind, dotted in KINDS:
            lines += [
                line(curves[key], colour[row.model], f"{kind}, seed {seed}", dotted) for seed, curves in seeds.items()
            ]
            ends[f"{kind} {mean[key][-1]:.0f} %"] = (mean[key][-1], "@muted" if dotted else "@ink")
        of_network[row.model] = lines, ends
    top = axis_top([line for lines, _ in of_network.values() for line in lines])
    each = [chart(f"curves_{model}", f"Training curves of {model}", *of, top) for model, of in of_network.items()]
    return [*each, together("curves_together", "Training curves of all networks", means, top)]
