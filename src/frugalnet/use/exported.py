"""What a network's files for other runtimes are worth: accuracy, latency, memory; and their place in the registry."""

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from frugalnet.data.arrays import Dataset
from frugalnet.errors import UserError
from frugalnet.files import atomic, sha256, sha256_of
from frugalnet.metrics import accuracy
from frugalnet.metrics.statistics import bootstrap, quantiles
from frugalnet.metrics.timing import MeasureConfig, peak_allocated
from frugalnet.tracking import TrackedRun
from frugalnet.use import pictures
from frugalnet.use.export import ExportConfig
from frugalnet.use.export import write as write_files
from frugalnet.use.pictures import encode_png
from frugalnet.use.runtimes import FILES, FORMATS, Run, open_runtime, peak_memory
from frugalnet.use.weights import Stored, write

_LOSE = 5  # classes to name


def files(stored: Stored, folder: Path) -> dict[str, Path]:
    """The file of each format that there is: PyTorch's weights, and those in `folder`."""
    found = {kind: folder / name for kind, name in FILES.items() if (folder / name).is_file()}
    return {"pytorch": stored.path} | found


def evaluate(paths: Mapping[str, Path], data: Dataset, config: ExportConfig) -> dict[str, Any]:
    """Every format's accuracy on the whole validation split, ready for JSON; nothing in it varies from run to run.

    For each format: bytes, sha256, top1, top5, `other_class` (how many images PyTorch gives another class), and
    loss_points, PyTorch's top-1 less its own, with a paired 95 % interval. For int8 also the classes that lose most.
    """
    images, labels = np.array(data.validation.images), np.array(data.validation.labels)
    logits = {kind: open_runtime(kind, path)(images) for kind, path in paths.items()}
    predicted = {kind: accuracy.predict(values) for kind, values in logits.items()}
    correct = {kind: classes == labels for kind, classes in predicted.items()}
    found: dict[str, Any] = {}
    for kind, path in paths.items():
        lost = bootstrap(correct["pytorch"][None], correct[kind][None])
        found[kind] = {
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
            **{key: value for key, value in accuracy.figures(logits[kind], labels).items() if key in ("top1", "top5")},
            "other_class": int((predicted[kind] != predicted["pytorch"]).sum()),
            "largest_difference": float(np.abs(logits[kind] - logits["pytorch"]).max()),
            "loss_points": {key: 100 * value for key, value in asdict(lost).items()},
        }
    counts = np.bincount(labels, minlength=len(data.class_ids))
    of_class = {kind: np.bincount(labels[correct[kind]], minlength=len(counts)) for kind in ("pytorch", "int8")}
    lost_by_class = of_class["pytorch"] - of_class["int8"]
    suffering = [c for c in np.argsort(-lost_by_class, kind="stable")[:_LOSE] if lost_by_class[c] > 0]
    return {
        "n": len(labels),
        "validated_on": data.validated_on,
        "data": data.name,
        "calibration_images": min(config.calibration_images, len(data.train.images)),
        "max_loss_points": config.max_loss_points,
        "int8_accepted": found["int8"]["loss_points"]["estimate"] <= config.max_loss_points,
        "int8_classes_that_lose_most": [
            {"id": data.class_ids[c], "name": data.class_names[c], "n": int(counts[c])}
            | {kind: int(of_class[kind][c]) for kind in of_class}
            for c in suffering
        ],
        "formats": found,
    }


def of_pictures(stored: Stored, names: Sequence[str], out: Path) -> str:
    """Write a network's files for other runtimes, with the ranges of int8 taken from pictures, into a new folder.

    Returns what was written, and on how many of the pictures each format gives a different class from PyTorch.
    Raises UserError if `out` already exists, or for a file that is not a picture.
    """
    if out.exists():  # said at once, and again when the lock is held
        raise UserError(f"{out}: already exists; remove it, or name another folder")
    images = np.stack([pictures.open_file(name).pixels for name in pictures.find([*names])])
    with atomic(out, is_new=True) as folder:
        folder.mkdir()
        write_files(stored, images, ExportConfig(calibration_images=len(images), max_loss_points=0.0), folder)
        written = files(stored, folder)
        classes = {kind: accuracy.predict(open_runtime(kind, path)(images)) for kind, path in written.items()}
        lines = [f"{stored.name}, compared on {len(images)} pictures:"]
        for kind, path in written.items():
            others = int((classes[kind] != classes["pytorch"]).sum())
            shown = out / path.name if kind != "pytorch" else path
            lines.append(f"  {UserError(str(shown))}: {path.stat().st_size:,} bytes, not PyTorch's class on {others}")
    return "\n".join(lines)


