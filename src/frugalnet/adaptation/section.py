"""The section "Training on the device": a verdict, a table and a chart for each scenario, and memory by layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frugalnet.adaptation import figures
from frugalnet.adaptation.figures import TRAINED, Adapted, memory, verdict
from frugalnet.comparison.compare import Comparison, Row
from frugalnet.document.blocks import Block, Cell, Chart, Fold, Grid, Line, Section, Table
from frugalnet.document.charts import colours, end_labels
from frugalnet.document.wording import BYTES, COUNT, DURATIONS, JOULES, interval, percent, scale

ID = "adaptation"
CHOICE = "adapt=quick"

TITLE = "Training on the device"
NAMES = {
    "general": "nothing, all classes possible",
    "restricted": "nothing, only these classes possible",
    "classifier": "classifier",
    "norms": "classifier, batch norms",
    "blocks": "classifier, last two blocks",
    "all": "everything",
    "scratch": "everything, from scratch",
}
SCENARIOS = {
    "seen": "Classes that the network was trained on",
    "unseen": "Classes that the network has never seen",
}


@dataclass(frozen=True)
class Result:
    """What the stages adapt measured of the networks compared."""

    networks: list[Adapted]


def load(results: Path, comparison: Comparison) -> Result | None:
    adapted = [one for one in figures.read_adapted(results) if comparison.row(one.model)]
    return Result(adapted) if adapted else None


def summary(result: Result, comparison: Comparison) -> dict[str, Any]:
    return figures.summary(result.networks, comparison.by_macs)


def section(result: Result, comparison: Comparison) -> Section:
    adapted = result.networks
    by_macs = comparison.by_macs
    blocks: list[Block] = [*verdict(adapted, by_macs)]
    charts = []
    for scenario in SCENARIOS:
        if of_scenario := [one for one in adapted if one.scenario == scenario]:
            blocks.append(_table(of_scenario))
            charts.append(_chart(of_scenario, comparison.rows))
    blocks += [_note(adapted), Grid(charts, 2), CHART]
    blocks += [said for said in [memory(adapted, by_macs)] if said]
    models = dict.fromkeys(one.model for one in adapted)
    first = {model: next(one for one in adapted if one.model == model) for model in models}
    return Section("adapt", TITLE, [*blocks, *(Fold(model, [_layers(one)]) for model, one in first.items())])


def _table(adapted: Sequence[Adapted]) -> Table:
    pictures = sorted(adapted[0].found["pictures"])
    header = ["Network", "What is trained", *(f"Top-1, {n} per class" for n in pictures)]
    shown = [(one, m) for one in adapted for m in NAMES if m in TRAINED or one.right(m)]
    body = []
    for one, method in shown:
        cells = [Cell(one.model, style="network"), Cell(NAMES[method])]
        for n in pictures:
            value = one.accuracy(method, n if method in TRAINED else 0)
            cells.append(Cell(percent(value.estimate), (interval(value),)) if value else Cell("–"))
        body.append(cells)
    columns: list[tuple[str, Sequence[tuple[float, str]], Callable[[Adapted, str], float | None]]] = [
        ("MACs per picture", COUNT, lambda one, m: one.found["costs"][m]["macs_per_picture"]),
        ("Peak memory of a step", BYTES, lambda one, m: one.timing["peak_memory_bytes"][m]),
        ("To store", BYTES, lambda one, m: one.found["costs"][m]["stored_bytes"]),
        ("Time, one thread", DURATIONS, lambda one, m: one.seconds(m).median),
        ("Energy", JOULES, lambda one, m: joules.median if (joules := one.joules(m)) else None),
    ]
    for title, units, figure in columns:
        values = {(one.model, m): figure(one, m) for one, m in shown if m in TRAINED}
        known = [cost for cost in values.values() if cost is not None]
        if not known:
            continue  # said in the note
        header.append(title)
        write = scale(known, units)
        for cells, (one, method) in zip(body, shown, strict=True):
            cost = values.get((one.model, method))
            cells.append(Cell("–" if cost is None else write(cost)))
    return Table(SCENARIOS[adapted[0].scenario], tuple(header), body, (0, 1))


def _note(adapted: Sequence[Adapted]) -> str:
    found, machines = adapted[0].found, dict.fromkeys(one.timing["machine"]["cpu"] for one in adapted)
    energy = "" if any(one.joules("all") for one in adapted) else " Energy: not measured, this machine has no counter."
    return (
        f"Top-1 on the validation pictures of {found['draws']} draws of {found['classes']} classes; 95 % intervals "
        f"over draws and pictures. Fine-tuned for {found['steps']} steps, trained from scratch for "
        f"{found['scratch_steps']}, on at most {found['batch_size']} pictures each, on one thread of "
        f"{' or '.join(machines)}. Peak memory: of a step with {found['costs']['all']['batch']} pictures, beyond the "
        f"weights and pictures. To store: what training changes. Without training the number of pictures does not "
        f"matter.{energy}"
    )


def _chart(adapted: Sequence[Adapted], rows: Sequence[Row]) -> Chart:
    pictures, colour, lines, ends = sorted(adapted[0].found["pictures"]), colours(row.model for row in rows), [], {}
    for one in adapted:
        for method, dotted in (("all", False), ("scratch", True)):
            values = [value for n in pictures if (value := one.accuracy(method, n))]
            y = [100 * value.estimate for value in values]
            text = f"{one.model}, {NAMES[method]}"
            lines.append(Line(pictures, y, colour[one.model], text, dotted))
            if method == "all":
                ends[one.model] = (y[-1], colour[one.model])
    scenario = adapted[0].scenario
    x_range = (pictures[0], max(pictures[-1], pictures[0] + 1))
    labels = end_labels(ends, 100, Chart.height)
    title, x_title = SCENARIOS[scenario], "pictures of each class"
    return Chart(f"adapt_{scenario}", title, x_title, x_range, (0, 100), lines, labels=labels, ticks=pictures)


def _layers(one: Adapted) -> Table:
    """What the forward pass keeps for the backward pass, by layer and by what is trained."""
    costs = {method: one.found["costs"][method]["saved_bytes_by_layer"] for method in TRAINED if method != "scratch"}
    values = [value for by_layer in costs.values() for value in by_layer.values() if value]
    write = scale(values or [1], BYTES)
    body = [
        [Cell(layer), *(Cell(write(by_layer[layer]) if by_layer[layer] else "0") for by_layer in costs.values())]
        for layer in costs["all"]
    ]
    total = [Cell("all layers"), *(Cell(write(sum(by_layer.values()))) for by_layer in costs.values())]
    batch = one.found["costs"]["all"]["batch"]
    header = ("Layer", *(NAMES[method] for method in costs))
    return Table(f"Kept for the backward pass of {batch} pictures", header, [*body, total])


CHART = (
    "Solid: everything fine-tuned. Dotted: everything trained from scratch. The number of pictures is on a logarithmic "
    "scale; the lines are only a guide to the eye."
)
