"""How much accuracy does a convolutional network buy for its computational cost?"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frugalnet.use.runtime import Network

# Nothing phones home: each of these libraries reads its switch when it is imported.
for _switch in (
    "MLFLOW_DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
    "DVC_NO_ANALYTICS",
    "NO_ALBUMENTATIONS_UPDATE",
    "ORT_DISABLE_TELEMETRY",  # ONNX Runtime would report each session to its maker
):
    os.environ.setdefault(_switch, "true")
# OpenCV refuses images with more pixels than this, so a file of a few kilobytes cannot unpack to gigabytes.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**24))


def load(name: str | None = None, weights: Path | str | None = None) -> "Network":
    """A trained network that classifies pictures: `frugalnet.load("depthwise").predict(["photo.jpg"])[0].top(5)`.

    name: as "depthwise" or, with its seed, "depthwise-0"; without one, the most accurate network. weights: a file or a
    folder of weights, or a folder that `frugalnet export` wrote, instead of the project's own weights. Raises UserError
    if there are none of that name.
    """
    from frugalnet.use import runtime  # here: it imports ONNX Runtime

    return runtime.load(name, weights)
