"""Publish the project's results, to be committed. The commands build on each other, in this order."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from frugalnet.errors import in_one_line
from tools import networks, readme, records

COMMANDS = {
    "results": "copy the report and the records of all networks in results/, which share one recipe, to "
    "docs/results/RECIPE. Claims that depend on the paper's recipe are judged by the networks in docs/results/paper: "
    "publish those first. --add first copies there what is published of networks that results/ lacks, to add a "
    "network without the weights of the others; their costs are not copied: measure all networks together",
    "weights": "copy the weights of finished runs, by default of all of at most 2 MB: git keeps every version for "
    "ever. weights/ gets the lowest seed of each network; docs/results/RECIPE/weights, to be verified rather than "
    "used, other seeds, the paper's recipe, and networks that weights/ holds from another recipe",
    "exports": "write the ONNX and int8 files of each network in weights/, which run without PyTorch, and list them in "
    "weights.json; int8 only if it loses no more than export.max_loss_points of top-1. Needs the images in "
    "data/arrays, as `dvc repro normalise` leaves them",
    "latencies": "time one picture with each ONNX file of weights/, for `frugalnet networks` and the README, and write "
    "them to weights/latency.json: on an idle machine, after `exports`",
    "cards": "write a model card of each network in weights/ to docs/models/",
    "readme": "fill the README's tables and draw its chart from comparisons, by default the published ones. The "
    "claims are those of the first; the costs of all must have been measured in the same rounds",
    "verify": "evaluate all committed weights again: top-1, top-5 and the correct images of every class must be those "
    "of the records. Needs the images in data/arrays, as `dvc repro normalise` leaves them",
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m tools.publish", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: commands.add_parser(name, help=text, description=text) for name, text in COMMANDS.items()}
    parsers["results"].add_argument("--add", metavar="RECIPE", help="keep what is published of other networks")
    parsers["weights"].add_argument("names", nargs="*", metavar="NAME", help="a run, as residual-0")
    parsers["readme"].add_argument("comparisons", nargs="*", type=Path, metavar="COMPARISON.JSON")
    arguments = parser.parse_args(argv)
    match arguments.command:
        case "results":
            records.publish_project(arguments.add)
        case "weights":
            networks.publish_weights(arguments.names)
        case "latencies":
            networks.write_latencies()
        case "exports":
            networks.write_exports(Path())
        case "cards":
            networks.write_cards(Path("docs/models"), records.RESULTS)
        case "readme":
            readme.write_readme(arguments.comparisons)
        case "verify":
            networks.verify_weights(Path())


if __name__ == "__main__":
    with in_one_line("publish"):
        main()
