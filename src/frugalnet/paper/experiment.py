"""The section "The paper's experiment": networks trained with the paper's recipe, apart from those of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frugalnet.comparison import curves
from frugalnet.document.blocks import Cell, Chart, Grid, Line, Section, Table
from frugalnet.document.wording import percent
from frugalnet.files import read_history, read_json
from frugalnet.paper.claims import PAPER_EPOCHS, PAPER_RECIPE, Claim

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
    of = {
        name: (curves.curves_of(rows), colours.get(experiment.runs[name]["model"], "@muted"))
        for name, rows in experiment.histories.items()
    }
    each = Grid([_chart(name, experiment.runs[name]["model"], *of[name]) for name in of], min(len(of), 3))
    together = curves.together("experiment_together", f"Training curves of all networks, recipe {PAPER_RECIPE}", of)
    return Section("experiment", "The paper’s experiment", [NOTE, each, together, _table(experiment)])


def _chart(name: str, model: str, of: curves.Curves, colour: str) -> Chart:
    ends, lines = {}, []
    for number, (key, kind, dotted) in enumerate(curves.KINDS):
        lines.append(curves.line(of[key], colour, kind, dotted))
        last, end = len(of[key]), of[key][-1]
        ends[f"{kind} {end:.0f} %"] = (end, "@muted" if dotted else "@ink")
        if model in ENDS:
            level, until = ENDS[model][number], range(round(0.9 * last), last + 1)
            lines.append(Line(until, [level] * len(until), "@ink", f"the paper’s {kind}", dotted, 1))
    return curves.chart(f"experiment_{name}", f"Training curves of {name}, recipe {PAPER_RECIPE}", lines, ends)


def _table(experiment: Experiment) -> Table:
    body = []
    for name, rows in experiment.histories.items():
        expected = ENDS.get(experiment.runs[name]["model"])
        cells = [Cell(name)]
        for number, (key, *_) in enumerate(curves.KINDS):
            cells += [Cell(percent(rows[-1][key])), Cell(percent(expected[number] / 100, 0) if expected else "–")]
        body.append(cells)
    header = ("Network", "Training top-1", "the paper’s", "Validation top-1", "the paper’s")
    return Table("Last epoch, here and in the paper", header, body)
