"""Compare several workers with one, on the images in `data/`: `python -m benchmarks.distributed --epochs 12`.

Each setting runs the train stage in results/distributed/<setting>. A rerun skips finished settings and resumes an
interrupted one. The table shows validation accuracy after equally many passes over the data, the bytes that a worker
sends to the others in an epoch, and the seconds that it communicates and waits. results/distributed/curves.png plots
accuracy by epoch; scaling.png extrapolates the measured steps and bytes to 1 to 1,024 workers (see `epoch_seconds`).

`--only single global-4-every-1 no-warm-up plain …` compares ways to average. Choose among them on a hold-out of the
training split: first run `dvc exp run -S data.holdout=5000 augment`.
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
from frugalnet.errors import in_one_line
from frugalnet.files import atomic, write_json
from frugalnet.training.batches import steps_per_epoch

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
POLICIES = {  # ways to average: each changes one key of the default; the last is the paper's own proposal
    "no-warm-up": ["distributed.warmup=0"],
    "no-outer-momentum": ["distributed.outer_momentum=0"],
    "statistics-averaged": ["distributed.batch_norm=averaged"],
    "optimiser-state-kept": ["distributed.optimiser_state=kept"],
    "optimiser-state-reset": ["distributed.optimiser_state=reset"],
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
    """Seconds of `count` all-reduces of `size` bytes in total, by Rabenseifner's algorithm (Thakur et al. 2005).

    2 (N-1)/N of the bytes cross each worker's link, the minimum, and each all-reduce takes 2 log₂ N rounds.
    """
    if workers == 1:
        return 0.0
    return 2 * (workers - 1) / workers * size * 8 / (gigabits * 1e9) + count * 2 * log2(workers) * latency


def stops_scaling(seconds: Mapping[int, float]) -> int:
    """The largest number of workers with a parallel efficiency of at least one half."""
    return max(n for n in seconds if seconds[1] / seconds[n] >= n / 2)


@dataclass(frozen=True)
class Exchange:
    """One exchange: its payload in bytes, and the all-reduces that carry it."""

    size: float
    all_reduces: float


def epoch_seconds(
    images: int,
    batch_size: int,
    image_seconds: float,
    step: Exchange,
    exchange: Exchange,
    gigabits: float,
    latency: float,
) -> dict[str, dict[int, float]]:
    """Scheme → workers → seconds of an epoch, without overlap, stragglers, evaluation and warm-up.

    Workers that divide a batch get at least two images of it each. Sub-models have batches of their own.
    """

    def communication(what: Exchange, times: float, workers: int) -> float:
        return times * all_reduce_seconds(what.size, what.all_reduces, workers, gigabits, latency)

    steps, each = ceil(images / batch_size), {n: ceil(images / n) * image_seconds for n in WORKERS}
    return {
        f"DDP, {batch_size} images a step together": {
            n: steps * ceil(batch_size / n) * image_seconds + communication(step, steps, n)
            for n in WORKERS
            if batch_size >= 2 * n
        },
        f"DDP, {batch_size} images a step each": {
            n: each[n] + communication(step, ceil(images / (batch_size * n)), n) for n in WORKERS
        },
    } | {
        f"global network, T = {period}": {n: each[n] + communication(exchange, 1 / period, n) for n in WORKERS}
        for period in (1, 2, 5)
    }


def draw(scaled: Mapping[int, Mapping[str, Mapping[int, float]]], path: Path) -> None:
    """Plot epoch time by number of workers. scaled: bandwidth in Gbit/s → scheme → workers → seconds."""
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
    """Plot validation accuracy by epoch, of each setting and, faintly, of its sub-models before they exchange."""
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
    parser.add_argument("--latency", type=float, default=5e-5, help="of a round between two hosts, in seconds")
    parser.add_argument("overrides", nargs="*", help="for all settings, as in dvc's -S")
    arguments = parser.parse_args()
    out, left = Path("results/distributed"), Path("results/train") / f"{arguments.model}-0"
    measured = {}
    for name in arguments.only:
        common = [f"model={arguments.model}", f"train.epochs={arguments.epochs}", *arguments.overrides]
        train(name, [*SETTINGS[name], *common], out / name, arguments.model)
        measured[name] = figures(out / name, arguments.model)
        write_json(out / "table.json", measured)
    draw_curves({name: files.read_history(out / name / left / "history.csv") for name in measured}, out / "curves.png")
    print(f"{'':26}{'top-1':>8}{'train':>8}{'s/epoch':>9}{'MB sent/epoch':>16}{'s comm.':>11}{'s waiting':>11}")
    for name, row in measured.items():
        print(
            f"{name:26}{row['validation_top1']:8.2%}{row['train_top1']:8.2%}{row['epoch_seconds']:9.1f}"
            f"{row['payload_bytes'] / 1e6:16.3f}{row['communication_seconds']:11.2f}{row['waiting_seconds']:11.2f}"
        )
    if {"single", "ddp-2", "global-2-every-1"} <= measured.keys():
        train_config = config.load(out / "single/params.yaml").train
        images = json.loads((out / "single" / left / "run.json").read_text())["n_train"]
        steps, ddp = steps_per_epoch(images, train_config.batch_size), measured["ddp-2"]
        # Of the last epoch, after the warm-up.
        averaged = json.loads((out / "global-2-every-1" / left / "timing.json").read_text())["exchange"][-1]
        step = Exchange(ddp["payload_bytes"] / steps, ddp["all_reduces"] / steps)
        exchange = Exchange(averaged["payload_bytes"], averaged["all_reduces"])
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
            print(f"{speed}: efficiency ≥ 1/2 up to " + ", ".join(f"{n:,} ({scheme})" for scheme, n in schemes.items()))


if __name__ == "__main__":
    with in_one_line("distributed"):
        main()
