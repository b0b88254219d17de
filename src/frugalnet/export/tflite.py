"""A network as a TFLite file of eight-bit integers, as LiteRT runs it on phones and TensorFlow Lite Micro on
microcontrollers: int8 pixels (1, side, side, 3), each the uint8 pixel less 128, in; int8 logits (1, classes) out.

It needs the extra `device`.
"""

import copy
import re
from collections import Counter
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from frugalnet.export.description import Micro
from frugalnet.export.quiet import quiet, standard_error
from frugalnet.training.batches import Normaliser

_INPUT = "serving_default_args_0"  # the converter's name of the first argument
_ARENA = 2**25  # bytes to try in: more than any microcontroller has
_LEAST_WEIGHT = 2.0**-16  # of a channel's bias


class _FromFloats(nn.Module):
    """(1, side, side, 3) RGB floats in 0..255 → logits (1, classes), the normalisation a 1×1 filter for each channel.

    As one operator it is twice as fast, and exact in eight bits but for the rounding of its result.
    """

    def __init__(self, normaliser: Normaliser, network: nn.Module) -> None:
        super().__init__()
        self.normalise = nn.Conv2d(3, 3, 1, groups=3)
        self.network = network
        with torch.no_grad():
            self.normalise.weight.copy_(normaliser.scale.view(3, 1, 1, 1))
            self.normalise.bias.copy_((-normaliser.mean * normaliser.scale).view(3))  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalise(images.permute(0, 3, 1, 2)))
        return logits


def write_tflite(network: nn.Sequential, images: NDArray[np.uint8], path: Path) -> None:
    """Write a network as int8 TFLite, the same bytes for the same network and images.

    network: a normaliser and a network without batch normalisation (`files.folded`). images: (N, side, side, 3) uint8
    RGB, from which the ranges are taken. These are the least and largest values of all images: the converter's default,
    a moving average over each image's, cuts off large values and costs four points of top-1.
    """
    normaliser, body = copy.deepcopy(network)
    assert isinstance(normaliser, Normaliser)
    _bound_biases(body)
    with quiet(), standard_error():  # progress bars
        model = _convert(_FromFloats(normaliser, body).eval(), images)
    path.write_bytes(_slim(model))


def _convert(network: nn.Module, images: NDArray[np.uint8]) -> bytes:
    import litert_torch
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe import static_wi8_ai8
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    converted = litert_torch.convert(network, (torch.zeros(1, *images.shape[1:]),)).model_content()
    recipe = RecipeManager()
    recipe.load_quantization_recipe(static_wi8_ai8())
    calibrator = Calibrator(converted, num_threads=1, qsv_update_func=min_max_update)
    calibrator.calibrate({"serving_default": [{"args_0": image[None].astype(np.float32)} for image in images]}, recipe)
    ranges = calibrator.get_model_qsvs()
    pixels = ranges[_INPUT]
    ranges[_INPUT] = {"min": np.zeros_like(pixels["min"]), "max": np.full_like(pixels["max"], 255)}
    quantiser = Quantizer(converted, static_wi8_ai8())
    return bytes(quantiser.quantize(ranges, enable_progress_report=False).quantized_model)


def _bound_biases(network: nn.Module) -> None:
    """Give channels that are all but constant a weight, too small to matter, from which their scale is computed.

    Biases are stored in 32 bits in units of the inputs' scale times the weights'. Where training has let a channel's
    weights vanish, that unit is so small that its bias does not fit: `frugal` fell from 48 to 7 % for one channel.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            with torch.no_grad():
                least = _LEAST_WEIGHT * layer.bias.abs()
                weights = layer.weight.flatten(1)
                vanished = weights.abs().amax(1) < least
                weights[vanished, 0] = least[vanished]


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Writes equal vectors once, and all of them aligned as the runtimes want the weights."""

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self.Prep(16, x.nbytes)
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def _slim(model: bytes) -> bytes:
    """The same model without tensors' names, and with equal scales and zero points stored once.

    The quantiser puts weights of more than 256 kB behind the model, where TensorFlow Lite Micro does not read them.
    """
    from ai_edge_litert import schema_py_generated as schema

    unpacked = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    for buffer in unpacked.buffers:
        if buffer.size:
            buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    for graph in unpacked.subgraphs:
        for tensor in graph.tensors:
            tensor.name = None
    builder = _Builder()
    builder.Finish(unpacked.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def describe(path: Path) -> Micro:
    """What a microcontroller needs for the file, as TensorFlow Lite Micro's own interpreter says on this machine."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    data = path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    kinds = [names[code.builtinCode] for code in model.operatorCodes]
    operators = Counter(kinds[operator.opcodeIndex] for operator in model.subgraphs[0].operators)
    interpreter = Interpreter(model_content=data, num_threads=1)
    (given,) = interpreter.get_input_details()
    (result,) = interpreter.get_output_details()
    return Micro(
        operators=dict(sorted(operators.items())),
        arena_bytes=_arena_bytes(data, given["shape"]),
        input_scale=float(given["quantization"][0]),
        input_zero_point=int(given["quantization"][1]),
        output_scale=float(result["quantization"][0]),
        output_zero_point=int(result["quantization"][1]),
    )


def _arena_bytes(model: bytes, shape: NDArray[np.int32]) -> int:
    """The bytes that TensorFlow Lite Micro allocates for one image, with pointers of this machine's size."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model, arena_size=_ARENA)
    interpreter.set_input(np.zeros(shape, np.int8), 0)
    interpreter.invoke()
    with standard_error() as printed:
        interpreter.print_allocations()
        printed.seek(0)
        (total,) = re.findall(rb"Arena allocation total (\d+) bytes", printed.read())
    return int(total)
