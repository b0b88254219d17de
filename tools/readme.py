"""The README's tables, made of the figures of a comparison: python -m tools.readme COMPARISON.JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frugalnet.errors import UserError, run_stage
from frugalnet.files import atomic
from frugalnet.metrics.statistics import Interval, Spread
from frugalnet.report.wording import NOT_MEASURED, duration, human, interval, markdown, number, percent, spread

README = Path("README.md")
_WHOLE = (200, "validation split")


def tables(figures: Mapping[str, Any]) -> dict[str, str]:
    """The Markdown that stands between `<!-- name -->` and `<!-- /name -->`, by name; `figures`: comparison.json."""
    networks = [
        [
            f"`{one['model']}`",
            len(one["seeds"]),
            one["epochs"],
            f"{spread(Spread(**one['top1']))} ({interval(Interval(**one['top1_interval']))})",
            percent(one["top5"]["mean"]),
            f"{one['parameters_trainable']:,}",
            human(one["macs"]),
            f"{number(one['latency_ms']['median'])} ms" if one["latency_ms"] else NOT_MEASURED,
            duration(one["train_seconds"]["mean"]) if one["train_seconds"] else NOT_MEASURED,
        ]
        for one in figures["networks"]
    ]
    titles = ["network", "seeds", "epochs", "top-1 (95 % interval)", "top-5", "parameters, trainable"]
    titles += ["MACs an image", "latency, batch 1", "training"]
    judged = [[markdown(one[key]) for key in ("says", "measured", "outcome")] for one in figures["claims"]]
    shown = ("data", "recipe", "trained on", "cost measured on", "commit")
    facts = "\n".join(f"- {name}: {markdown(figures['facts'][name])}" for name in shown)
    said = "\n".join(f"- {markdown(note)}" for note in (*figures["verdict"], *figures["notes"]))
    return {
        "results": _table(titles, networks, "---|" + "--:|" * 8) + f"\n\n{said}\n\n{facts}",
        "claims": _table(["what the paper says", "measured here", "outcome"], judged, "---|---|---|"),
    }


def _table(titles: list[str], rows: list[list[Any]], rule: str) -> str:
    return "\n".join(["| " + " | ".join(map(str, row)) + " |" for row in (titles, *rows)]).replace(
        "\n", f"\n|{rule}\n", 1
    )


def fill(text: str, found: Mapping[str, str]) -> str:
    """The text with each table between its two marks; raises UserError where the marks are missing."""
    for name, table in found.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not end:
            raise UserError(
                f"{README}: a line <!-- {name} --> and one <!-- /{name} --> after it were expected, not found"
            )
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
        raise UserError(
            f"{comparison} is of sample data, which say nothing about Tiny ImageNet: the README keeps its own"
        )
    if (found := (figures["num_classes"], figures["validated_on"])) != _WHOLE:
        raise UserError(
            f"{comparison} is of {found[0]} classes and the {found[1]}; README has {_WHOLE[0]}, {_WHOLE[1]}"
        )
    text = fill(README.read_text(encoding="utf-8"), tables(figures))
    with atomic(README) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
