"""The command `frugalnet`: classify pictures with a trained network, fine-tune it, export it, or serve it."""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugalnet import streams
from frugalnet.errors import UserError, in_one_line, needing_study, printable
from frugalnet.processes import peak_bytes

if TYPE_CHECKING:
    from frugalnet.recommendation import Budget


def main() -> None:
    streams.make_usable()
    parser = argparse.ArgumentParser(
        prog="frugalnet", description="Classify pictures with a trained network, fine-tune it, export it, or serve it."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="classify pictures", description=_predict.__doc__)
    predict.add_argument("pictures", nargs="+", metavar="PICTURE", help="a file, a folder, or - for standard input")
    predict.add_argument("--model", help="depthwise or, with its seed, depthwise-0; by default the most accurate")
    predict.add_argument("--weights", type=Path, help="a .safetensors file, or a folder of weights, to use instead")
    _add_limits(predict)
    predict.add_argument("--run", metavar="RUN_ID", help="the exported network of an MLflow run")
    predict.add_argument(
        "--top", type=_within(1, 1000), default=5, metavar="N", help="how many classes to name (default: 5)"
    )
    predict.add_argument("--json", action="store_true", help="print one JSON array instead of text")
    predict.set_defaults(call=_predict)
    adapt = commands.add_parser("adapt", help="fine-tune a network on your own pictures", description=_adapt.__doc__)
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
    adapt.set_defaults(call=_adapt)
    export = commands.add_parser("export", help="write a network for other runtimes", description=_export.__doc__)
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
    export.set_defaults(call=_export)
    serve = commands.add_parser(
        "serve", aliases=["try"], help="answer HTTP requests, and show a page", description=_serve.__doc__
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
    serve.set_defaults(call=_serve)
    check = commands.add_parser("check", help="check params.yaml before a run", description=_check.__doc__)
    check.set_defaults(call=_check)
    networks = commands.add_parser("networks", help="list networks that fit a device", description=_networks.__doc__)
    networks.add_argument("--weights", type=Path, help="a folder of weights to list instead of the project's")
    _add_limits(networks)
    networks.add_argument("--measure", action="store_true", help="time the networks on this machine first")
    networks.add_argument("--json", action="store_true", help="print one JSON array instead of text")
    networks.set_defaults(call=_networks)
    arguments = parser.parse_args()
    with in_one_line("frugalnet"):
        sys.exit(arguments.call(arguments))


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """The options that name the most accurate network within a budget."""
    parser.add_argument("--max-macs", type=_amount, metavar="N", help="MACs of one picture, for example 4M")
    parser.add_argument("--max-bytes", type=_amount, metavar="N", help="bytes of the file, for example 100k")
    parser.add_argument("--max-ms", type=_amount, metavar="N", help="milliseconds of one picture")
    parser.add_argument("--format", choices=("onnx", "int8"), help="of the file (default: whichever fits)")


def _amount(text: str) -> float:
    from frugalnet import recommendation

    try:
        return recommendation.amount(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _chosen_network(arguments: argparse.Namespace) -> str | None:
    """The network to use: as --model names it, or the most accurate one within the limits, which is said on stderr."""
    budget = _budget(arguments)
    if not budget.limits and not arguments.format:
        return str(arguments.model) if arguments.model else None
    if arguments.model:
        raise UserError("--model and limits: give one of them")
    from frugalnet.use import choice

    found, _ = choice.read_options(arguments.weights)
    option = choice.fitting(choice.of_format(found, arguments.format), budget)[0]
    print(f"frugalnet: {choice.why(option)}", file=sys.stderr)
    return option.stored.name


def _budget(arguments: argparse.Namespace) -> "Budget":
    from frugalnet.recommendation import Budget

    limits = {"macs": arguments.max_macs, "weights_bytes": arguments.max_bytes, "latency_ms": arguments.max_ms}
    return Budget.model_validate(limits)


def _check(_: argparse.Namespace) -> None:
    """Check params.yaml in this folder as the first stage of `dvc repro` does: every value, the networks, the
    augmentation, the device and the teacher."""
    with needing_study("check"):
        from frugalnet import config

        params = config.read_params()  # in a fraction of the time that the rest takes
        from frugalnet.check import check
    check(params)
    print(f"params.yaml: nothing wrong; networks: {', '.join(params.model.names)}")


def _networks(arguments: argparse.Namespace) -> int:
    """List the networks in a folder of weights, best first, each with its files for ONNX Runtime: top-1 with its 95 %%
    interval, MACs, bytes and latency; with limits, those within them."""
    from frugalnet.use import choice

    found, measured = choice.read_options(arguments.weights)
    found = choice.of_format(found, arguments.format)
    if arguments.measure:
        measured = choice.measure(found)
        found = choice.with_latencies(found, measured)
    found = choice.fitting(found, _budget(arguments))
    if arguments.json:
        print(json.dumps([option.described() for option in found], indent=2))
    else:
        print(choice.table(found, measured))
    return 0


def _within(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, found {text!r}")
        return int(text)

    return number


def _predict(arguments: argparse.Namespace) -> int:
    """Classify each picture. Pictures may have any size: their EXIF orientation is applied, then they are
    centre-cropped and scaled to the size that the network takes. Exits with 1 if a picture cannot be classified; the
    others still are."""
    from frugalnet import pictures  # here: --help needs none of it
    from frugalnet.use import runtime

    if arguments.run and arguments.weights:
        raise UserError("--run and --weights: give one of them")
    with tempfile.TemporaryDirectory() as folder:
        where = _downloaded(arguments.run, Path(folder)) if arguments.run else arguments.weights
        network = runtime.load(_chosen_network(arguments), where)
    predictions: list[dict[str, Any]] = []
    failed = 0
    left_out = pictures.LeftOut()
    with _while_output_is_read():
        for name in pictures.find_pictures(arguments.pictures, left_out):
            try:
                picture = pictures.open_file(name, network.side)
            except UserError as error:
                failed += 1
                print(f"frugalnet: {error}", file=sys.stderr)
                continue
            (prediction,) = network.predict([picture.pixels])
            predictions.append(
                {
                    "file": picture.name,
                    "network": network.name,
                    "changes": list(picture.changes),
                    "milliseconds": prediction.milliseconds,
                    "top": prediction.named(arguments.top),
                }
            )
            if not arguments.json:
                print(_text(predictions[-1]))
        if arguments.json:
            print(json.dumps(predictions, indent=2))
    if left_out:
        print(f"frugalnet: {printable(left_out)}", file=sys.stderr)
    return int(failed > 0)


@contextmanager
def _while_output_is_read() -> Iterator[None]:
    """End silently, as other commands do, when whoever reads the output, such as `head`, has had enough."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        sys.exit(128 + signal.SIGPIPE)


def _downloaded(run_id: str, folder: Path) -> Path:
    with needing_study("--run"):
        from frugalnet import project, registry
    return registry.download(project.project_root(), run_id, folder)


def _adapt(arguments: argparse.Namespace) -> int:
    """Fine-tune a trained network on the pictures in FOLDER, a folder for each class, on the CPU. A fifth of the
    pictures is held out to measure the accuracy, class by class. Writes a folder of weights for predict, export and
    serve."""
    from frugalnet.use import adapt, outcome, weights

    start = time.perf_counter()
    folder: Path = arguments.folder
    out = arguments.out or Path(f"{folder.resolve().name}-network")
    chosen = _chosen_network(arguments)
    stored = weights.choose_network(chosen, arguments.weights)
    limits = "within the limits" if chosen else "there is"
    why = "as asked" if arguments.model else f"the most accurate network {limits}"
    print(f"Starting from {stored.name}, {why}: {stored.entry.top1:.1%} top-1, {stored.entry.macs:,} MACs")
    options = adapt.Options(arguments.train, arguments.seed, arguments.balance)
    reached = adapt.adapt(folder, stored, out, options)
    print(reached.in_words)
    for line in outcome.as_text(reached, shown=20).splitlines():
        print(printable(line))
    seconds = time.perf_counter() - start
    print(f"Trained {arguments.train} in {seconds:.1f} s; peak memory of the process: {peak_bytes() / 1e6:.0f} MB")
    print(f"Weights, card and table of confusions: {printable(out)}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    """Write a folder that stands alone: a network as ONNX, as int8 ONNX and, if the extra `device` is installed, for
    ExecuTorch and TensorFlow Lite Micro, with its classes, its preprocessing and a program that runs it. Print what
    each file gives and costs."""
    from frugalnet.use import weights

    stored = weights.choose_network(_chosen_network(arguments), arguments.weights)
    if arguments.copy:
        from frugalnet.use import copied

        print(copied.copy_exported(stored, arguments.out))
        return 0
    with needing_study("export, unless --copy is given,"):
        import torch

        from frugalnet.use import tried
    torch.set_num_threads(1)
    print(tried.export_with_pictures(stored, arguments.pictures, arguments.out))
    return 0


def _serve(arguments: argparse.Namespace) -> None:
    """Serve networks until Ctrl-C, by default all in weights/: a page in the browser, and answers to programs."""
    from frugalnet.use.server import run

    if arguments.alias and arguments.weights:
        raise UserError("--alias and --weights: give one of them")
    with tempfile.TemporaryDirectory(prefix="frugalnet-") as folder:  # read, and gone, before the server starts
        where = _aliased(arguments.alias, arguments.data, Path(folder)) if arguments.alias else arguments.weights
        networks = run.open_networks(where, arguments.model)
    examples = run.find_examples(arguments.examples, arguments.weights)
    run.serve(networks, run.Address(arguments.host, arguments.port, tuple(arguments.allow_host)), examples)


def _aliased(alias: str, data: str | None, folder: Path) -> Path:
    with needing_study("--alias"):
        from frugalnet import project, registry

        return registry.download_alias(project.project_root(), alias, folder, data)


def _text(picture: dict[str, Any]) -> str:
    """One picture's classes, for a terminal: control characters in names are escaped."""
    changes = f" ({', '.join(picture['changes'])})" if picture["changes"] else ""
    lines = [f"{picture['file']}{changes}: {picture['network']}, {picture['milliseconds']:.2f} ms"]
    lines += [f"  {guess['probability']:7.2%}  {guess['name']}" for guess in picture["top"]]
    return "\n".join(printable(line) for line in lines)


if __name__ == "__main__":
    main()
