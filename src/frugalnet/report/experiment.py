"""The section "The paper's experiment": networks trained with the paper's recipe, apart from those of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frugalnet.files import read_history, read_json
from frugalnet.report.claims import PAPER_EPOCHS, PAPER_RECIPE, Claim
from frugalnet.report.figures import CURVES, Chart, Line, end_labels
from frugalnet.report.page import Grid, Section
from frugalnet.report.tables import Cell, Table
from frugalnet.report.wording import percent

# Training and validation top-1 at the end of the paper's figures 5 and 6, in percent, as its section 4.1 reads them.
ENDS = {"alexnet": (96.0, 33.0), "depthwise": (48.0, 33.0)}
NOTE = (
    f"Networks trained with the recipe {PAPER_RECIPE}: the paper’s {PAPER_EPOCHS} epochs and, where it names no "
    "setting, Keras’s defaults. Dotted: training; solid: validation. Thin lines at the right: the ends of the paper’s "
    "curves, for the two networks whose ends it states."
)


@dataclass(frozen=True)
class Experiment:
    """What `tools.results` published of the paper's recipe: each network's run and history by name, and the claims."""

    runs: Mapping[str, dict[str, Any]]
    histories: Mapping[str, list[dict[str, float]]]
    claims: Sequence[Claim]


def load(folder: Path, run: Mapping[str, Any]) -> Experiment | None:
    """The networks of a published folder that were trained over all of the paper's epochs, on the data of `run`.

    None if there are none, or some in the folder were trained otherwise: its claims are judged by all of them.
    """
    if not (folder / "comparison.json").is_file():
        return None
    found = {path.parent.name: path.parent for path in sorted(folder.glob("*/run.json"))}
    runs = {name: read_json(path / "run.json") for name, path in found.items()}
    histories = {name: read_history(path / "history.csv") for name, path in found.items()}
    expected = [PAPER_RECIPE, PAPER_EPOCHS, run["data_sha256"], run["validated_on"]]
    for name, of in runs.items():
        if [of["train"]["recipe"], len(histories[name]), of["data_sha256"], of["validated_on"]] != expected:
            return None
    claims = [Claim(**one) for one in read_json(folder / "comparison.json")["claims"]]
    return Experiment(runs, histories, claims) if runs else None


def section(experiment: Experiment, colours: Mapping[str, str]) -> Section:
    """Each network's curves beside the ends of the paper's. colours: of the networks, in the rest of the report."""
    charts = [_chart(experiment, name, colours) for name in experiment.runs]
    each = Grid(charts, min(len(charts), 3))
    together = _together(experiment, colours)
    return Section("experiment", "The paper’s experiment", [NOTE, each, together, _table(experiment)])


def _chart(experiment: Experiment, name: str, colours: Mapping[str, str]) -> Chart:
    model, rows, height = experiment.runs[name]["model"], experiment.histories[name], 260
    colour, last = colours.get(model, "@muted"), len(rows)
    ends, lines = {}, []
    for number, (key, kind, dotted) in enumerate(CURVES):
        curve = [100 * row[key] for row in rows]
        lines.append(Line(range(1, last + 1), curve, colour, kind, dotted))
        ends[f"{kind} {curve[-1]:.0f} %"] = (curve[-1], "@muted" if dotted else "@ink")
        if model in ENDS:
            level = ENDS[model][number]
            until = range(round(0.9 * last), last + 1)
            lines.append(Line(until, [level] * len(until), "@ink", f"the paper’s {kind}", dotted, 1))
    top = 1.08 * max(value for line in lines for value in line.y)
    labels = end_labels(ends, top, height)
    title = f"Training curves of {name}, recipe {PAPER_RECIPE}"
    return Chart(f"experiment_{name}", title, "epoch", (1, last), (0, top), lines, labels=labels, height=height)


def _together(experiment: Experiment, colours: Mapping[str, str]) -> Chart:
    """All networks, as the paper's figure 8."""
    lines, ends, height = [], {}, 420
    for name, rows in experiment.histories.items():
        colour = colours.get(experiment.runs[name]["model"], "@muted")
        for key, kind, dotted in CURVES:
            curve = [100 * row[key] for row in rows]
            lines.append(
                Line(range(1, len(rows) + 1), curve, colour, f"{name}, {kind}", dotted, 1.3 if dotted else 2.4)
            )
            ends[name] = (curve[-1], colour)  # of the validation curve, the last
    top = 1.08 * max(value for line in lines for value in line.y)
    title, epochs = f"Training curves of all networks, recipe {PAPER_RECIPE}", (1, PAPER_EPOCHS)
    labels = end_labels(ends, top, height)
    return Chart("experiment_together", title, "epoch", epochs, (0, top), lines, labels=labels, height=height)


def _table(experiment: Experiment) -> Table:
    body = []
    for name, rows in experiment.histories.items():
        expected = ENDS.get(experiment.runs[name]["model"])
        cells = [Cell(name)]
        for number, (key, *_) in enumerate(CURVES):
            cells += [Cell(percent(rows[-1][key])), Cell(percent(expected[number] / 100, 0) if expected else "–")]
        body.append(cells)
    header = ("Network", "Training top-1", "the paper’s", "Validation top-1", "the paper’s")
    return Table("Last epoch, here and in the paper", header, body)
