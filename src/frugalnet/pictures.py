"""Which bytes are a picture, and any picture → the square of RGB pixels that the networks take."""

import io
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from frugalnet import jpeg
from frugalnet.errors import UserError
from frugalnet.files import read_regular

SIDE = 64  # of the committed networks' pictures, in pixels
# Of Pillow's formats, some of which start other programs, how the files of each begin.
SIGNATURES = {
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "GIF": rb"GIF8[79]a",
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "WEBP": rb"RIFF.{4}WEBP",
    "AVIF": rb".{4}ftyp(?:avif|avis|mif1.{4}.*avif)",
    "PPM": rb"P[1-6][\s#]",
    "HEIF": rb".{4}ftyp(?:heic|heix|heim|heis|hevc|hevx|mif1|msf1)",  # with the extra heic
}
_ANY_SIGNATURE = re.compile(b"|".join(b"(?P<%s>%s)" % (k.encode(), v) for k, v in SIGNATURES.items()), re.DOTALL)
EXPECTED = f"expected one of: {', '.join(SIGNATURES)}"
HEAD_BYTES = 32  # of a file, enough to know its format
MIN_SIDE = 8
MAX_PIXELS = 2**26  # a 50-megapixel photograph fits; 64 MiB of one value per pixel
MAX_BYTES = 2**27  # of a file
MAX_TEXT = 2**26  # of a PNG's texts and colour profile, unpacked; Pillow's own bound of a profile is 1 MiB
ORIENTATION = 0x0112  # of EXIF: 1 is upright, 2 to 8 are turned or mirrored

PngImagePlugin.MAX_TEXT_CHUNK = MAX_TEXT
PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT


@dataclass(frozen=True)
class Picture:
    """`pixels`: (side, side, 3) uint8 RGB; `changes`: what was done to the picture to get them, in words."""

    name: str
    pixels: NDArray[np.uint8]
    changes: tuple[str, ...]


def picture_format(head: bytes) -> str | None:
    """The format, of `SIGNATURES`, of a file that begins with these bytes (`HEAD_BYTES` are enough), if it is one."""
    match = _ANY_SIGNATURE.match(head)
    return match.lastgroup if match else None


def why_no_picture(head: bytes) -> str | None:
    """Why a file that begins with these bytes is no picture that can be read, or None if it is.

    The only rule for it: what a file is called does not count.
    """
    if not head:
        return "empty, not a picture"
    kind = picture_format(head)
    if kind == "HEIF" and find_spec("pi_heif") is None:
        return "a HEIC picture, read if the package pi-heif is installed"
    return None if kind else "not a picture"


def open_file(name: str | UserError, side: int = SIDE) -> Picture:
    """The picture in a file, or in standard input if `name` is "-". Raises UserError if there is none.

    Also raises the error that `picture_files.find_pictures` gives instead of a name.
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

    `side`: of the pixels returned. A picture of that size keeps its pixels; transparent pixels become white. Raises
    UserError, with `name`, for a file that is not a picture, is cut off, or is too small or too large.
    """
    with _opened(data, name) as image:
        return _prepare(image, name, side)


def why_not_whole(data: bytes) -> str | None:
    """Why these bytes of a file are no picture, as far as that is seen without decoding; None if they are one."""
    if reason := why_no_picture(data[:HEAD_BYTES]):
        return reason
    is_jpeg = data.startswith(jpeg.START)
    shape = jpeg.shape(data) if is_jpeg and jpeg.has_end(data) else None
    try:
        if shape:  # in a tenth of the time that Pillow takes to open it
            _check_size(shape[1], shape[0], "")
        else:
            with _opened(data, ""):
                pass
    except UserError as error:
        return str(error).removeprefix(": ")
    if is_jpeg and not jpeg.has_end(data):
        return "truncated JPEG picture"
    return "truncated PNG picture" if data.startswith(b"\x89PNG") and data.rfind(b"IEND") < 0 else None


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 RGB → the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """The picture in these bytes, not decoded. Whatever is raised within becomes a UserError with `name`."""
    if reason := why_no_picture(data[:HEAD_BYTES]):
        raise UserError(f"{name}: {reason}; {EXPECTED}")
    if len(data) > MAX_BYTES:
        raise UserError(f"{name}: larger than {MAX_BYTES // 2**20} MiB; save it smaller")
    kind = picture_format(data[:HEAD_BYTES])
    assert kind
    try:
        if kind == "HEIF":
            import pi_heif  # an extra

            pi_heif.register_heif_opener()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on metadata, and on sizes, which are checked below
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                _check_size(image.width, image.height, name)
                yield image
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: more than {MAX_PIXELS // 10**6} million pixels; scale the picture down") from error
    except Exception as error:  # broken bytes make Pillow's parsers raise almost anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "cannot identify" in reason:  # by more than its first bytes
            raise UserError(f"{name}: not a picture; {EXPECTED}") from error
        if "Decompressed data too large" in reason or "Too much memory used in text" in reason:
            limit = f"more than {MAX_TEXT // 2**20} MiB of text or colour profile"
            raise UserError(f"{name}: {limit}; save the picture without") from error
        raise UserError(f"{name}: damaged or truncated picture ({reason})") from error


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
    has_16_bits = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        changes.append("EXIF orientation applied")
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16") or (turned.mode == "I" and image.format == "PPM"):
        turned, bits = _eight_bits(turned)
        if bits < 16:
            changes.append(f"{bits}-bit values in 16 bits")
    elif turned.mode in ("I", "F"):  # of unknown range; Pillow would clip them to 0..255
        raise UserError(f"{name}: values of 32 bits or signed 16 bits; save it with 8 bits")
    elif has_16_bits and 0 < np.asarray(turned.convert("RGB")).max() < 16:  # Pillow keeps the upper 8 of 16 bits
        raise UserError(f"{name}: 12-bit values in 16 bits, which would be nearly black; save it with 8 bits")
    if turned.has_transparency_data:
        turned = turned.convert("RGBA")
        if np.asarray(turned.getchannel("A")).min() < 255:
            changes.append("on white")
            turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned)
    rgb = turned.convert("RGB")
    if rgb.size != (side, side):
        done = "scaled" if rgb.width == rgb.height else "centre-cropped and scaled"
        changes.append(f"{done} from {size} to {side}×{side}")
        rgb = ImageOps.fit(rgb, (side, side), Image.Resampling.BICUBIC)
    return Picture(name, np.array(rgb, dtype=np.uint8), tuple(changes))


def _eight_bits(image: Image.Image) -> tuple[Image.Image, int]:
    """Grey of 16 bits with 8, and how many bits its values have: cameras store 12-bit values in 16-bit files.

    The value that a PNG declares transparent becomes alpha.
    """
    values = np.asarray(image).astype(np.uint32)
    transparent = image.info.get("transparency")
    is_opaque = np.ones(values.shape, bool) if transparent is None else values != transparent
    largest = int(values.max(where=is_opaque, initial=0))
    bits = next(bits for bits in (8, 12, 16) if largest < 2**bits) if largest else 16
    grey = Image.fromarray(np.minimum(values * 255 // (2**bits - 1), 255).astype(np.uint8))
    if transparent is None:
        return grey, bits
    return Image.merge("LA", (grey, Image.fromarray(is_opaque.astype(np.uint8) * 255))), bits
