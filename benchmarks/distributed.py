"""How several workers compare with one, on the pictures in `data/`: `python -m benchmarks.distributed --epochs 12`.

Each setting is the train stage itself, run in results/distributed/<setting>: what is finished is not run again, what
was interrupted goes on. The table shows validation accuracy after equal passes over the data, the bytes that a worker
gives to the others in an epoch, and the seconds that it communicates and waits. results/distributed/scaling.png draws
what the measured steps and bytes would mean for 1 to 1,024 workers (`scaled_epoch_seconds` says how).
"""

import argparse
import json
from collections.abc import Sequence
from math import ceil, log2
from pathlib import Path

import matplotlib

from benchmarks.settings import figures, train
from frugalnet import config
from frugalnet.files import atomic, write_json

matplotlib.use("Agg")

import matplotlib.pyplot as plt

GRID = {
    "single": ["distributed=none"],
    **{f"ddp-{n}": ["distributed=ddp", f"distributed.workers={n}"] for n in (2, 4)},
    **{
        f"global-{n}-every-{period}": [
            "distributed=global_net",
            f"distributed.workers={n}",
            f"distributed.period={period}",
        ]
        for n in (2, 4)
        for period in (1, 2, 5)
    },
    "asynchronous-4": ["distributed=global_net", "distributed.exchange=asynchronous"],
}
GIGABITS = (1, 10, 100)
WORKERS = [2**power for power in range(11)]


def all_reduce_seconds(size: float, workers: int, gigabits: float, latency: float) -> float:
    """Seconds to add `size` bytes over the workers: 2 (N-1)/N of them cross each worker's link, in 2 log₂ N rounds, the
    lower bounds of both (Thakur, Rabenseifner and Gropp 2005)."""
    if workers == 1:
        return 0.0
    return 2 * (workers - 1) / workers * size * 8 / (gigabits * 1e9) + 2 * log2(workers) * latency


def scaled_epoch_seconds(
    workers: int, images: int, image_seconds: float, size: float, exchanges: float, gigabits: float, latency: float
) -> float:
    """Seconds of an epoch of `images` shared by workers that each need `image_seconds` an image and together exchange
    `size` bytes `exchanges` times an epoch. Nothing overlaps, nobody straggles, evaluation is left out."""
    return ceil(images / workers) * image_seconds + exchanges * all_reduce_seconds(size, workers, gigabits, latency)


def stops_scaling(seconds: Sequence[float]) -> int:
    """The most workers that are used at least half: one worker's seconds, over theirs, is half their number or more."""
    return max(n for n, epoch in zip(WORKERS, seconds, strict=True) if seconds[0] / epoch >= n / 2)


def scale(
    images: int,
    batch_size: int,
    epoch_seconds: float,
    step_bytes: float,
    exchange_bytes: float,
    latency: float,
    path: Path,
) -> dict[str, dict[str, int]]:
    """Draw epoch time against workers; bandwidth → scheme → the workers at which it stops scaling.

    step_bytes: of a gradient, and of the batch statistics that go with it. exchange_bytes: of one of parameters.
    """
    image = epoch_seconds / images
    figure, axes = plt.subplots(1, len(GIGABITS), figsize=(13, 4.2), sharey=True, layout="constrained")
    stops: dict[str, dict[str, int]] = {}
    for gigabits, plot in zip(GIGABITS, axes, strict=True):
        schemes = {
            f"DDP, {batch_size} images a step together": [
                scaled_epoch_seconds(n, images, image, step_bytes, images / batch_size, gigabits, latency)
                for n in WORKERS
            ],
            f"DDP, {batch_size} images a step each": [
                scaled_epoch_seconds(n, images, image, step_bytes, ceil(images / (batch_size * n)), gigabits, latency)
                for n in WORKERS
            ],
        } | {
            f"global network, T = {period}": [
                scaled_epoch_seconds(n, images, image, exchange_bytes, 1 / period, gigabits, latency) for n in WORKERS
            ]
            for period in (1, 2, 5)
        }
        for (scheme, seconds), style in zip(schemes.items(), ("--", "-.", "-", "-", "-"), strict=True):
            plot.plot(WORKERS, seconds, style, label=scheme)
        plot.set(title=f"{gigabits} Gbit/s", xlabel="workers", xscale="log", yscale="log")
        plot.set_xticks(WORKERS[::2], [f"{n:,}" for n in WORKERS[::2]])
        plot.minorticks_off()
        plot.grid(alpha=0.3)
        stops[f"{gigabits} Gbit/s"] = {scheme: stops_scaling(seconds) for scheme, seconds in schemes.items()}
    axes[0].set_ylabel("seconds an epoch, without evaluation")
    axes[-1].legend(fontsize="small")
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    plt.close(figure)
    return stops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--model", default="residual")
    parser.add_argument("--only", nargs="*", choices=GRID, default=list(GRID), metavar="SETTING", help=", ".join(GRID))
    parser.add_argument("--latency", type=float, default=5e-5, help="seconds, of a round between two hosts")
    parser.add_argument("overrides", nargs="*", help="of all settings, as dvc's -S takes them")
    arguments = parser.parse_args()
    out = Path("results/distributed")
    measured = {}
    for name in arguments.only:
        common = [f"model={arguments.model}", f"train.epochs={arguments.epochs}", *arguments.overrides]
        train(name, [*GRID[name], *common], out / name, arguments.model)
        measured[name] = figures(out / name, arguments.model)
        write_json(out / "table.json", measured)
    print(f"{'':18}{'top-1':>8}{'train':>8}{'s/epoch':>9}{'MB given/epoch':>16}{'s talking':>11}{'s waiting':>11}")
    for name, row in measured.items():
        print(
            f"{name:18}{row['validation_top1']:8.2%}{row['train_top1']:8.2%}{row['epoch_seconds']:9.1f}"
            f"{row['bytes_given'] / 1e6:16.3f}{row['communication_seconds']:11.2f}{row['waiting_seconds']:11.2f}"
        )
    if {"single", "ddp-2", "global-2-every-1"} <= measured.keys():
        train_config = config.load(out / "single/params.yaml").train
        images = json.loads((out / "single/results/train" / f"{arguments.model}-0" / "run.json").read_text())["n_train"]
        stops = scale(
            images,
            train_config.batch_size,
            measured["single"]["epoch_seconds"],
            measured["ddp-2"]["bytes_given"] / ceil(images / train_config.batch_size),
            measured["global-2-every-1"]["bytes_given"],
            arguments.latency,
            out / "scaling.png",
        )
        write_json(out / "scaling.json", stops)
        for speed, schemes in stops.items():
            print(
                f"{speed}: at least half used up to " + ", ".join(f"{n:,} ({scheme})" for scheme, n in schemes.items())
            )


if __name__ == "__main__":
    main()
