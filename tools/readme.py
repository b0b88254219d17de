"""The README's tables and chart, from the comparison.json of each recipe in docs/results."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from frugalnet import models
from frugalnet.document import wording
from frugalnet.document.blocks import Chart, Label, Point
from frugalnet.document.charts import PALETTE, scatter
from frugalnet.document.png_figures import write_png
from frugalnet.document.wording import COUNT, MILLISECONDS, markdown
from frugalnet.errors import UserError
from frugalnet.files import atomic
from frugalnet.metrics.statistics import Interval, Quantiles, SeedMean
from frugalnet.paper.claims import Claim
from frugalnet.study.cost import COST_AXES
from frugalnet.use.choice import Latencies, Option, read_options
from tools.records import RESULTS

README = Path("README.md")
RECIPES = {  # the study's first, as in the table, and what sets each apart
    "modern": "SGD",
    "frontier": "Muon, more epochs",
    "frontier_wide": "Muon, less weight decay",
    "distilled": "as frontier, with a teacher",
    "distilled_wide": "with a teacher, less weight decay",
}
CLAIMS = ("parameters_ratio", "depthwise_training", "depthwise_validation", "residual_validation", "residual_seconds")
GROUPS = {  # of the table: what its networks are, by name; the rest are torchvision's
    "The paper’s": ("alexnet", "depthwise", "residual"),
    "Found here, with no more parameters": ("frugal", "frugal_wide"),
}
OTHERS = "From torchvision, trained from scratch"
NETWORKS_HEADER = """\
| network | recipe | top-1 (95 % interval) | parameters | MACs | latency |
|---|---|--:|--:|--:|--:|"""
DEVICES_HEADER = """\
| network | top-1 | MACs | `onnx`: size, time | `int8`: size, time, top-1 |
|---|--:|--:|--:|--:|"""
DEVICES_NOTE = (
    "The first top-1 is PyTorch’s. A name ends in its seed; `_x1_5` is 1.5 times the width. `frugal` and `frugal_wide` "
    "had a teacher and 60 to 100 epochs, the others 30. int8 saves bytes, rarely time ([why](docs/export.md#int8))."
)
CLAIMS_HEADER = """\
| what the paper says ({count} of {of} claims; {agree} agree, {differ} differ) | measured here | outcome |
|---|---|---|"""


class Network(BaseModel):
    """What the README shows of a network in comparison.json."""

    model: str
    recipe: str
    top1: SeedMean
    top1_interval: Interval
    parameters_trainable: int
    macs: int
    latency_ms: Quantiles | None


class Figures(BaseModel):
    """What the README shows of a comparison.json."""

    num_classes: int
    validated_on: str
    facts: dict[str, str]
    networks: list[Network]
    claims: list[Claim]


def write_readme(paths: Sequence[Path] = ()) -> None:
    """Fill the README's tables and draw its chart from these comparisons, by default those of RECIPES.

    Raises UserError if one is missing, damaged, on other data than the whole validation split or measured elsewhere.
    """
    comparisons = [read_figures(path) for path in paths or published()]
    for key in ("data hash", "cost measured on"):
        if len({comparison.facts[key] for comparison in comparisons}) > 1:
            raise UserError(f"the comparisons differ in “{key}”, so they cannot be in one table")
    devices = {"devices": devices_table(*read_options(None))}
    text = fill(README.read_text(encoding="utf-8"), tables(*comparisons) | devices)
    figure = chart(*comparisons)
    write_png(figure, RESULTS / f"{figure.name}.png")
    with atomic(README) as partial:
        partial.write_text(text, encoding="utf-8")


def published(root: Path = Path()) -> list[Path]:
    """The comparisons of RECIPES; all but the study's only if they are there."""
    study, *others = [root / RESULTS / recipe / "comparison.json" for recipe in RECIPES]
    return [study, *(path for path in others if path.is_file())]


def read_figures(path: Path) -> Figures:
    """Read a comparison.json. Raises UserError if it is missing, damaged or not on the whole validation split."""
    try:
        figures = Figures.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged ({error}): run `make results`") from error
    shown = f"{figures.num_classes} classes and the {figures.validated_on}"
    if shown != "200 classes and the validation split":
        raise UserError(f"{path} holds results on {shown}; the README's are on 200 classes and the validation split")
    return figures


def fill(text: str, tables: Mapping[str, str]) -> str:
    """The text with each table between its two marks. Raises UserError if the marks are missing."""
    for name, table in tables.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not end:
            raise UserError(f"{README}: expected a line <!-- {name} --> and after it a line <!-- /{name} -->")
        text = f"{before}{start}{table}\n{end}{after}"
    return text


def tables(study: Figures, *others: Figures) -> dict[str, str]:
    """The Markdown between `<!-- name -->` and `<!-- /name -->`, by name; the claims are the study's."""
    comparisons = [study, *others]
    networks = _shown(comparisons)
    of_all = [comparison.networks[0].recipe for comparison in comparisons]
    names = [name for name in of_all if any(network.recipe == name for network in networks)]
    made = ", ".join(f"[{name}](docs/results/{name}/report.md#how-this-was-made){_in_words(name)}" for name in names)
    facts = study.facts["cost measured on"].split("; ")
    shown = (next((fact for fact in facts if fact.startswith(f"{key} ")), "") for key in ("cpu", "threads", "torch"))
    where = markdown(", ".join(filter(None, shown)))
    claims = {claim.key: claim for claim in study.claims}
    return {
        "results": f"{_networks_table(networks)}\n\n"
        f"Data: {markdown(study.facts['data'])}. ±: standard deviation over three seeds; without it, one seed. "
        f"Latency: one image in PyTorch, {where}. How each was made: {made}.",
        "claims": _claims_table(claims),
    }


