"""A trained network as files for other runtimes: ONNX, ONNX of eight-bit integers, ExecuTorch; evaluated and measured.

Every file takes uint8 RGB images (N, 64, 64, 3) and gives logits (N, classes): the normalisation is part of it. The
ExecuTorch program takes one image at a time.
"""

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveInt
from torch import nn

from frugalnet.data.arrays import Dataset
from frugalnet.files import sha256
from frugalnet.metrics import accuracy
from frugalnet.metrics.statistics import bootstrap, quantiles
from frugalnet.metrics.timing import MeasureConfig, peak_allocated
from frugalnet.schema import Config
from frugalnet.use.runtimes import FILES, FORMATS, Run, has_executorch, open_runtime, peak_memory
from frugalnet.use.weights import Stored, load

_SUFFER = 5  # classes to name


class ExportConfig(Config):
    """How networks are quantised, and what int8 may cost."""

    calibration_images: PositiveInt  # of the training split, evenly spaced
    max_loss_points: NonNegativeFloat  # of top-1; an int8 file that loses more is not registered


def write(stored: Stored, data: Dataset, config: ExportConfig, folder: Path) -> dict[str, int | None]:
    """Write the files of FILES into `folder`, ExecuTorch's only where it is installed; the same bytes every time.

    Returns the bytes that a runtime plans for its arena, by format, as far as they are known.
    """
    normalise, network = load(stored)
    module = nn.Sequential(normalise, network.to(memory_format=torch.contiguous_format)).eval()
    spaced = np.linspace(0, len(data.train.images) - 1, min(config.calibration_images, len(data.train.images)))
    with _quiet():
        _write_onnx(module, folder / FILES["onnx"])
        _write_int8(folder / FILES["onnx"], folder / FILES["int8"], data.train.images[spaced.astype(np.int64)])
        arena = _write_executorch(module, folder / FILES["executorch"]) if has_executorch() else None
    return {"executorch": arena}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' chatter on deprecations and optimisation passes."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _write_onnx(module: nn.Module, path: Path) -> None:
    import onnx

    images = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        module,
        (images,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("n")},),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        del holder.metadata_props[:]  # stack traces, with the paths of this machine
    onnx.save(model, path)


def _write_int8(path: Path, out: Path, images: NDArray[np.uint8]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(np.array_split(images, max(1, len(images) // 100)))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    prepared = out.with_suffix(".prepared")
    quant_pre_process(str(path), str(prepared))
    quantize_static(
        str(prepared),
        str(out),
        Reader(),
        per_channel=True,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=True,  # seven bits of weights: sums of 8-bit products overflow on CPUs without VNNI
    )
    prepared.unlink()


def _write_executorch(module: nn.Module, path: Path) -> int:
    """Returns the bytes of the arena that the program plans for its activations."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(module, (torch.zeros(1, 64, 64, 3, dtype=torch.uint8),))
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(program.buffer)
    return sum(program.executorch_program.execution_plan[0].non_const_buffer_sizes)


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
    suffering = [c for c in np.argsort(-lost_by_class, kind="stable")[:_SUFFER] if lost_by_class[c] > 0]
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


def measure(paths: Mapping[str, Path], arenas: Mapping[str, int | None], config: MeasureConfig) -> dict[str, Any]:
    """What each format costs here on one thread, ready for JSON.

    latency_ms: of one image, {median, p5, p95, n}; each round measures all formats, in turn forwards and backwards.
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
    memory = {kind: peak_memory(kind, path) for kind, path in paths.items()}
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
        same = f"another class than PyTorch on {one['other_class']:,}" if one["other_class"] else "PyTorch's classes"
        lines.append(f"  {kind}: {one['bytes']:,} bytes, top-1 {one['top1']:.2%}, {same}")
    lost, limit = found["formats"]["int8"]["loss_points"], found["max_loss_points"]
    bounds = f"{lost['estimate']:.2f} points (95 % interval {lost['low']:.2f} to {lost['high']:.2f})"
    verdict = "within" if found["int8_accepted"] else "not registered: more than"
    lines.append(f"  int8 loses {bounds}, {verdict} export.max_loss_points={limit}")
    return "\n".join(lines)
