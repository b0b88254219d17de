"""The formats of a network: PyTorch's weights, and the files for other runtimes."""

from typing import Literal

Format = Literal["pytorch", "onnx", "int8", "executorch"]
# In results/export/<network>
FILES: dict[Format, str] = {"onnx": "model.onnx", "int8": "model.int8.onnx", "executorch": "model.pte"}
FORMATS: tuple[Format, ...] = ("pytorch", *FILES)
