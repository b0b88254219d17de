"""ONNX files: eight-bit integers, names and descriptions that cost bytes, and what a file says of itself."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

_BATCH = 100  # images a call, in calibration


def quantise(path: Path, out: Path, images: NDArray[np.uint8]) -> None:
    """Write the network in the file `path` with weights and activations of eight bits, in QDQ form, to `out`.

    images: (N, side, side, 3) uint8 RGB, from which the activations' ranges are taken.
    """
    prepared = out.with_suffix(".prepared")
    quant_pre_process(str(path), str(prepared))
    quantize_static(
        str(prepared),
        str(out),
        _Batches(images),
        per_channel=True,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=True,  # seven bits of weights: sums of 8-bit products overflow on CPUs without VNNI
    )
    prepared.unlink()


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches = iter(np.array_split(images, max(1, len(images) // _BATCH)))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def finish(path: Path, metadata: Mapping[str, str], *, keep_weights_names: bool) -> None:
    """Leave out of a file what no runtime needs, and have it describe itself.

    Removed: shapes between the layers, stack traces with this machine's paths, nodes' names, and constants that are
    there twice; tensors get short names. In an int8 file this was half of the bytes. keep_weights_names: weights stay
    named as in PyTorch, so that they can be replaced.
    """
    model = onnx.load(path)
    graph = model.graph
    del graph.value_info[:]
    for holder in (model, graph, *graph.node, *model.functions):
        del holder.metadata_props[:]
    names = {value.name: value.name for value in (*graph.input, *graph.output)} | {"": ""}
    if keep_weights_names:
        names |= {tensor.name: tensor.name for tensor in graph.initializer}
    else:
        names |= _merge_equal(graph)
    for node in graph.node:
        node.name = ""
        for ends in (node.input, node.output):
            ends[:] = [names.setdefault(name, f"{len(names):x}") for name in ends]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def _merge_equal(graph: onnx.GraphProto) -> dict[str, str]:
    """Keep one of constants that are equal; returns the new name of each."""
    tensors = list(graph.initializer)
    del graph.initializer[:]
    kept: dict[bytes, str] = {}
    names = {}
    for tensor in tensors:
        old = tensor.name
        tensor.name = ""
        tensor.doc_string = ""
        contents = tensor.SerializeToString(deterministic=True)
        if contents not in kept:
            kept[contents] = f"w{len(kept):x}"
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = kept[contents]
        names[old] = kept[contents]
    return names


def takes_any_batch(path: Path) -> bool:
    """Whether the file takes any number of images; else tracing has fixed it."""
    shape = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape
    return bool(shape.dim[0].dim_param)
