"""Classify a picture with a network of this folder: python run.py PICTURE [model.int8.onnx]

It needs onnxruntime, numpy and Pillow. export.json describes the preprocessing step by step.
"""

import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def pixels(picture: str, side: int) -> np.ndarray:
    """What the network takes: (1, side, side, 3) uint8 RGB."""
    with Image.open(picture) as image:
        image.draft("RGB", (4 * side, 4 * side))  # a large JPEG is decoded at a fraction of its size
        turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith(("I", "F")):
        sys.exit(f"{picture}: more than 8 bits a channel; save it with 8")
    if turned.has_transparency_data:
        turned = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned)
    return np.asarray(ImageOps.fit(turned.convert("RGB"), (side, side), Image.Resampling.BICUBIC))[None]


if __name__ == "__main__":
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # when imported, it would write to ~/.cache and report to its maker
    import onnxruntime

    sys.tracebacklimit = 0  # one line on what is no picture
    picture, file = (*sys.argv[1:], "model.onnx")[:2] if sys.argv[1:] else sys.exit(__doc__)
    session = onnxruntime.InferenceSession(Path(__file__).with_name(file))
    logits = session.run(["logits"], {"images": pixels(picture, session.get_inputs()[0].shape[1])})[0][0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    names = Path(__file__).with_name("labels.txt").read_text(encoding="utf-8").splitlines()
    for place in np.argsort(-probabilities, kind="stable")[:5]:
        print(f"{probabilities[place]:7.2%}  {names[place]}")
