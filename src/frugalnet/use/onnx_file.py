"""An ONNX file with another classifier, written without the package `onnx`, which is larger than all networks together.

protobuf, which ONNX Runtime needs anyway, reads the few fields that are named here and keeps all others as they are.
The numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from frugalnet.errors import UserError

_INT, _FLOATS, _BYTES, _TEXT = "TYPE_INT64", "TYPE_FLOAT*", "TYPE_BYTES", "TYPE_STRING"
_FIELDS = {  # of each message: name, number, and type, with * where there may be several
    "Model": [("graph", 7, "Graph"), ("metadata_props", 14, "Property*")],
    "Property": [("key", 1, _TEXT), ("value", 2, _TEXT)],
    "Graph": [
        ("node", 1, "Node*"),
        ("initializer", 5, "Tensor*"),
        ("output", 12, "Value*"),
        ("value_info", 13, "Value*"),
    ],
    "Node": [("input", 1, f"{_TEXT}*"), ("output", 2, f"{_TEXT}*"), ("op_type", 4, _TEXT)],
    "Tensor": [
        ("dims", 1, f"{_INT}*"),
        ("data_type", 2, _INT),
        ("float_data", 4, _FLOATS),  # instead of raw_data
        ("name", 8, _TEXT),
        ("raw_data", 9, _BYTES),
    ],
    "Value": [("name", 1, _TEXT), ("type", 2, "Type")],
    "Type": [("tensor_type", 1, "TensorType")],
    "TensorType": [("elem_type", 1, _INT), ("shape", 2, "Shape")],
    "Shape": [("dim", 1, "Dimension*")],
    "Dimension": [("dim_value", 1, _INT)],
}
FLOAT, INT8, INT32 = 1, 3, 6  # of an elem_type or a data_type


@dataclass(frozen=True)
class Classifier:
    """The last layer of a network. weight: (classes, features) float32; bias: (classes,) float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


class OnnxFile:
    """A network's ONNX file, whose last layer with weights is a classifier: fully connected, or a 1×1 convolution.

    A network may use it several times, as one that averages the answers for a picture and its mirror image does. key:
    its name, as in "1.fc". uses: how often. Raises UserError if the file is damaged, or if there is no such layer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = read_model(path)
        layers = last_layers(self.model)
        tensors = {tensor.name: tensor for tensor in self.model.graph.initializer}
        if not layers or not {*layers[0].input[1:]} <= tensors.keys():
            raise UserError(f"{path}: its last layer is no classifier with weights and a bias; use --train all")
        self._weight, self._bias = (tensors[name] for name in layers[0].input[1:])
        self.key = self._weight.name.rpartition(".")[0]
        self.uses = len(layers)

    @property
    def classifier(self) -> Classifier:
        weight = np.frombuffer(self._weight.raw_data, "<f4").reshape(self._weight.dims[0], -1)
        return Classifier(weight, np.frombuffer(self._bias.raw_data, "<f4"))

    def replaced(self, classifier: Classifier, metadata: Mapping[str, str]) -> bytes:
        """The file with another classifier, which may be of other classes, and other metadata."""
        model = _copy(self.model)
        for tensor in model.graph.initializer:
            values = {self._weight.name: classifier.weight, self._bias.name: classifier.bias}.get(tensor.name)
            if values is not None:
                tensor.dims[0] = len(values)
                tensor.raw_data = values.astype("<f4").tobytes()
        return finished(model, len(classifier.bias), metadata)


def read_model(path: Path) -> Any:
    """An ONNX file as a message. Raises UserError if it is damaged."""
    try:
        return _kind("Model").FromString(path.read_bytes())
    except DecodeError as error:
        raise UserError(f"{path}: not an ONNX file ({error}); restore it") from error


def last_layers(model: Any) -> list[Any]:
    """The nodes that use the last weights in a model, in its order."""
    layers = [node for node in model.graph.node if node.op_type in ("Gemm", "Conv") and len(node.input) == 3]
    return [node for node in layers if node.input[1] == layers[-1].input[1]]


def with_features(model: Any) -> tuple[bytes, list[str]]:
    """The file of a model with what its last layers take as further outputs, and these outputs' names."""
    model = _copy(model)
    names = [layer.input[0] for layer in last_layers(model)]
    for name in names:
        output = model.graph.output.add(name=name)
        output.type.tensor_type.elem_type = FLOAT
    return model.SerializeToString(deterministic=True), names


def _copy(model: Any) -> Any:
    return type(model).FromString(model.SerializeToString())


def finished(model: Any, classes: int, metadata: Mapping[str, str]) -> bytes:
    """The file of a model with another number of classes and other metadata."""
    model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value = classes
    del model.graph.value_info[:]  # sizes between the layers, which runtimes work out themselves
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@cache
def _kind(name: str) -> Any:
    """The class of a message of _FIELDS."""
    file = descriptor_pb2.FileDescriptorProto(name="frugalnet/onnx.proto", package="frugalnet", syntax="proto2")
    field_kind = descriptor_pb2.FieldDescriptorProto
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for field, number, kind in fields:
            label = field_kind.LABEL_REPEATED if kind.endswith("*") else field_kind.LABEL_OPTIONAL
            added = described.field.add(name=field, number=number, label=label)
            added.options.packed = kind == _FLOATS
            if (kind := kind.rstrip("*")) in _FIELDS:
                added.type = field_kind.TYPE_MESSAGE
                added.type_name = f".frugalnet.{kind}"
            else:
                added.type = field_kind.Type.Value(kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"frugalnet.{name}"))
