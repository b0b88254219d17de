"""The committed networks as files for devices: python -m benchmarks.devices [--model NAME], with the full data.

It exports each network of weights/ as the stage `export` does, and prints as a Markdown table what each format gives on
the whole validation split, and its bytes, latency and arena. Formats whose extra is not installed are left out.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from frugalnet import config
from frugalnet.data import arrays
from frugalnet.data.arrays import Dataset
from frugalnet.document.wording import BYTES, human, percent, scale
from frugalnet.errors import in_one_line
from frugalnet.export.config import ExportConfig
from frugalnet.export.formats import NAMES
from frugalnet.export.measure import measure_accuracy, measure_costs
from frugalnet.metrics.config import MeasureConfig
from frugalnet.use import weights
from frugalnet.use.exported import runnables, write_stored
from frugalnet.use.weights import Stored

HEADER = ("Network", "Format", "Top-1", "Loss, points (95 % interval)", "File", "Latency", "Arena")


def rows(stored: Stored, data: Dataset, export: ExportConfig, measure: MeasureConfig) -> Iterator[tuple[str, ...]]:
    """A network's formats, a row each."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        written = write_stored(stored, data.train.images, export, folder)
        files = runnables(stored, folder)
        result = measure_accuracy(files, data, export)
        costs = measure_costs(files, written.arenas, measure)
    for kind, measured in result.formats.items():
        loss = measured.loss_points
        arena = costs.formats[kind].arena_bytes
        yield (
            f"`{stored.entry.model}`",
            NAMES[kind],
            percent(measured.top1, 2),
            f"{loss.estimate:.2f} ({loss.low:.2f} to {loss.high:.2f})" if kind != "pytorch" else "–",
            scale([measured.bytes], BYTES)(measured.bytes),
            f"{costs.formats[kind].latency_ms.median:.2f} ms",
            f"{human(arena)}B" if arena and kind != "pytorch" else "–",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="one network instead of all")
    chosen = parser.parse_args().model
    params = config.read_params()
    torch.set_num_threads(1)
    data = arrays.read_dataset(Path("data/arrays"))
    print(f"| {' | '.join(HEADER)} |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for stored in weights.of_folder(weights.project_folder()):
        if chosen in (None, stored.entry.model, stored.name):
            for row in rows(stored, data, params.export, params.measure):
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    with in_one_line("benchmarks.devices"):
        main()
