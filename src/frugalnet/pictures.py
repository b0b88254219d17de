"""Any picture → the square of RGB pixels that the networks take. The only importer of Pillow."""

import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from frugalnet.errors import UserError
from frugalnet.files import read_regular

SIDE = 64  # of the committed networks' pictures, in pixels
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # of Pillow's, some of which start other programs
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}  # taken from a folder
MIN_SIDE = 8
MAX_PIXELS = 2**26  # a 50-megapixel photograph fits; 64 MiB of one value per pixel
MAX_BYTES = 2**27  # of a file


@dataclass(frozen=True)
class Picture:
    """`pixels`: (side, side, 3) uint8 RGB; `changes`: what was done to the picture to get them, in words."""

    name: str
    pixels: NDArray[np.uint8]
    changes: tuple[str, ...]


def find_pictures(names: list[str]) -> Iterator[str | UserError]:
    """The files among `names`, with each folder replaced by the pictures in it, sorted; "-" is standard input.

    What cannot be classified is given as an error, so that the rest still can.
    """
    for name in names:
        path = Path(name)
        try:
            if name == "-" or not path.is_dir():
                yield name
                continue
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        except OSError as error:
            yield UserError(f"{name}: {error.strerror}")
            continue
        yield from map(str, files)
        if not files:
            yield UserError(f"{name}: no picture in this folder; expected files named {', '.join(sorted(SUFFIXES))}")


def open_file(name: str | UserError, side: int = SIDE) -> Picture:
    """The picture in a file, or in standard input if `name` is "-". Raises UserError if there is none.

    Also raises the error that `find_pictures` gives instead of a name.
    """
    if isinstance(name, UserError):
        raise name
    try:
        if name == "-":
            return read_picture(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input", side)
        return read_picture(read_regular(Path(name), MAX_BYTES), name, side)
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}") from error


def read_picture(data: bytes, name: str, side: int = SIDE) -> Picture:
    """The picture in the bytes of an image file, with its EXIF orientation applied, centre-cropped and scaled.

    `side`: of the pixels returned. A picture of that size keeps its pixels. Raises UserError, with `name`, for a file
    that is not a picture, is cut off, or is too small or too large.
    """
    if not data:
        raise UserError(f"{name}: empty, not a picture")
    if len(data) > MAX_BYTES:
        raise UserError(f"{name}: larger than {MAX_BYTES // 2**20} MiB; save it smaller")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on metadata, and on sizes, which are checked below
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.width, image.height, name)
                return _prepare(image, name, side)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: more than {MAX_PIXELS // 10**6} million pixels; scale the picture down") from error
    except Exception as error:  # broken bytes make Pillow's parsers raise almost anything
        if "cannot identify" in str(error):
            raise UserError(f"{name}: not a picture; expected one of: {', '.join(FORMATS)}") from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{name}: damaged or truncated picture ({reason})") from error


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 RGB → the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _check_size(width: int, height: int, name: str) -> None:
    if min(width, height) < MIN_SIDE:
        raise UserError(f"{name}: {width}×{height} pixels are too few; expected at least {MIN_SIDE} a side")
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise UserError(f"{name}: {width}×{height} pixels are more than {limit} million; scale the picture down")


def _prepare(image: Image.Image, name: str, side: int) -> Picture:
    changes = []
    if getattr(image, "n_frames", 1) > 1:
        changes.append("first frame only")
    size = f"{image.width}×{image.height}"
    image.draft("RGB", (4 * side, 4 * side))  # a large JPEG is decoded at a fraction of its size
    turned = ImageOps.exif_transpose(image)
    if image.getexif().get(0x0112, 1) != 1:
        changes.append("EXIF orientation applied")
    if turned.mode.startswith("I;16"):
        turned = Image.fromarray((np.asarray(turned) // 257).astype(np.uint8))
    if turned.mode in ("I", "F"):  # of unknown range; Pillow would clip them to 0..255
        raise UserError(f"{name}: values of 32 bits or signed 16 bits; save it with 8 bits")
    if turned.has_transparency_data:
        changes.append("on white")
        turned = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned)
    rgb = turned.convert("RGB")
    if rgb.size != (side, side):
        done = "scaled" if rgb.width == rgb.height else "centre-cropped and scaled"
        changes.append(f"{done} from {size} to {side}×{side}")
        rgb = ImageOps.fit(rgb, (side, side), Image.Resampling.BICUBIC)
    return Picture(name, np.array(rgb, dtype=np.uint8), tuple(changes))
