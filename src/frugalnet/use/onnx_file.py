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

_INT, _BYTES, _TEXT = "TYPE_INT64", "TYPE_BYTES", "TYPE_STRING"
_FIELDS = {  # of each message: name, number, and type, with * where there may be several
    "Model": [("graph", 7, "Graph"), ("metadata_props", 14, "Property*")],
    "Property": [("key", 1, _TEXT), ("value", 2, _TEXT)],
    "Graph": [
        ("node", 1, "Node*"),
        ("initializer", 5, "Tensor*"),
        ("output", 12, "Value*"),
        ("value_info", 13, "Value*"),
    ],
    "Node": [("input", 1, f"{_TEXT}*"), ("op_type", 4, _TEXT)],
    "Tensor": [("dims", 1, f"{_INT}*"), ("name", 8, _TEXT), ("raw_data", 9, _BYTES)],
    "Value": [("name", 1, _TEXT), ("type", 2, "Type")],
    "Type": [("tensor_type", 1, "TensorType")],
    "TensorType": [("elem_type", 1, _INT), ("shape", 2, "Shape")],
    "Shape": [("dim", 1, "Dimension*")],
    "Dimension": [("dim_value", 1, _INT)],
}
_FLOAT = 1  # an elem_type


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
        try:
            self._model = _kind("Model").FromString(path.read_bytes())
        except DecodeError as error:
            raise UserError(f"{path}: not an ONNX file ({error}); restore it") from error
        nodes = self._model.graph.node
        weighted = [node for node in nodes if node.op_type in ("Gemm", "Conv") and len(node.input) == 3]
        tensors = {tensor.name: tensor for tensor in self._model.graph.initializer}
        if not weighted or not {*weighted[-1].input[1:]} <= tensors.keys():
            raise UserError(f"{path}: its last layer is no classifier with weights and a bias; use --train all")
        self._weight, self._bias = (tensors[name] for name in weighted[-1].input[1:])
        self.key = self._weight.name.rpartition(".")[0]
        self._features = [node.input[0] for node in weighted if node.input[1] == self._weight.name]
        self.uses = len(self._features)

    @property
    def classifier(self) -> Classifier:
        weight = np.frombuffer(self._weight.raw_data, "<f4").reshape(self._weight.dims[0], -1)
        return Classifier(weight, np.frombuffer(self._bias.raw_data, "<f4"))

    def features_model(self) -> tuple[bytes, list[str]]:
        """The file with what its classifier takes as further outputs, and these outputs' names."""
        model = _copy(self._model)
        for name in self._features:
            output = model.graph.output.add(name=name)
            output.type.tensor_type.elem_type = _FLOAT
        return model.SerializeToString(deterministic=True), self._features

    def replaced(self, classifier: Classifier, metadata: Mapping[str, str]) -> bytes:
        """The file with another classifier, which may be of other classes, and other metadata."""
        model = _copy(self._model)
        for tensor in model.graph.initializer:
            values = {self._weight.name: classifier.weight, self._bias.name: classifier.bias}.get(tensor.name)
            if values is not None:
                tensor.dims[0] = len(values)
                tensor.raw_data = values.astype("<f4").tobytes()
        model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value = len(classifier.bias)
        del model.graph.value_info[:]  # sizes between the layers, which runtimes work out themselves
        del model.metadata_props[:]
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=value)
        data: bytes = model.SerializeToString(deterministic=True)
        return data


def _copy(model: Any) -> Any:
    return type(model).FromString(model.SerializeToString())


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
            if (kind := kind.rstrip("*")) in _FIELDS:
                added.type = field_kind.TYPE_MESSAGE
                added.type_name = f".frugalnet.{kind}"
            else:
                added.type = field_kind.Type.Value(kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"frugalnet.{name}"))
