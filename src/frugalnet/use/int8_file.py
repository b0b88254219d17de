"""An int8 ONNX file, in the form that `export` writes, with another classifier: neither `onnx` nor PyTorch is needed.

What lies before the classifier keeps its eight bits and their ranges. The logits are left as floats, because eight bits
would need ranges of their own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalnet.use.onnx_file import FLOAT, INT8, INT32, Classifier, finished, last_layers, read_model

_LARGEST = 63  # of a weight: seven bits, as in `export`
_LEAST_WEIGHT = 2.0**-16  # of a class's bias, which is stored in 32 bits, in units of its weights' scale
_TYPES = {"float32": FLOAT, "int8": INT8, "int32": INT32}


def with_classifier(path: Path, classifier: Classifier, metadata: Mapping[str, str]) -> bytes:
    """The file with another classifier, which may be of other classes, and other metadata.

    Raises UserError if the file is damaged.
    """
    model = read_model(path)
    graph = model.graph
    layers = last_layers(model)
    sources = {output: node for node in graph.node for output in node.output}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    largest = np.maximum(np.abs(classifier.weight).max(axis=1), _LEAST_WEIGHT * np.abs(classifier.bias))
    scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
    weight = np.rint(classifier.weight / scale[:, None]).astype(np.int8)
    source = sources[layers[0].input[1]]
    filter_shape = tensors[source.input[0]].dims[2:]  # of a convolution
    arrays = _rewired(source, weight.reshape(*weight.shape, *filter_shape), scale)
    for layer in {layer.input[2]: layer for layer in layers}.values():
        unit = scale * _number(tensors[sources[layer.input[0]].input[1]])  # of the weights times that of the inputs
        arrays |= _rewired(sources[layer.input[2]], np.rint(classifier.bias / unit).astype(np.int32), unit)
    _leave_floats(graph, layers)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for name, tensor in tensors.items() if name in used - arrays.keys()]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for name, array in arrays.items():
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        graph.initializer.add(name=name, dims=array.shape, data_type=_TYPES[array.dtype.name], raw_data=data)
    return finished(model, len(classifier.bias), metadata)


def _number(tensor: Any) -> np.float32:
    (number,) = tensor.float_data or np.frombuffer(tensor.raw_data, "<f4")
    return np.float32(number)


def _rewired(node: Any, integers: NDArray[Any], scale: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The new inputs of a node DequantizeLinear: integers, whose rows have a scale each, and zero points."""
    arrays = (integers, scale, np.zeros(len(scale), integers.dtype))
    node.input[:] = [f"{node.output[0]}.{place}" for place in range(len(arrays))]
    return dict(zip(node.input, arrays, strict=True))


def _leave_floats(graph: Any, layers: list[Any]) -> None:
    """Take out the rounding to eight bits of what is computed from the answers of these layers."""
    floats = {layer.output[0] for layer in layers}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if floats.isdisjoint(node.input):
            kept.append(node)
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
            floats |= {*node.output}
    output = graph.output[0].name
    for node in kept:
        node.output[:] = [output if name == same.get(output) else name for name in node.output]
    del graph.node[:]
    graph.node.extend(kept)
