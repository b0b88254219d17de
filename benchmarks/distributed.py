"""How several workers compare with one, on the pictures in `data/`: `python -m benchmarks.distributed --epochs 12`.

Each setting is the train stage itself, run in results/distributed/<setting>: what is finished is not run again, what
was interrupted goes on. The table shows validation accuracy after equal passes over the data, the bytes that a worker
gives to the others in an epoch, and the seconds that it communicates and waits. results/distributed/curves.png draws
accuracy against epochs; scaling.png beside it, what the measured steps and bytes would mean for 1 to 1,024 workers
(`epoch_seconds` says how).

`--only single global-4-every-1 no-warm-up plain …` compares ways to average. To choose among them, `data/` has to hold
a hold-out of the training split: before, `dvc exp run -S data.holdout=5000 augment`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, log2
from pathlib import Path

import matplotlib

from benchmarks.settings import figures, train
from frugalnet import config, files
from frugalnet.files import atomic, write_json

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

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
POLICIES = {  # ways to average: each differs in one thing from the default, but for the last, the paper's plain one
    "no-warm-up": ["distributed.warmup=0"],
    "no-outer-momentum": ["distributed.outer_momentum=0"],
    "statistics-averaged": ["distributed.batch_norm=averaged"],
    "momentum-kept": ["distributed.momentum=kept"],
    "momentum-reset": ["distributed.momentum=reset"],
    "rate-halved": ["distributed.learning_rate_scale=0.3"],
    "rate-doubled": ["distributed.learning_rate_scale=1.2"],
    "batches-divided": ["distributed.batch=divided", "distributed.learning_rate_scale=0.15"],
    "plain": [
        f"distributed.{change}"
        for change in ("warmup=0", "outer_momentum=0", "batch_norm=averaged", "learning_rate_scale=1")
    ],
}
SETTINGS = GRID | {name: [*GRID["global-4-every-1"], *changes] for name, changes in POLICIES.items()}
SETTINGS["asynchronous-rate-2"] = [*GRID["asynchronous-4"], "distributed.learning_rate_scale=2"]
GIGABITS = (1, 10, 100)
WORKERS = [2**power for power in range(11)]


def all_reduce_seconds(size: float, count: float, workers: int, gigabits: float, latency: float) -> float:
    """Seconds of so many all-reduces of `size` bytes together. 2 (N-1)/N of the bytes cross each worker's link, the
    fewest that can, in 2 log₂ N rounds each: Rabenseifner's algorithm (Thakur, Rabenseifner and Gropp 2005)."""
    if workers == 1:
        return 0.0
    return 2 * (workers - 1) / workers * size * 8 / (gigabits * 1e9) + count * 2 * log2(workers) * latency


def stops_scaling(seconds: Mapping[int, float]) -> int:
    """The most workers that are used at least half: one worker's seconds, over theirs, is half their number or more."""
    return max(n for n in seconds if seconds[1] / seconds[n] >= n / 2)


@dataclass(frozen=True)
class Talk:
    """What is exchanged at a time: payload in bytes, and the all-reduces that carry it."""

    size: float
    all_reduces: float


def epoch_seconds(
    images: int, batch_size: int, image_seconds: float, step: Talk, exchange: Talk, gigabits: float, latency: float
) -> dict[str, dict[int, float]]:
    """Scheme → workers → seconds of an epoch. Nothing overlaps, nobody straggles, evaluation and warm-up are left out.

    Workers that divide a batch get two images of it or more. Sub-models read batches of their own, of any size.
    """

    def talking(what: Talk, times: float, workers: int) -> float:
        return times * all_reduce_seconds(what.size, what.all_reduces, workers, gigabits, latency)

    steps, each = ceil(images / batch_size), {n: ceil(images / n) * image_seconds for n in WORKERS}
    return {
        f"DDP, {batch_size} images a step together": {
            n: steps * ceil(batch_size / n) * image_seconds + talking(step, steps, n)
            for n in WORKERS
            if batch_size >= 2 * n
        },
        f"DDP, {batch_size} images a step each": {
            n: each[n] + talking(step, ceil(images / (batch_size * n)), n) for n in WORKERS
        },
    } | {
        f"global network, T = {period}": {n: each[n] + talking(exchange, 1 / period, n) for n in WORKERS}
        for period in (1, 2, 5)
    }


