"""A trained network as files for other runtimes: ONNX, ONNX of eight-bit integers, ExecuTorch.

Every file takes uint8 RGB images (N, side, side, 3) and gives logits (N, classes): the normalisation is part of it. The
ExecuTorch program takes one image at a time.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from frugalnet.export.config import ExportConfig
from frugalnet.export.formats import FILES, Format
from frugalnet.export.runtimes import has_executorch


def write_files(
    network: nn.Module, images: NDArray[np.uint8], config: ExportConfig, folder: Path
) -> dict[Format, int | None]:
    """Write the files of FILES into `folder`, ExecuTorch's only where it is installed; the same bytes every time.

    network: on the CPU, (N, side, side, 3) uint8 RGB → (N, classes), as `nn.Sequential(normaliser, network)` is; its
    memory format becomes the default one. images: (N, side, side, 3) uint8 RGB, from which int8's ranges are taken:
    training images. Returns the bytes that a runtime plans for its arena, by format, as far as they are known.
    """
    network = network.to(memory_format=torch.contiguous_format).eval()
    spaced = np.linspace(0, len(images) - 1, min(config.calibration_images, len(images)))
    with _quiet():
        _write_onnx(network, images.shape[1], folder / FILES["onnx"])
        _write_int8(folder / FILES["onnx"], folder / FILES["int8"], images[spaced.astype(np.int64)])
        arena = _write_executorch(network, images.shape[1], folder / FILES["executorch"]) if has_executorch() else None
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


def _write_onnx(module: nn.Module, side: int, path: Path) -> None:
    import onnx

    images = torch.zeros(2, side, side, 3, dtype=torch.uint8)
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


def _write_executorch(module: nn.Module, side: int, path: Path) -> int:
    """Returns the bytes of the arena that the program plans for its activations."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(module, (torch.zeros(1, side, side, 3, dtype=torch.uint8),))
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(program.buffer)
    return sum(program.executorch_program.execution_plan[0].non_const_buffer_sizes)
