"""Fill the README's tables from a comparison: python -m tools.readme COMPARISON.JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frugalnet.errors import UserError, run_stage
from frugalnet.files import atomic
from frugalnet.metrics.statistics import Interval, SeedMean
from frugalnet.report.wording import (
    MILLISECONDS,
    NOT_MEASURED,
    interval,
    markdown,
    percent,
    prefixed,
    scale,
    seed_mean,
)

README = Path("README.md")
CLAIMS = ("parameters_ratio", "alexnet_validation", "depthwise_validation", "residual_validation", "epoch_seconds")
_WHOLE = (200, "validation split")
_HEADER = (
    *("network", "seeds", "epochs", "top-1 (95 % interval)", "top-5", "parameters, trainable"),
    *("MACs per image", "latency, batch 1", "training step"),
)


def tables(figures: Mapping[str, Any]) -> dict[str, str]:
    """The Markdown between `<!-- name -->` and `<!-- /name -->`, by name; `figures`: comparison.json."""
    found = figures["networks"]
    macs = scale([one["macs"] for one in found], prefixed(""))
    latencies = _column([one["latency_ms"] and one["latency_ms"]["median"] for one in found], MILLISECONDS)
    steps = _column([one["train_step_ms"] and one["train_step_ms"]["median"] for one in found], MILLISECONDS)
    networks = [
        (
            f"`{one['model']}`",
            len(one["seeds"]),
            one["epochs"],
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
    facts = {name: markdown(figures["facts"][name]) for name in ("data", "cost measured on", "recipe", "commit")}
    return {
        "results": f"{_table(_HEADER, networks, '---|' + '--:|' * 8)}\n\n"
        f"Data: {facts['data']}. Cost measured on: {facts['cost measured on']}.\n"
        f"Recipe: {facts['recipe']}. Commit: {facts['commit']}.",
        "claims": _table(("what the paper says", "measured here", "outcome"), judged, "---|---|---|"),
    }


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


def main(comparison: str) -> None:
    try:
        figures = json.loads(Path(comparison).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{comparison} is missing: run `dvc repro` first") from error
    except ValueError as error:
        raise UserError(f"{comparison} cannot be read ({error}): run `dvc repro`") from error
    if figures["is_sample"]:
        raise UserError(f"{comparison} holds results on sample data, which do not belong in the README")
    if (found := (figures["num_classes"], figures["validated_on"])) != _WHOLE:
        raise UserError(
            f"{comparison} holds results on {found[0]} classes and the {found[1]}; "
            f"the README's are on {_WHOLE[0]} classes and the {_WHOLE[1]}"
        )
    text = fill(README.read_text(encoding="utf-8"), tables(figures))
    with atomic(README) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
