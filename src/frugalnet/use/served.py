"""A folder of weights behind MLflow's own server: pictures in JSON in, names and probabilities out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalnet import pictures, registry
from frugalnet.errors import UserError
from frugalnet.use import weights
from frugalnet.use.runtime import Network, open_stored


def _load_pyfunc(path: str) -> "Served":
    """MLflow calls this."""
    return Served(open_stored(weights.choose_network(None, Path(path))))


class Served:
    def __init__(self, network: Network) -> None:
        self.network = network

    def predict(self, rows: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Classify the pictures of a DataFrame, each an image file's bytes (`image`) or 64×64×3 values (`pixels`).

        Returns for each `classes`, the `top` most probable ones, and `changes`, what was done to the picture. Raises
        the exception that becomes an HTTP status 400 for anything but a picture.
        """
        top = int((params or {}).get("top", 5))
        try:
            if top < 1:
                raise UserError(f"top: expected at least 1, found {top}")
            given = rows.to_dict("records")
            if not given:  # also where every column has another name
                raise UserError("no picture: expected dataframe_records, each with image or pixels")
            side = self.network.side
            read = [_picture(row, f"picture {number}", side) for number, row in enumerate(given)]
            predictions = self.network.predict([picture.pixels for picture in read])
        except UserError as error:
            raise registry.bad_request(str(error)) from error
        return [
            {"classes": prediction.named(top), "changes": list(picture.changes)}
            for prediction, picture in zip(predictions, read, strict=True)
        ]


def _picture(row: Mapping[str, Any], name: str, side: int) -> pictures.Picture:
    given: dict[str, Any] = {key: value for key in ("image", "pixels") if _is_given(value := row.get(key))}
    if len(given) != 1:
        raise UserError(f"{name}: expected either image or pixels, found {' and '.join(given) or 'neither'}")
    if "image" in given:
        return pictures.read_picture(given["image"], name, side)
    return pictures.Picture(name, _pixels(given["pixels"], name, (side, side, 3)), ())


def _is_given(value: object) -> bool:
    return value is not None and value == value  # pandas fills what is missing with NaN


def _pixels(value: object, name: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    expected = f"{name}: expected pixels as {shape[0]}×{shape[1]}×3 whole numbers in 0..255"
    try:
        pixels = np.array(value)
    except ValueError as error:
        raise UserError(f"{expected}, found lists of different lengths") from error
    if pixels.shape != shape:
        raise UserError(f"{expected}, found the shape {'×'.join(map(str, pixels.shape)) or 'of a single value'}")
    if pixels.dtype.kind not in "iu":
        raise UserError(f"{expected}, found other values; multiply pixels in 0..1 by 255 and round them")
    if pixels.min() < 0 or pixels.max() > 255:
        raise UserError(f"{expected}, found {pixels.min()}..{pixels.max()}")
    return pixels.astype(np.uint8)
