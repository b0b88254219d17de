"""What a network's files for other runtimes are worth: accuracy, latency, memory."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from frugalnet.compute import describe_machine
from frugalnet.data.arrays import Dataset
from frugalnet.export.config import ExportConfig
from frugalnet.export.formats import FORMATS, Format
from frugalnet.export.result import ClassLoss, Cost, ExportCosts, ExportResult, FormatResult, Machine
from frugalnet.export.runtimes import Run, Runnable, peak_memory
from frugalnet.files import sha256
from frugalnet.metrics import accuracy
from frugalnet.metrics.config import MeasureConfig
from frugalnet.metrics.statistics import Interval, bootstrap, quantiles
from frugalnet.metrics.timing import peak_allocated

_LOSE = 5  # classes to name


def measure_accuracy(files: Mapping[Format, Runnable], data: Dataset, config: ExportConfig) -> ExportResult:
    """Every format's accuracy on the whole validation split, PyTorch's and int8's among them."""
    images = np.array(data.validation.images)
    labels = np.array(data.validation.labels)
    logits = {kind: file.open()(images) for kind, file in files.items()}
    for values in logits.values():
        accuracy.check(values, labels)
    formats = {
        kind: FormatResult(
            bytes=file.path.stat().st_size,
            sha256=sha256(file.path),
            top1=accuracy.top_k(logits[kind], labels, 1),
            top5=accuracy.top_k(logits[kind], labels, 5),
            other_class=int((accuracy.predict(logits[kind]) != accuracy.predict(logits["pytorch"])).sum()),
            largest_difference=float(np.abs(logits[kind] - logits["pytorch"]).max()),
            loss_points=_loss_points(logits["pytorch"], logits[kind], labels),
        )
        for kind, file in files.items()
    }
    return ExportResult(
        n=len(labels),
        validated_on=data.validated_on,
        data=data.name,
        calibration_images=min(config.calibration_images, len(data.train.images)),
        max_loss_points=config.max_loss_points,
        int8_accepted=formats["int8"].loss_points.estimate <= config.max_loss_points,
        int8_classes_that_lose_most=_class_losses(logits["pytorch"], logits["int8"], data),
        formats=formats,
    )


def _loss_points(pytorch: NDArray[np.float32], other: NDArray[np.float32], labels: NDArray[np.int64]) -> Interval:
    """PyTorch's top-1 less the other format's, in percentage points, paired by image. Logits: (N, classes)."""
    right = accuracy.predict(pytorch) == labels
    other_right = accuracy.predict(other) == labels
    lost = bootstrap(right[None], other_right[None])
    return Interval(100 * lost.estimate, 100 * lost.low, 100 * lost.high)


def _class_losses(pytorch: NDArray[np.float32], int8: NDArray[np.float32], data: Dataset) -> list[ClassLoss]:
    """The classes of which int8 classifies the most images fewer than PyTorch, the most first."""
    labels = np.array(data.validation.labels)
    classes = len(data.class_ids)
    images = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[accuracy.predict(pytorch) == labels], minlength=classes)
    int8_right = np.bincount(labels[accuracy.predict(int8) == labels], minlength=classes)
    lost = right - int8_right
    return [
        ClassLoss(
            id=data.class_ids[c],
            name=data.class_names[c],
            n=int(images[c]),
            pytorch=int(right[c]),
            int8=int(int8_right[c]),
        )
        for c in np.argsort(-lost, kind="stable")[:_LOSE].tolist()
        if lost[c] > 0
    ]


def measure_costs(files: Mapping[Format, Runnable], arenas: Mapping[Format, int], config: MeasureConfig) -> ExportCosts:
    """What each format, PyTorch's among them, costs here on one thread.

    Each round measures all formats, in alternating order. arenas: as `write_files` returned them.
    """
    side = files["pytorch"].side
    image: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    runs = {kind: file.open() for kind, file in files.items()}

    def forward() -> None:
        runs["pytorch"](image)

    allocated = peak_allocated(forward, torch.device("cpu"))
    samples = measure_latencies(runs, image, config)
    with ThreadPoolExecutor() as pool:  # processes that run beside one another hold no more
        memory = dict(zip(files, pool.map(peak_memory, files.values()), strict=True))
    formats = {
        kind: Cost(
            latency_ms=quantiles(samples[kind]),
            peak_memory_bytes=memory[kind].peak,
            before_bytes=memory[kind].before,
            arena_bytes=allocated if kind == "pytorch" else arenas.get(kind),
        )
        for kind in runs
    }
    return ExportCosts(formats=formats, machine=Machine.model_validate(describe_machine(torch.device("cpu"))))


def measure_latencies(
    runs: Mapping[Format, Run], image: NDArray[np.uint8], config: MeasureConfig
) -> dict[Format, list[float]]:
    """The milliseconds that each format takes for an image, (1, side, side, 3) uint8, in alternating rounds."""
    samples: dict[Format, list[float]] = {kind: [] for kind in runs}
    for number in range(-config.warmup_rounds, config.rounds):
        for kind in sorted(runs, key=FORMATS.index, reverse=number % 2 == 1):
            taken = [_milliseconds(runs[kind], image) for _ in range(config.latencies_per_round)]
            samples[kind] += taken if number >= 0 else []
    return samples


def _milliseconds(run: Run, image: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    run(image)
    return 1000 * (time.perf_counter() - start)
