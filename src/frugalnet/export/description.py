"""What an exported folder says of itself: export.json, and the metadata of its ONNX files."""

import json
from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from frugalnet.export.result import ExportResult
from frugalnet.schema import Config

LICENCE = "MIT"  # of the networks; the data sets' are their own


class Network(Config):
    """A network's identity. top1: PyTorch's, on the n images of `validated_on` of `data`."""

    name: str
    model: str
    seed: int
    licence: str
    data: str
    data_sha256: str
    validated_on: str
    n: int
    top1: float
    macs: int
    source_sha256: str  # of the weights in PyTorch


class Step(Config):
    """A step of the preprocessing."""

    step: str
    how: str


def preprocessing(side: int) -> list[Step]:
    """What `pictures.read_picture` does to a picture, in its order, in the words that a port needs."""
    return [
        Step(
            step="decode",
            how="The first frame as 8-bit RGB, sRGB values as stored, without colour management. A JPEG may be decoded "
            f"at 1/2, 1/4 or 1/8 of its size if both sides keep at least {4 * side} pixels.",
        ),
        Step(step="orient", how="Apply the EXIF orientation, if there is one."),
        Step(step="flatten", how="Where the picture is transparent, blend it with white: alpha·c + (1 − alpha)·255."),
        Step(step="crop", how="The centre square whose side is the shorter side of the picture."),
        Step(
            step="scale",
            how=f"To {side}×{side} with the bicubic filter (a = −0.5), the filter widened by the factor of reduction "
            "(antialiased), first along rows, then along columns, both rounded to 8 bits. At the edges of the square "
            "the filter reads the pixels beyond it; at the edges of the picture it is cut off, and its weights are "
            f"divided by their sum. Pillow's BICUBIC is this. A picture of {side}×{side} keeps its pixels.",
        ),
        Step(step="order", how="Rows from the top, pixels from the left, channels R, G, B; values 0 to 255."),
    ]


class Input(Config):
    """What a file takes. layout: N images, H rows, W columns, C channels."""

    name: str = "images"
    dtype: str = "uint8"
    shape: list[int | str]
    layout: str = "NHWC"
    channels: str = "RGB"
    range: tuple[int, int] = (0, 255)
    normalisation: str = "part of the network"


class Output(Config):
    """What a file gives."""

    name: str = "logits"
    dtype: str = "float32"
    shape: list[int | str]
    classes: str = "labels.txt, one a line, in this order"
    probabilities: str = "softmax of the logits"


class File(Config):
    """A file of the folder. top1: on the network's n pictures; left out where `accuracy` has it, or nobody measured."""

    bytes: int
    sha256: str
    top1: float | None = None

    @model_serializer(mode="wrap")
    def _without_unknown(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        return {key: value for key, value in written.items() if value is not None}


class Micro(Config):
    """What TensorFlow Lite Micro needs for the TFLite file.

    operators: how many of each kernel it runs. arena_bytes: RAM for one image, measured with TensorFlow Lite Micro on a
    64-bit machine; a 32-bit one needs a little less. Input: a pixel is (value − input_zero_point) · input_scale.
    """

    operators: dict[str, int]
    arena_bytes: int
    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int


class Example(Config):
    """A picture to check a port with, drawn by code. pixels: after the preprocessing. logits: by file."""

    picture: str
    pixels: str
    logits: str


class Description(Config):
    """export.json. accuracy: of each format on labelled pictures; None where none were given."""

    network: Network
    input: Input
    preprocessing: list[Step]
    output: Output
    files: dict[str, File]
    tflite: Micro | None
    example: Example
    accuracy: ExportResult | None


def metadata(network: Network, side: int, ids: list[str], names: list[str]) -> dict[str, str]:
    """What an ONNX file says of itself: what is needed to name what is in a picture."""
    texts: dict[str, Any] = {
        "classes": names,
        "class_ids": ids,
        "preprocessing": [f"{step.step}: {step.how}" for step in preprocessing(side)],
    }
    written = {key: json.dumps(value, ensure_ascii=False) for key, value in texts.items()}
    facts = {key: str(getattr(network, key)) for key in ("name", "licence", "data", "source_sha256")}
    return {**facts, "side": str(side), **written}
