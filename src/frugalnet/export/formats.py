"""The formats of a network: PyTorch's weights, and the files for other runtimes."""

from typing import Literal

Format = Literal["pytorch", "onnx", "int8", "executorch", "tflite"]
# In an exported folder, such as results/export/<network>
FILES: dict[Format, str] = {
    "onnx": "model.onnx",
    "int8": "model.int8.onnx",
    "executorch": "model.pte",
    "tflite": "model.int8.tflite",
}
FORMATS: tuple[Format, ...] = ("pytorch", *FILES)
NAMES: dict[Format, str] = {
    "pytorch": "PyTorch",
    "onnx": "ONNX",
    "int8": "ONNX, int8",
    "executorch": "ExecuTorch",
    "tflite": "TFLite, int8",
}
QUANTISED: tuple[Format, ...] = ("int8", "tflite")  # whose accuracy is judged before they are registered