def register(
    tracked: TrackedRun, stored: Stored, run: Mapping[str, Any], data: Dataset, exported: Path, found: Mapping[str, Any]
) -> None:
    """Register the network with its files for other runtimes; int8 only if it was accepted.

    run: as run.json holds it. exported: what `write` filled. found: as of `evaluate`.
    """
    from frugalnet import registry  # here: mlflow takes a second to import, and `frugalnet export` registers nothing

    entry = stored.entry
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / stored.name
        write(folder, [stored])
        for kind, path in files(stored, exported).items():
            if kind != "pytorch" and (kind != "int8" or found["int8_accepted"]):
                shutil.copyfile(path, folder / path.name)
        how = [run.get(key) for key in ("train", "views_sha256", "teacher", "distributed")]
        same = ("model", "seed", "data", "is_sample", "validated_on", "data_sha256", "weights_sha256", "fingerprint")
        tags = {key: str(run[key]) for key in same} | {"trained_sha256": sha256_of(how)}
        tags |= {"top1": str(entry.top1), "macs": str(entry.macs), "int8_accepted": str(found["int8_accepted"])}
        tags["files_sha256"] = sha256_of({path.name: sha256(path) for path in sorted(folder.iterdir())})
        reached = f"top-1 {entry.top1:.2%} on the {entry.validated_on} of {entry.data}, {entry.macs / 1e6:.2f} M MACs"
        beside = ", ".join(path.name for path in sorted(folder.glob("model.*")))
        network = registry.Exported(
            model=entry.model,
            folder=folder,
            example=encode_png(np.array(data.validation.images[0])),
            top1=entry.top1,
            tags=tags,
            description=f"{stored.name}: {reached} an image. Beside the weights: {beside}.",
        )
        registry.register(tracked, network)


def figures(found: Mapping[str, Any], costs: Mapping[str, Any]) -> dict[str, float]:
    """What `evaluate` and `measure` found, flat, for MLflow: int8_top1, int8_latency_ms, …"""
    flat = {"int8_loss_points": found["formats"]["int8"]["loss_points"]["estimate"]}
    for kind, one in found["formats"].items():
        flat |= {f"{kind}_{key}": one[key] for key in ("bytes", "top1")}
        flat |= {f"{kind}_latency_ms": costs[kind]["latency_ms"]["median"]}
        flat |= {f"{kind}_peak_memory_bytes": costs[kind]["peak_memory_bytes"]}
    return flat


def measure(paths: Mapping[str, Path], arenas: Mapping[str, int | None], config: MeasureConfig) -> dict[str, Any]:
    """What each format costs here on one thread, ready for JSON.

    latency_ms: of one image, {median, p5, p95, n}; each round measures all formats, in alternating order.
    peak_memory_bytes: resident, of a process that only runs the network; before_bytes: of it, before the runtime.
    arena_bytes: what the runtime itself says it needs for one image; None if it says nothing.
    """
    image: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    runs = {kind: open_runtime(kind, path) for kind, path in paths.items()}

    def forward() -> None:
        runs["pytorch"](image)

    arenas = {"pytorch": peak_allocated(forward, torch.device("cpu")), **arenas}
    samples: dict[str, list[float]] = {kind: [] for kind in runs}
    for number in range(-config.warmup_rounds, config.rounds):
        for kind in sorted(runs, key=FORMATS.index, reverse=number % 2 == 1):
            taken = [_milliseconds(runs[kind], image) for _ in range(config.latencies_per_round)]
            samples[kind] += taken if number >= 0 else []
    with ThreadPoolExecutor() as pool:  # processes that run beside one another hold no more
        memory = dict(zip(paths, pool.map(peak_memory, paths, paths.values()), strict=True))
    return {
        kind: {
            "latency_ms": asdict(quantiles(samples[kind])),
            "peak_memory_bytes": memory[kind]["peak"],
            "before_bytes": memory[kind]["before"],
            "arena_bytes": arenas.get(kind),
        }
        for kind in runs
    }


def _milliseconds(run: Run, image: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    run(image)
    return 1000 * (time.perf_counter() - start)


def in_words(name: str, found: Mapping[str, Any]) -> str:
    """What `evaluate` found, for the terminal."""
    lines = [f"{name} on the {found['validated_on']} of {found['data']}, {found['n']:,} images:"]
    for kind, one in found["formats"].items():
        same = f"not PyTorch's class on {one['other_class']:,}" if one["other_class"] else "PyTorch's classes"
        lines.append(f"  {kind}: {one['bytes']:,} bytes, top-1 {one['top1']:.2%}, {same}")
    lost, limit = found["formats"]["int8"]["loss_points"], found["max_loss_points"]
    bounds = f"{lost['estimate']:.2f} points (95 % interval {lost['low']:.2f} to {lost['high']:.2f})"
    verdict = "within" if found["int8_accepted"] else "not registered: more than"
    lines.append(f"  int8 loses {bounds}, {verdict} export.max_loss_points={limit}")
    return "\n".join(lines)
