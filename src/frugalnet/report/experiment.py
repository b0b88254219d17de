"""The section "The paper's experiment": networks trained with the paper's recipe, apart from those of a comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frugalnet.files import read_history, read_json
from frugalnet.report.claims import PAPER_EPOCHS, Claim, tested_by
from frugalnet.report.figures import CURVES, PALETTE, Chart, Label, Line, end_labels
from frugalnet.report.page import Grid, Section
from frugalnet.report.tables import Cell, Table
from frugalnet.report.wording import percent

# Training and validation top-1 at the end of the paper's figures 5 and 6, in percent, as its section 4.1 reads them.
ENDS = {"alexnet": (96.0, 33.0), "depthwise": (48.0, 33.0)}
NOTE = (
    f"The paper’s {PAPER_EPOCHS} epochs with its recipe, as far as it states one, one seed. Dotted: training; solid: "
    "validation, as in the paper’s figures 5 to 7. Thin lines at the right: where the paper’s curves end."
)


class Experiment:
    """The records of networks that were trained with the paper's recipe: a folder as `tools.results` writes it."""

    def __init__(self, folder: Path) -> None:
        self.claims = [Claim(**one) for one in read_json(folder / "comparison.json")["claims"]]
        found = [path.parent for path in sorted(folder.glob("*/history.csv"))]
        self.curves = {path.name: read_history(path / "history.csv") for path in found}
        self.runs: dict[str, dict[str, Any]] = {path.name: read_json(path / "run.json") for path in found}

    def judge(self, claims: Sequence[Claim]) -> list[Claim]:
        """The claims; those that the networks of a comparison could not test, as these networks test them."""
        return tested_by(claims, self.claims)

    def section(self) -> Section:
        charts = [self._chart(name) for name in self.curves]
        return Section("experiment", "The paper’s experiment", [NOTE, Grid(charts, min(len(charts), 3)), self._table()])

    def _chart(self, name: str) -> Chart:
        model, rows = self.runs[name]["model"], self.curves[name]
        colour, epochs = (
            PALETTE[sorted(run["model"] for run in self.runs.values()).index(model)],
            range(1, len(rows) + 1),
        )
        ends, lines = {}, []
        for number, (key, kind, dotted) in enumerate(CURVES):
            curve = [100 * row[key] for row in rows]
            lines.append(Line(epochs, curve, colour, kind, dotted))
            ends[f"{kind} {curve[-1]:.0f} %"] = (curve[-1], "@muted" if dotted else "@ink")
            if model in ENDS:
                level = ENDS[model][number]
                lines.append(
                    Line((0.9 * len(rows), len(rows)), (level, level), "@ink", f"the paper’s {kind}", dotted, 1)
                )
        top = 1.08 * max(value for line in lines for value in line.y)
        labels: list[Label] = end_labels(ends, top, 260)
        title = f"{model}, as the paper trained it"
        return Chart(f"experiment_{model}", title, "epoch", (1, len(rows)), (0, top), lines, labels=labels, height=260)

    def _table(self) -> Table:
        body = []
        for name, rows in self.curves.items():
            expected = ENDS.get(self.runs[name]["model"])
            cells = [Cell(name), Cell(str(len(rows)))]
            for number, (key, *_) in enumerate(CURVES):
                cells += [Cell(percent(rows[-1][key])), Cell(f"{expected[number]:.0f}\u00a0%" if expected else "–")]
            body.append(cells)
        header = ("Network", "Epochs", "Training top-1", "the paper’s", "Validation top-1", "the paper’s")
        return Table("Last epoch, here and in the paper", header, body)
