"""The command `frugalnet`: its words and options. What it does is in `commands`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from frugalnet import streams
from frugalnet.errors import in_one_line
from frugalnet.stage import end_in_order
from frugalnet.use import commands as run

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main() -> None:
    streams.make_usable()
    parser = argparse.ArgumentParser(
        prog="frugalnet",
        description="Find a network for a device; classify pictures with it, fine-tune, export or serve it.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (_add_predict, _add_adapt, _add_export, _add_serve, _add_check, _add_networks):
        add(commands)
    arguments = parser.parse_args()
    with in_one_line("frugalnet"):
        end_in_order()
        sys.exit(arguments.call(arguments))


def _add_predict(commands: Commands) -> None:
    predict = commands.add_parser("predict", help="classify pictures", description=run.predict.__doc__)
    predict.add_argument("pictures", nargs="+", metavar="PICTURE", help="a file, a folder, or - for standard input")
    predict.add_argument("--model", help="depthwise or, with its seed, depthwise-0; by default the most accurate")
    predict.add_argument("--weights", type=Path, help="a .safetensors file, or a folder of weights, to use instead")
    _add_limits(predict)
    predict.add_argument("--run", metavar="RUN_ID", help="the exported network of an MLflow run")
    predict.add_argument(
        "--top", type=_within(1, 1000), default=5, metavar="N", help="how many classes to name (default: 5)"
    )
    predict.add_argument("--json", action="store_true", help="print one JSON array instead of text")
    predict.set_defaults(call=run.predict)


def _add_adapt(commands: Commands) -> None:
    adapt = commands.add_parser("adapt", help="fine-tune a network on your own pictures", description=run.adapt.__doc__)
    adapt.add_argument("folder", type=Path, metavar="FOLDER", help="holds a folder of pictures for each class")
    adapt.add_argument("--model", help="the network to start from (default: the most accurate)")
    adapt.add_argument("--weights", type=Path, help="a file or folder of weights to start from instead")
    _add_limits(adapt)
    adapt.add_argument(
        "--train",
        choices=("classifier", "norms", "blocks", "all"),
        default="classifier",
        help="what to train (default: classifier, the best with few pictures; docs/adaptation.md)",
    )
    adapt.add_argument(
        "--seed", type=_within(0, 2**32 - 1), default=0, help="seed of the hold-out and the training (default: 0)"
    )
    adapt.add_argument(
        "--balance",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether each class counts as much as another in training, however many pictures it has (default: yes)",
    )
    adapt.add_argument("--out", type=Path, help="the folder of weights to write (default: FOLDER-network)")
    adapt.set_defaults(call=run.adapt)


def _add_export(commands: Commands) -> None:
    export = commands.add_parser("export", help="write a network for other runtimes", description=run.export.__doc__)
    export.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    export.add_argument("--model", help="depthwise or, with its seed, depthwise-0; by default the most accurate")
    export.add_argument("--weights", type=Path, help="a file or folder of weights to use instead")
    _add_limits(export)
    source = export.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pictures",
        nargs="+",
        metavar="PICTURE",
        help="from which int8's ranges are taken, and on which the files are compared: pictures, folders of them, or "
        "the folder given to adapt",
    )
    source.add_argument("--copy", action="store_true", help="copy the ONNX files that lie beside the weights")
    export.set_defaults(call=run.export)


def _add_serve(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve", aliases=["try"], help="answer HTTP requests, and show a page", description=run.serve.__doc__
    )
    serve.add_argument("--weights", type=Path, help="a folder or file of weights, or an exported folder, instead")
    serve.add_argument("--model", help="only this network: depthwise or, with its seed, depthwise-0")
    serve.add_argument("--alias", choices=("champion", "frugal"), help="the registered network of this alias instead")
    serve.add_argument("--data", metavar="NAME", help="what it was trained on, if several networks have the alias")
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    serve.add_argument("--port", type=_within(1, 65535), default=5001, help="default: 5001")
    serve.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name by which requests may call this host"
    )
    serve.add_argument("--examples", type=Path, metavar="FOLDER", help="pictures, or folders of them, for the page")
    serve.set_defaults(call=run.serve)


def _add_check(commands: Commands) -> None:
    check = commands.add_parser("check", help="check params.yaml before a run", description=run.check.__doc__)
    check.set_defaults(call=run.check)


def _add_networks(commands: Commands) -> None:
    networks = commands.add_parser("networks", help="list networks that fit a device", description=run.networks.__doc__)
    networks.add_argument("--weights", type=Path, help="a folder of weights to list instead of the project's")
    _add_limits(networks)
    networks.add_argument("--json", action="store_true", help="print one JSON array instead of text")
    networks.set_defaults(call=run.networks)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """The options that name the most accurate network within a budget."""
    parser.add_argument("--max-macs", type=_amount, metavar="N", help="MACs of one picture, for example 4M")
    parser.add_argument("--max-bytes", type=_amount, metavar="N", help="bytes of the file, for example 100k")
    parser.add_argument(
        "--max-ms", type=_amount, metavar="N", help="milliseconds of one picture, as they were measured"
    )
    parser.add_argument("--measure", action="store_true", help="time the networks on this machine first")
    parser.add_argument("--format", choices=("onnx", "int8"), help="of the file (default: whichever fits)")


def _amount(text: str) -> float:
    from frugalnet import recommendation

    try:
        number = recommendation.amount(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if number <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return number


def _within(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, found {text!r}")
        return int(text)

    return number


if __name__ == "__main__":
    main()
