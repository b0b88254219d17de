"""How many workers are worth their time, from three finished runs: python -m benchmarks.distributed SINGLE DDP GLOBAL.

Each argument is a folder with a run's run.json and timing.json: of one process, of `distributed=ddp` and of
`distributed=global_net`. The measured seconds per image, bytes and all-reduces are extrapolated to 1 to 1,024 workers
(see `epoch_seconds`). results/scaling.json has every figure.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, log2
from pathlib import Path
from statistics import mean

from frugalnet.errors import UserError, in_one_line
from frugalnet.files import read_json, write_json
from frugalnet.training.batches import steps_per_epoch

GIGABITS = (1, 10, 100)
LATENCY_SECONDS = 5e-5  # of a round between two hosts
WORKERS = [2**power for power in range(11)]
PERIODS = (1, 2, 5)


@dataclass(frozen=True)
class Exchange:
    """One exchange: its payload in bytes, and the all-reduces that carry it."""

    payload_bytes: float
    all_reduces: float

    def seconds(self, workers: int, gigabits: float) -> float:
        """By Rabenseifner's algorithm (Thakur et al. 2005), between hosts with links of so many Gbit/s.

        2 (N-1)/N of the bytes cross each worker's link, the minimum, and each all-reduce takes 2 log₂ N rounds.
        """
        crossing_bytes = 2 * (workers - 1) / workers * self.payload_bytes
        rounds = self.all_reduces * 2 * log2(workers)
        return crossing_bytes * 8 / (gigabits * 1e9) + rounds * LATENCY_SECONDS


@dataclass(frozen=True)
class Costs:
    """What was measured. step: of DDP; exchange: of the global network, after its warm-up."""

    images: int
    batch_size: int
    image_seconds: float
    step: Exchange
    exchange: Exchange


def read_costs(single: Path, ddp: Path, averaged: Path) -> Costs:
    """From the folders of three runs. Raises UserError if a record is missing, or none of several workers."""
    run = read_json(single / "run.json")
    images, batch_size = run["n_train"], run["train"]["batch_size"]
    image_seconds = mean(read_json(single / "timing.json")["epoch_seconds"]) / images
    steps = steps_per_epoch(images, batch_size)
    return Costs(images, batch_size, image_seconds, last_exchange(ddp, steps), last_exchange(averaged, 1))


def last_exchange(folder: Path, parts: int) -> Exchange:
    """One of `parts` exchanges of a run's last epoch."""
    timing = read_json(folder / "timing.json")
    if "exchange" not in timing:
        raise UserError(f"{folder}: expected a run with workers; its timing.json has no `exchange`")
    epoch = timing["exchange"][-1]
    return Exchange(epoch["payload_bytes"] / parts, epoch["all_reduces"] / parts)


def epoch_seconds(costs: Costs, gigabits: float) -> dict[str, dict[int, float]]:
    """Scheme → workers → seconds of an epoch, without overlap, stragglers, evaluation and warm-up.

    Workers that divide a batch get at least two images of it each. Sub-models have batches of their own.
    """
    batch_size = costs.batch_size
    steps = ceil(costs.images / batch_size)
    together: dict[int, float] = {}
    each: dict[int, float] = {}
    averaged: dict[int, dict[int, float]] = {period: {} for period in PERIODS}
    for n in WORKERS:
        shard_seconds = ceil(costs.images / n) * costs.image_seconds
        step_seconds = costs.step.seconds(n, gigabits)
        if batch_size >= 2 * n:
            together[n] = steps * (ceil(batch_size / n) * costs.image_seconds + step_seconds)
        each[n] = shard_seconds + ceil(costs.images / (batch_size * n)) * step_seconds
        for period in PERIODS:
            averaged[period][n] = shard_seconds + costs.exchange.seconds(n, gigabits) / period
    replicas = {f"DDP, {batch_size} images a step together": together, f"DDP, {batch_size} images a step each": each}
    return replicas | {f"global network, T = {period}": averaged[period] for period in PERIODS}


def stops_scaling(seconds: Mapping[int, float]) -> int:
    """The largest number of workers with a parallel efficiency of at least one half."""
    return max(n for n in seconds if seconds[1] / seconds[n] >= n / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("single", "ddp", "averaged"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    costs = read_costs(arguments.single, arguments.ddp, arguments.averaged)
    scaling = {}
    for gigabits in GIGABITS:
        scaling[f"{gigabits} Gbit/s"] = epoch_seconds(costs, gigabits)
        print(f"{gigabits} Gbit/s: efficiency of at least one half up to")
        for scheme, seconds in scaling[f"{gigabits} Gbit/s"].items():
            print(f"  {stops_scaling(seconds):5,} workers, {scheme}")
    write_json(Path("results/scaling.json"), asdict(costs) | {"epoch_seconds": scaling})


if __name__ == "__main__":
    with in_one_line("distributed"):
        main()
