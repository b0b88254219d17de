"""How fast photographs become arrays: python -m benchmarks.pictures [--count 200], on an idle machine.

Photographs of twelve megapixels are decoded and scaled by `decode`, and by OpenCV's imread and resize, one after the
other in alternating rounds on one core. Prints pictures per second of both, and their ratio; and the most memory that
this process held.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from frugalnet.data.decode import decode
from frugalnet.errors import in_one_line

WIDTH, HEIGHT = 4000, 3000
ROUNDS = 5


def write_photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of noise that is as coarse as a photograph's details."""
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    return paths


def rate(read: Callable[[Path], object], paths: list[Path]) -> float:
    """Pictures per second."""
    start = time.perf_counter()
    for path in paths:
        read(path)
    return len(paths) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="photographs (default: 200)")
    parser.add_argument("--side", type=int, default=64, help="pixels per side (default: 64)")
    arguments = parser.parse_args()
    side = arguments.side
    cv2.setNumThreads(1)
    ours: list[float] = []
    opencv: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), arguments.count)
        for _ in range(ROUNDS):
            ours.append(rate(lambda path: decode(path.read_bytes(), path.name, side), paths))
            opencv.append(rate(lambda path: cv2.resize(cv2.imread(str(path)), (side, side)), paths))
    medians = float(np.median(ours)), float(np.median(opencv))
    print(f"decode: {medians[0]:.1f} pictures per second; imread and resize: {medians[1]:.1f}")
    print(f"ratio: {medians[0] / medians[1]:.2f}; at least 0.8 is wanted")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    with in_one_line("benchmarks.pictures"):
        main()
