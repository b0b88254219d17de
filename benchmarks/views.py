"""Augmentation's speed: python -m benchmarks.views [--folder /dev/shm/views] [--rounds 3].

In alternating rounds: albumentations' own Compose on one core, its pictures in memory and nothing written; and the
stage's work from the stored training split to hashed views, start of its processes included.
"""

import argparse
import multiprocessing
import time
from pathlib import Path
from statistics import median

import numpy as np

from frugalnet.data.augment import AugmentConfig, build_policy, write_views
from frugalnet.files import remove
from frugalnet.processes import cores, init_worker


def albumentations_alone(images: Path, config: AugmentConfig, processes: int) -> float:
    """Images a second of Compose in each of so many processes, the slowest taken."""
    with multiprocessing.get_context("spawn").Pool(processes, init_worker) as pool:
        for count in (1_000, 20_000):  # the first to import all
            rates = pool.starmap(_compose, [(images, config, count)] * processes, chunksize=1)
    return min(rates)


def _compose(images: Path, config: AugmentConfig, count: int) -> float:
    pictures, policy = np.array(np.load(images, mmap_mode="r")[:count]), build_policy(config.policy)
    started = time.perf_counter()
    for picture in pictures:
        policy(image=picture)
    return len(pictures) / (time.perf_counter() - started)


def main() -> None:
    # Here, since the processes that augment import this file and would wait for torch.
    from frugalnet import config as params

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=Path("data/arrays/train_images.npy"))
    parser.add_argument("--folder", type=Path, default=Path("data/benchmark_views"), help="the views go there, and go")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    config = params.load().augment
    count = config.views * len(np.load(arguments.images, mmap_mode="r"))
    shares: list[tuple[float, ...]] = []
    for _ in range(arguments.rounds):
        alone = [albumentations_alone(arguments.images, config, processes) for processes in (1, cores())]
        started = time.perf_counter()
        write_views(arguments.images, arguments.folder, config, workers=0)
        seconds = time.perf_counter() - started
        remove(arguments.folder)
        shares.append(tuple(count / seconds / cores() / rate for rate in alone))
        print(
            f"{config.views} views in {seconds:.1f} s, {count / seconds / cores():,.0f} images a second and core; "
            f"albumentations alone, on one core {alone[0]:,.0f}, on each of {cores()} at once {alone[1]:,.0f}: "
            + ", ".join(f"{share:.0%}" for share in shares[-1]),
            flush=True,
        )
    print("median: " + ", ".join(f"{median(share):.0%}" for share in zip(*shares, strict=True)))


if __name__ == "__main__":
    main()