def draw(scaled: Mapping[int, Mapping[str, Mapping[int, float]]], path: Path) -> None:
    """Epoch time against workers: bandwidth in Gbit/s → scheme → workers → seconds."""
    figure, axes = plt.subplots(1, len(scaled), figsize=(13, 4.2), sharey=True, layout="constrained")
    for (gigabits, schemes), plot in zip(scaled.items(), axes, strict=True):
        for (scheme, seconds), style in zip(schemes.items(), ("--", "-.", "-", "-", "-"), strict=True):
            plot.plot(list(seconds), list(seconds.values()), style, label=scheme)
        plot.set(title=f"{gigabits} Gbit/s", xlabel="workers", xscale="log", yscale="log")
        plot.set_xticks(WORKERS[::2], [f"{n:,}" for n in WORKERS[::2]])
        plot.minorticks_off()
        plot.grid(alpha=0.3)
    axes[0].set_ylabel("seconds an epoch, without evaluation")
    axes[-1].legend(fontsize="small", loc="lower left")
    _save(figure, path)


def draw_curves(histories: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Validation accuracy against epochs, of each setting and, faintly, of its sub-models before they exchange."""
    figure, plot = plt.subplots(figsize=(8, 5), layout="constrained")
    for number, (name, rows) in enumerate(histories.items()):
        epochs, colour = [row["epoch"] for row in rows], plt.get_cmap("tab10")(number % 10)
        for key in rows[0]:
            if key.startswith("sub_models/validation_top1"):
                plot.plot(epochs, [100 * row[key] for row in rows], color=colour, linewidth=0.6, alpha=0.5)
        plot.plot(epochs, [100 * row["validation_top1"] for row in rows], color=colour, marker=".", label=name)
    plot.set(xlabel="epoch", ylabel="validation top-1, %")
    plot.grid(alpha=0.3)
    plot.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--model", default="residual")
    parser.add_argument(
        "--only", nargs="*", choices=SETTINGS, default=list(GRID), metavar="SETTING", help=", ".join(SETTINGS)
    )
    parser.add_argument("--latency", type=float, default=5e-5, help="seconds, of a round between two hosts")
    parser.add_argument("overrides", nargs="*", help="of all settings, as dvc's -S takes them")
    arguments = parser.parse_args()
    out, left = Path("results/distributed"), Path("results/train") / f"{arguments.model}-0"
    measured = {}
    for name in arguments.only:
        common = [f"model={arguments.model}", f"train.epochs={arguments.epochs}", *arguments.overrides]
        train(name, [*SETTINGS[name], *common], out / name, arguments.model)
        measured[name] = figures(out / name, arguments.model)
        write_json(out / "table.json", measured)
    draw_curves({name: files.read_history(out / name / left / "history.csv") for name in measured}, out / "curves.png")
    print(f"{'':26}{'top-1':>8}{'train':>8}{'s/epoch':>9}{'MB given/epoch':>16}{'s talking':>11}{'s waiting':>11}")
    for name, row in measured.items():
        print(
            f"{name:26}{row['validation_top1']:8.2%}{row['train_top1']:8.2%}{row['epoch_seconds']:9.1f}"
            f"{row['bytes_given'] / 1e6:16.3f}{row['communication_seconds']:11.2f}{row['waiting_seconds']:11.2f}"
        )
    if {"single", "ddp-2", "global-2-every-1"} <= measured.keys():
        train_config = config.load(out / "single/params.yaml").train
        images = json.loads((out / "single" / left / "run.json").read_text())["n_train"]
        steps, ddp = ceil(images / train_config.batch_size), measured["ddp-2"]
        # The last epoch's: warm-up is over.
        averaged = json.loads((out / "global-2-every-1" / left / "timing.json").read_text())["exchange"][-1]
        step = Talk(ddp["bytes_given"] / steps, ddp["all_reduces"] / steps)
        exchange = Talk(averaged["bytes_given"], averaged["all_reduces"])
        image_seconds = measured["single"]["epoch_seconds"] / images
        scaled = {
            gigabits: epoch_seconds(
                images, train_config.batch_size, image_seconds, step, exchange, gigabits, arguments.latency
            )
            for gigabits in GIGABITS
        }
        draw(scaled, out / "scaling.png")
        stops = {
            f"{gigabits} Gbit/s": {scheme: stops_scaling(seconds) for scheme, seconds in schemes.items()}
            for gigabits, schemes in scaled.items()
        }
        facts = {"image_seconds": image_seconds, "step": asdict(step), "exchange": asdict(exchange)}
        write_json(out / "scaling.json", facts | {"latency_seconds": arguments.latency, "half_used_up_to": stops})
        for speed, schemes in stops.items():
            print(
                f"{speed}: at least half used up to " + ", ".join(f"{n:,} ({scheme})" for scheme, n in schemes.items())
            )


if __name__ == "__main__":
    main()
