"""The section "The paper's experiment": networks trained with the paper's recipe, apart from those of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from frugalnet.comparison import curves
from frugalnet.comparison.records import Epoch, read_epochs
from frugalnet.document.blocks import Cell, Chart, Grid, Line, Section, Table
from frugalnet.document.wording import percent
from frugalnet.files import read_json
from frugalnet.paper.claims import PAPER_EPOCHS, PAPER_RECIPE, Claim
from frugalnet.run import Run, read_run

# Training and validation top-1 at the end of the paper's figures 5 and 6, in percent, as its section 4.1 reads them.
ENDS = {"alexnet": (96.0, 33.0), "depthwise": (48.0, 33.0)}
NOTE = (
    f"Networks trained with the recipe {PAPER_RECIPE}: the paper’s {PAPER_EPOCHS} epochs and, where it names no "
    "setting, Keras’s defaults. Dotted: training; solid: validation. Thin lines at the right: the ends of the paper’s "
    "curves, for the two networks whose ends it states."
)


@dataclass(frozen=True)
class PaperNetwork:
    """A network trained with the paper's recipe."""

    name: str  # with its seed
    model: str
    history: list[Epoch]


@dataclass(frozen=True)
class PaperExperiment:
    """What was published of the paper's recipe: the networks, and the claims that they judge."""

    networks: Sequence[PaperNetwork]
    claims: Sequence[Claim]


def read_experiment(folder: Path, run: Run) -> PaperExperiment | None:
    """The networks of a published folder that were trained over all of the paper's epochs, on the data of `run`.

    None if there are none, or some in the folder were trained otherwise: its claims are judged by all of them. Raises
    UserError if a file is missing or damaged.
    """
    if not (folder / "comparison.json").is_file():
        return None
    expected = [PAPER_RECIPE, PAPER_EPOCHS, run.data_sha256, run.validated_on]
    networks = []
    for path in sorted(folder.glob("*/run.json")):
        own = read_run(path)
        history = read_epochs(path.with_name("history.csv"))
        if [own.recipe, len(history), own.data_sha256, own.validated_on] != expected:
            return None
        networks.append(PaperNetwork(path.parent.name, own.model, history))
    claims = [Claim(**claim) for claim in read_json(folder / "comparison.json")["claims"]]
    return PaperExperiment(networks, claims) if networks else None


def section(experiment: PaperExperiment, colours: Mapping[str, str]) -> Section:
    """Each network's curves beside the ends of the paper's. colours: of the networks, in the rest of the report."""
    networks = {
        network.name: (curves.curves_of(network.history), colours.get(network.model, "@muted"))
        for network in experiment.networks
    }
    charts = [_chart(network, *networks[network.name]) for network in experiment.networks]
    title = f"Training curves of all networks, recipe {PAPER_RECIPE}"
    together = curves.together("experiment_together", title, networks)
    each = Grid(charts, min(len(charts), 3))
    return Section("experiment", "The paper’s experiment", [NOTE, each, together, _table(experiment)])


def _chart(network: PaperNetwork, of: curves.Curves, colour: str) -> Chart:
    lines = list[Line]()
    labels = dict[str, tuple[float, str]]()
    ends = ENDS.get(network.model)
    for number, (key, kind, is_dotted) in enumerate(curves.KINDS):
        curve = of[key]
        lines.append(curves.line(curve, colour, kind, is_dotted))
        labels[f"{kind} {curve[-1]:.0f} %"] = (curve[-1], "@muted" if is_dotted else "@ink")
        if ends:
            until = range(round(0.9 * len(curve)), len(curve) + 1)
            level = [ends[number]] * len(until)
            lines.append(Line(until, level, "@ink", f"the paper’s {kind}", is_dotted, 1))
    title = f"Training curves of {network.name}, recipe {PAPER_RECIPE}"
    return curves.chart(f"experiment_{network.name}", title, lines, labels)


def _table(experiment: PaperExperiment) -> Table:
    body = []
    for network in experiment.networks:
        ends = ENDS.get(network.model)
        cells = [Cell(network.name)]
        for number, (key, *_) in enumerate(curves.KINDS):
            cells.append(Cell(percent(getattr(network.history[-1], key))))
            cells.append(Cell(percent(ends[number] / 100, 0) if ends else "–"))
        body.append(cells)
    header = ("Network", "Training top-1", "the paper’s", "Validation top-1", "the paper’s")
    return Table("Last epoch, here and in the paper", header, body)