def _in_words(recipe: str) -> str:
    return f" ({RECIPES[recipe]})" if recipe in RECIPES else ""


def _shown(comparisons: Sequence[Figures]) -> list[Network]:
    """Those that the table has room for: the first comparison's, and of the others each network's most accurate."""
    first, *others = (_of_width_1(comparison) for comparison in comparisons)
    best: dict[str, Network] = {}
    for network in sorted((network for of_one in others for network in of_one), key=lambda n: n.top1.mean):
        best[network.model] = network
    return [*first, *best.values()]


def _of_width_1(comparison: Figures) -> list[Network]:
    """The report draws other widths as curves."""
    return [network for network in comparison.networks if models.parse(network.model).width == 1]


def _networks_table(networks: Sequence[Network]) -> str:
    """The networks by what they are, in each group the most accurate first."""
    macs = wording.scale([network.macs for network in networks], COUNT)
    latency_of = dict(zip(map(id, networks), _milliseconds([network.latency_ms for network in networks]), strict=True))
    grouped = {model: group for group, of_group in GROUPS.items() for model in of_group}
    rows = [NETWORKS_HEADER]
    for group in (*GROUPS, OTHERS):
        of_group = [network for network in networks if grouped.get(network.model, OTHERS) == group]
        rows += [f"| *{group}* | | | | | |"] if of_group else []
        for network in sorted(of_group, key=lambda network: -network.top1.mean):
            top1 = f"{wording.seed_mean(network.top1)} ({wording.interval(network.top1_interval)})"
            cost = f"{network.parameters_trainable:,} | {macs(network.macs)} | {latency_of[id(network)]}"
            rows.append(f"| `{network.model}` | {network.recipe} | {top1} | {cost} |")
    return "\n".join(rows)


def devices_table(options: Sequence[Option], measured: Latencies | None) -> str:
    """The stored networks for someone who looks for one for a device, the most accurate first."""
    by_network: dict[str, dict[str, Option]] = {}
    for option in options:
        by_network.setdefault(option.stored.name, {})[option.format] = option
    rows = [DEVICES_HEADER]
    for name, files in sorted(by_network.items(), key=lambda item: -item[1]["onnx"].top1):
        first = files["onnx"]
        cells = [_file(files.get(kind), kind != "onnx") for kind in ("onnx", "int8")]
        macs = wording.human(first.stored.entry.macs)
        rows.append(f"| `{name}` | {wording.percent(first.top1)} | {macs} | {' | '.join(cells)} |")
    machine = markdown(", ".join(f"{key} {value}" for key, value in measured.machine.items())) if measured else ""
    where = f"Time of one picture on one thread, median; {machine}." if measured else "Time: not measured."
    return "\n".join([*rows, "", f"{where} {DEVICES_NOTE}"])


def _file(option: Option | None, with_top1: bool) -> str:
    if option is None:
        return "–"
    latency = f", {option.latency_ms:.2f} ms" if option.latency_ms else ""
    top1 = f", {wording.percent(option.top1)}" if with_top1 else ""
    return f"{option.bytes / 1000:,.0f} kB{latency}{top1}"


def _claims_table(claims: Mapping[str, Claim]) -> str:
    outcomes = [claim.outcome for claim in claims.values()]
    agree, differ = (outcomes.count(outcome) for outcome in ("agrees", "differs"))
    rows = [CLAIMS_HEADER.format(count=len(CLAIMS), of=len(claims), agree=agree, differ=differ)]
    for claim in (claims[key] for key in CLAIMS):
        rows.append(f"| {markdown(claim.says)} | {markdown(claim.measured)} | {markdown(claim.outcome)} |")
    return "\n".join(rows)


def _milliseconds(times: Sequence[Quantiles | None]) -> list[str]:
    write = wording.scale([time.median for time in times if time] or [1], MILLISECONDS)
    return [write(time.median) if time else wording.NOT_MEASURED for time in times]


def chart(*comparisons: Figures) -> Chart:
    """Top-1 against MACs of all networks, with a colour for each recipe."""
    networks = [network for comparison in comparisons for network in _of_width_1(comparison)]
    colours = dict(zip(dict.fromkeys(network.recipe for network in networks), PALETTE, strict=False))
    points = []
    for network in networks:
        bounds = (100 * network.top1_interval.low, 100 * network.top1_interval.high)
        top1 = 100 * network.top1.mean
        points.append(Point(network.model, colours[network.recipe], network.macs, top1, bounds, ()))
    drawn = scatter("accuracy_macs", f"Top-1 against {COST_AXES['macs']}", COST_AXES["macs"], points)
    low, high = drawn.y_range
    legend = enumerate([("recipe:", "@muted"), *colours.items()], start=1)
    labels = [Label(high - 0.06 * line * (high - low), text, colour) for line, (text, colour) in legend]
    return replace(drawn, labels=labels)
