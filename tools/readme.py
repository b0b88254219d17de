"""Fill the README's tables and draw its charts: python -m tools.readme [COMPARISON.JSON …].

Without arguments it takes the published comparisons of RECIPES. The first comparison is the study's: its claims go into
the README. The networks of the others, trained with other recipes, are shown in the same table and charts; their costs
must have been measured in the same rounds.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from frugalnet.document import drawing
from frugalnet.document.blocks import Chart, Label, Point
from frugalnet.document.charts import PALETTE, scatter
from frugalnet.document.wording import (
    MILLISECONDS,
    NOT_MEASURED,
    interval,
    markdown,
    percent,
    prefixed,
    scale,
    seed_mean,
)
from frugalnet.errors import UserError, in_one_line
from frugalnet.files import atomic
from frugalnet.metrics.statistics import Interval, SeedMean
from frugalnet.study.cost import COST_AXES
from tools.results import STUDY_RECIPE

README, CHARTS = Path("README.md"), Path("docs/results")
RECIPES = (STUDY_RECIPE, "frontier", "frontier_wide", "distilled", "distilled_wide")  # in the order of the table
CLAIMS = ("parameters_ratio", "depthwise_training", "depthwise_validation", "residual_validation", "residual_seconds")
_WHOLE = (200, "validation split")
_HEADER = (
    *("network", "recipe", "epochs", "seeds", "top-1 (95 % interval)", "top-5", "parameters, trainable"),
    *("MACs per image", "latency, batch 1", "training step"),
)


def tables(figures: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, str]:
    """The Markdown between `<!-- name -->` and `<!-- /name -->`, by name; `figures`: comparison.json."""
    found = [one for each in (figures, *others) for one in each["networks"]]
    macs = scale([one["macs"] for one in found], prefixed(""))
    latencies = _column([one["latency_ms"] and one["latency_ms"]["median"] for one in found], MILLISECONDS)
    steps = _column([one["train_step_ms"] and one["train_step_ms"]["median"] for one in found], MILLISECONDS)
    networks = [
        (
            f"`{one['model']}`",
            one["recipe"],
            one["epochs"],
            len(one["seeds"]),
            f"{seed_mean(SeedMean(**one['top1']))} ({interval(Interval(**one['top1_interval']))})",
            percent(one["top5"]["mean"]),
            f"{one['parameters_trainable']:,}",
            macs(one["macs"]),
            latency,
            step,
        )
        for one, latency, step in zip(found, latencies, steps, strict=True)
    ]
    claims = {claim["key"]: claim for claim in figures["claims"]}
    judged = [[markdown(claims[key][column]) for column in ("says", "measured", "outcome")] for key in CLAIMS]
    facts = {name: markdown(figures["facts"][name]) for name in ("data", "cost measured on")}
    recipes = [
        f"[{name}](conf/train/{name}.yaml) ([settings and commits](docs/results/{name}/report.md#how-this-was-made))"
        for name in (each["networks"][0]["recipe"] for each in (figures, *others))
    ]
    return {
        "results": f"{_table(_HEADER, networks, '---|---|' + '--:|' * 8)}\n\n"
        + f"Data: {facts['data']}. Cost measured on: {facts['cost measured on']}.\n"
        + f"Recipes: {', '.join(recipes)}.",
        "claims": _table(("what the paper says", "measured here", "outcome"), judged, "---|---|---|"),
    }


def charts(*compared: Mapping[str, Any]) -> list[Chart]:
    """Top-1 against parameters and against MACs of all networks, with a colour for each recipe."""
    networks = [one for each in compared for one in each["networks"]]
    recipes = list(dict.fromkeys(one["recipe"] for one in networks))
    drawn = []
    for key in ("parameters_trainable", "macs"):
        points = [
            Point(
                one["model"],
                PALETTE[recipes.index(one["recipe"])],
                one[key],
                100 * one["top1"]["mean"],
                (100 * one["top1_interval"]["low"], 100 * one["top1_interval"]["high"]),
                (),
            )
            for one in networks
        ]
        chart = scatter(f"accuracy_{key}", f"Top-1 against {COST_AXES[key]}", COST_AXES[key], points)
        low, high = chart.y_range
        legend = enumerate([("recipe:", "@muted"), *zip(recipes, PALETTE, strict=False)], start=1)
        labels = [Label(high - 0.06 * i * (high - low), text, colour) for i, (text, colour) in legend]
        drawn.append(replace(chart, labels=labels))
    return drawn


def _column(values: Sequence[float | None], units: Sequence[tuple[float, str]]) -> list[str]:
    measured = [value for value in values if value]
    shown = scale(measured, units) if measured else str
    return [shown(value) if value else NOT_MEASURED for value in values]


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]], rule: str) -> str:
    first, *others = ["| " + " | ".join(map(str, row)) + " |" for row in (header, *rows)]
    return "\n".join([first, f"|{rule}", *others])


def fill(text: str, found: Mapping[str, str]) -> str:
    """The text with each table between its two marks. Raises UserError if the marks are missing."""
    for name, table in found.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not end:
            raise UserError(f"{README}: expected a line <!-- {name} --> and after it a line <!-- /{name} -->")
        text = f"{before}{start}{table}\n{end}{after}"
    return text


def published(root: Path = Path()) -> tuple[str, ...]:
    """The files of RECIPES, the study's first; another recipe's only if it is there."""
    study, *others = [root / CHARTS / recipe / "comparison.json" for recipe in RECIPES]
    return (str(study), *(str(path) for path in others if path.is_file()))


def main(*comparisons: str) -> None:
    comparisons = comparisons or published()
    found = [_read(comparison) for comparison in comparisons]
    for key in ("data hash", "cost measured on"):
        if len({each["facts"][key] for each in found}) > 1:
            raise UserError(f"{', '.join(comparisons)}: each has another “{key}”, so they cannot be in one table")
    text = fill(README.read_text(encoding="utf-8"), tables(*found))
    for chart in charts(*found):
        drawing.png(chart, CHARTS / f"{chart.name}.png")
    with atomic(README) as partial:
        partial.write_text(text, encoding="utf-8")


def _read(comparison: str) -> dict[str, Any]:
    try:
        figures: dict[str, Any] = json.loads(Path(comparison).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{comparison} is missing: run `make results` first") from error
    except ValueError as error:
        raise UserError(f"{comparison} cannot be read ({error}): run `make results`") from error
    if figures["is_sample"]:
        raise UserError(f"{comparison} holds results on sample data, which do not belong in the README")
    if (found := (figures["num_classes"], figures["validated_on"])) != _WHOLE:
        raise UserError(
            f"{comparison} holds results on {found[0]} classes and the {found[1]}; "
            f"the README's are on {_WHOLE[0]} classes and the {_WHOLE[1]}"
        )
    return figures


if __name__ == "__main__":
    with in_one_line("readme"):
        main(*sys.argv[1:])
