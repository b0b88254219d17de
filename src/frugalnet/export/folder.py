"""An exported folder made to stand alone: class names, a program that runs it, a picture to check a port with, and
export.json, which describes all of it.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugalnet import pictures
from frugalnet.errors import printable
from frugalnet.export import run
from frugalnet.export.description import (
    Description,
    Example,
    File,
    Input,
    Micro,
    Network,
    Output,
    metadata,
    preprocessing,
)
from frugalnet.export.formats import FILES, Format
from frugalnet.export.result import ExportResult
from frugalnet.export.runtimes import runnable_files
from frugalnet.files import sha256, write_json

DESCRIPTION = "export.json"
HEADER = "model_int8.h"
EXAMPLE = Example(picture="example.png", pixels="example.rgb", logits="example.json")
_DIGITS = 4  # of the example's logits, after the point
_BYTES_A_LINE = 20


@dataclass(frozen=True)
class Subject:
    """What is exported: a network, the side of its pictures in pixels, and its classes in the order of the logits."""

    network: Network
    side: int
    class_ids: list[str]
    class_names: list[str]

    @property
    def metadata(self) -> dict[str, str]:
        """What its ONNX files say of themselves."""
        return metadata(self.network, self.side, self.class_ids, self.class_names)


def complete(folder: Path, subject: Subject, tflite: Micro | None = None) -> None:
    """Write beside a network's files all that is needed to run and port them, but for export.json.

    tflite: what its TFLite file needs; with it a C header of that file is written.
    """
    labels = [printable(name) for name in subject.class_names]
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    shutil.copyfile(run.__file__, folder / "run.py")
    picture = folder / EXAMPLE.picture
    picture.write_bytes(pictures.encode_png(drawn()))
    pixels = pictures.open_file(str(picture), subject.side).pixels
    (folder / EXAMPLE.pixels).write_bytes(pixels.tobytes())
    logits = {
        file.path.name: [round(value, _DIGITS) for value in file.open()(pixels[None])[0].astype(float).tolist()]
        for file in runnable_files(folder, subject.side).values()
    }
    write_json(folder / EXAMPLE.logits, {"logits": logits})
    if tflite is not None:
        (folder / HEADER).write_text(header(folder / FILES["tflite"], subject, tflite), encoding="utf-8")


def describe(
    folder: Path,
    subject: Subject,
    tflite: Micro | None = None,
    accuracy: ExportResult | None = None,
    top1: Mapping[Format, float | None] | None = None,
) -> Description:
    """What export.json says of a completed folder. top1: of formats, where no `accuracy` was measured."""
    side = subject.side
    classes = len(subject.class_names)
    known = {FILES[kind]: value for kind, value in (top1 or {}).items()}
    files = sorted(path for path in folder.iterdir() if path.name != DESCRIPTION)
    return Description(
        network=subject.network,
        input=Input(shape=["N", side, side, 3]),
        preprocessing=preprocessing(side),
        output=Output(shape=["N", classes]),
        files={
            path.name: File(bytes=path.stat().st_size, sha256=sha256(path), top1=known.get(path.name)) for path in files
        },
        tflite=tflite,
        example=EXAMPLE,
        accuracy=accuracy,
    )


def drawn() -> NDArray[np.uint8]:
    """The example: a picture of (120, 160, 3), shades, a disc and stripes, by integer arithmetic alone."""
    y, x = np.mgrid[0:120, 0:160]
    red = x * 255 // 159
    green = y * 255 // 119
    blue = (x + y) * 255 // 278
    disc = (x - 60) ** 2 + (y - 55) ** 2 < 35**2
    stripes = (x > 95) & ((x + 2 * y) // 12 % 2 == 0)
    red = np.where(disc, 230, np.where(stripes, 40, red))
    green = np.where(disc, 160, np.where(stripes, 60, green))
    blue = np.where(disc, 30, np.where(stripes, 90, blue))
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def header(path: Path, subject: Subject, tflite: Micro) -> str:
    """The TFLite file and what its caller needs to know, as a C header."""
    data = path.read_bytes()
    rows = [data[start : start + _BYTES_A_LINE] for start in range(0, len(data), _BYTES_A_LINE)]
    array = ",\n".join(",".join(map(str, row)) for row in rows)
    labels = ",\n".join(f"  {json.dumps(printable(name), ensure_ascii=False)}" for name in subject.class_names)
    operators = ", ".join(tflite.operators)
    network = subject.network
    return f"""/* {network.name}, {network.licence}, for TensorFlow Lite Micro. Written by frugalnet; see {DESCRIPTION}.
   Input: int8 (1, {subject.side}, {subject.side}, 3), RGB, each pixel of 0..255 less 128.
   Output: int8 (1, {len(subject.class_names)}) logits; the largest is the class. logit = (value - ZERO_POINT) * SCALE.
   Operators: {operators}. */
#ifndef FRUGALNET_MODEL_INT8_H
#define FRUGALNET_MODEL_INT8_H

#define MODEL_SIDE {subject.side}
#define MODEL_CLASSES {len(subject.class_names)}
#define MODEL_ARENA_BYTES {tflite.arena_bytes} /* on a 64-bit machine; a 32-bit one needs a little less */
#define MODEL_OUTPUT_SCALE {tflite.output_scale!r}f
#define MODEL_OUTPUT_ZERO_POINT ({tflite.output_zero_point})

static const char *const model_labels[MODEL_CLASSES] = {{
{labels}
}};

__attribute__((aligned(16))) static const unsigned char model_int8[{len(data)}] = {{
{array}
}};

#endif
"""
