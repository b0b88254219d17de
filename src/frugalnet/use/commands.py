"""What the words of the command `frugalnet` do; their docstrings are its help. Each imports only what it needs."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugalnet.errors import UserError, needing_study, printable
from frugalnet.processes import peak_bytes, temporary_folder

if TYPE_CHECKING:
    from frugalnet.recommendation import Budget
    from frugalnet.use.choice import Latencies, Option


def _within_limits(arguments: argparse.Namespace, where: Path | None) -> "Option | None":
    """The most accurate file within the limits, which is said on stderr; None without limits.

    With a network's name, its file of the format that is asked for.
    """
    limited = bool(_budget(arguments).limits or arguments.measure)
    if not (limited or arguments.format):
        return None
    if arguments.model and limited:
        raise UserError("--model and limits: give one of them")
    from frugalnet.use import choice, weights

    options, measured = _fitting(arguments, where)
    if arguments.model:
        named = weights.choose_network(arguments.model, where).name
        of_network = [option for option in options if option.stored.name == named]
        if not of_network:
            raise UserError(f"{named}: has no {arguments.format} file; write one with frugalnet export")
        return of_network[0]
    print(f"frugalnet: {choice.why(options[0], measured)}", file=sys.stderr)
    return options[0]


def _fitting(arguments: argparse.Namespace, where: Path | None) -> "tuple[list[Option], Latencies | None]":
    """The files within the limits, best first, and where they were timed."""
    from frugalnet.use import choice

    options, measured = choice.read_options(where, arguments.format)
    if arguments.measure:
        measured = choice.time_options(options)
        options = choice.with_latencies(options, measured)
    return choice.fitting(options, _budget(arguments)), measured


def _budget(arguments: argparse.Namespace) -> "Budget":
    from frugalnet.recommendation import Budget

    limits = {"macs": arguments.max_macs, "weights_bytes": arguments.max_bytes, "latency_ms": arguments.max_ms}
    return Budget.model_validate(limits)


def check(_: argparse.Namespace) -> None:
    """Check params.yaml in this folder as the stage `check` of `dvc repro` does: every value, the networks, the
    augmentation, the device and the teacher."""
    with needing_study("check"):
        from frugalnet import config

        params = config.read_params()  # in a fraction of the time that the rest takes
        from frugalnet.check import check
    check(params)
    print(f"params.yaml: nothing wrong; networks: {', '.join(params.model.names)}")


def networks(arguments: argparse.Namespace) -> int:
    """List the networks in a folder of weights, best first, each with its files for ONNX Runtime: top-1 with its 95 %
    interval, MACs, bytes and latency; with limits, those within them."""
    from frugalnet.use import choice

    options, measured = _fitting(arguments, arguments.weights)
    with _while_output_is_read():
        if arguments.json:
            print(json.dumps([option.described() for option in options], indent=2))
        else:
            print("\n".join(map(printable, choice.table(options, measured).splitlines())))
    return 0


@dataclass(frozen=True)
class _Answer:
    """What `predict` says of a picture, as JSON has it. top: as `Prediction.named` gives it."""

    file: str
    network: str
    changes: list[str]
    milliseconds: float
    top: list[dict[str, Any]]

    def in_words(self) -> str:
        """For a terminal: control characters in names are escaped."""
        changes = f" ({', '.join(self.changes)})" if self.changes else ""
        lines = [f"{self.file}{changes}: {self.network}, {self.milliseconds:.2f} ms"]
        lines += [f"  {guess['probability']:7.2%}  {guess['name']}" for guess in self.top]
        return "\n".join(printable(line) for line in lines)


def predict(arguments: argparse.Namespace) -> int:
    """Classify each picture. Pictures may have any size: their EXIF orientation is applied, then they are
    centre-cropped and scaled to the size that the network takes. Exits with 1 if a picture cannot be classified; the
    others still are."""
    from frugalnet import picture_files, pictures  # here: --help needs none of it
    from frugalnet.use import runtime

    if arguments.run and arguments.weights:
        raise UserError("--run and --weights: give one of them")
    with temporary_folder() as folder:
        where = _downloaded(arguments.run, folder) if arguments.run else arguments.weights
        option = _within_limits(arguments, where)
        network = runtime.open_stored(option.stored, option.format) if option else runtime.load(arguments.model, where)
    answers: list[_Answer] = []
    failed = 0
    left_out = picture_files.LeftOut()
    with _while_output_is_read():
        for name in picture_files.find_pictures(arguments.pictures, left_out):
            try:
                picture = pictures.open_file(name, network.side)
            except UserError as error:
                failed += 1
                print(f"frugalnet: {error}", file=sys.stderr)
                continue
            (prediction,) = network.predict([picture.pixels])
            top = prediction.named(arguments.top)
            answer = _Answer(picture.name, network.name, list(picture.changes), prediction.milliseconds, top)
            answers.append(answer)
            if not arguments.json:
                print(answer.in_words())
        if arguments.json:
            print(json.dumps([asdict(answer) for answer in answers], indent=2))
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


def adapt(arguments: argparse.Namespace) -> int:
    """Fine-tune a trained network on the pictures in FOLDER, a folder for each class, on the CPU. A fifth of the
    pictures is held out to measure the accuracy, class by class. Writes a folder of weights for predict, export and
    serve."""
    from frugalnet.use import adapt, outcome, weights

    start = time.perf_counter()
    folder: Path = arguments.folder
    out = arguments.out or Path(f"{folder.resolve().name}-network")
    option = _within_limits(arguments, arguments.weights)
    stored = option.stored if option else weights.choose_network(arguments.model, arguments.weights)
    limits = "within the limits" if option else "there is"
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
    for file in sorted(out.glob("*.onnx")):
        print(f"  {printable(file)}: {file.stat().st_size:,} bytes")
    if reached.int8_top1 is None:
        to_write_one = f"frugalnet export OUT --weights {printable(out)} --pictures {printable(folder)}"
        print(f"  no int8 file, as there is none of {stored.name}; to write one: {to_write_one}")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write a folder that stands alone: a network as ONNX, as int8 ONNX and, if the extra `device` is installed, for
    ExecuTorch and TensorFlow Lite Micro, with its classes, its preprocessing and a program that runs it. Print what
    each file gives and costs."""
    from frugalnet.use import weights

    option = _within_limits(arguments, arguments.weights)
    stored = option.stored if option else weights.choose_network(arguments.model, arguments.weights)
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


def serve(arguments: argparse.Namespace) -> None:
    """Serve networks until Ctrl-C, by default all in weights/: a page in the browser, and answers to programs."""
    from frugalnet.use.server import run

    if arguments.alias and arguments.weights:
        raise UserError("--alias and --weights: give one of them")
    with temporary_folder() as folder:  # read, and gone, before the server starts
        where = _aliased(arguments, folder) if arguments.alias else arguments.weights
        networks = run.open_networks(where, arguments.model)
    examples = run.find_examples(arguments.examples, arguments.weights)
    run.serve(networks, run.Address(arguments.host, arguments.port, tuple(arguments.allow_host)), examples)


def _aliased(arguments: argparse.Namespace, folder: Path) -> Path:
    with needing_study("--alias"):
        from frugalnet import project, registry

        return registry.download_alias(project.project_root(), arguments.alias, folder, arguments.data)
