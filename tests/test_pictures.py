"""Which files are pictures, and odd pictures, read alike wherever they come from."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from frugalnet import jpeg, picture_files, pictures
from frugalnet.data.decode import decode
from frugalnet.errors import UserError


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(values: np.ndarray, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits: (H, W) or (H, W, channels) uint16."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = [
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(data)


GREY, COLOUR = 0, 2


# Odd pictures


def test_transparent_pixels_are_white_in_the_pipeline_as_in_predictions() -> None:
    half = Image.new("RGBA", (64, 64), (200, 0, 0, 255))
    half.paste((0, 0, 0, 0), (32, 0, 64, 64))
    for data in (saved(half), saved(half, "WEBP", lossless=True), saved(half.quantize(16))):
        read = pictures.read_picture(data, "x")
        assert np.array_equal(decode(data, "x"), read.pixels)
        assert (read.pixels[:, 32:] == 255).all()
        assert read.changes == ("on white",)
    opaque = Image.new("RGBA", (64, 64), (200, 0, 0, 255))
    assert pictures.read_picture(saved(opaque), "x").changes == ()


def test_the_transparent_value_of_sixteen_bit_grey_is_white() -> None:
    values = np.full((64, 64), 30_000, np.uint16)
    values[:, 32:] = 777
    read = pictures.read_picture(png(values, GREY, (b"tRNS", struct.pack(">H", 777))), "x")
    assert (read.pixels[:, :32] == 30_000 // 257).all()
    assert (read.pixels[:, 32:] == 255).all()
    assert read.changes == ("on white",)


def test_twelve_bit_values_in_sixteen_bits_are_not_nearly_black_and_it_is_said() -> None:
    ramp = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)
    for data in (png(ramp, GREY), saved(Image.fromarray(ramp), "TIFF")):
        read = pictures.read_picture(data, "x")
        assert (read.pixels.min(), read.pixels.max()) == (0, 255)
        assert read.changes == ("12-bit values in 16 bits",)
    full = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    assert pictures.read_picture(png(full, GREY), "x").changes == ()
    with pytest.raises(UserError, match="x: 12-bit values in 16 bits, which would be nearly black"):
        pictures.read_picture(png(np.stack([ramp] * 3, axis=2), COLOUR), "x")
    assert pictures.read_picture(png(np.zeros((64, 64, 3), np.uint16), COLOUR), "x").pixels.max() == 0


@pytest.mark.parametrize(("orientation", "is_turned"), [(0, False), (1, False), (3, True), (8, True), (9, False)])
def test_an_orientation_is_said_only_where_the_picture_is_turned(orientation: int, is_turned: bool) -> None:
    image = Image.new("RGB", (64, 64))
    exif = image.getexif()
    exif[0x0112] = orientation
    read = pictures.read_picture(saved(image, "JPEG", exif=exif), "x")
    assert read.changes == (("EXIF orientation applied",) if is_turned else ())


def test_a_png_with_much_text_or_a_large_profile_is_a_picture() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("notes", "n" * 3_000_000, zip=True)
    plain = Image.new("RGB", (64, 64), "red")
    for data in (saved(plain, pnginfo=text), saved(plain, icc_profile=bytes(3_000_000))):
        assert (pictures.read_picture(data, "x").pixels == (255, 0, 0)).all()
    text.add_text("more", "n" * (pictures.MAX_TEXT + 1), zip=True)
    with pytest.raises(UserError, match="x: more than 64 MiB of text or colour profile; save the picture without"):
        pictures.read_picture(saved(plain, pnginfo=text), "x")


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_every_format_is_read(kind: str) -> None:
    data = saved(Image.new("RGB", (80, 80), "red"), kind)
    assert pictures.why_not_whole(data) is None
    assert np.abs(pictures.read_picture(data, "x").pixels.astype(int) - (255, 0, 0)).max() < 8


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"comment": b"\xff\xc0" * 9, "icc_profile": bytes(70_000)}]
)
def test_a_jpeg_is_whole_as_its_markers_say_or_it_is_said_why(mode: str, options: dict[str, object]) -> None:
    data = saved(Image.new(mode, (72, 48)), "JPEG", **options)
    assert jpeg.shape(data) == (48, 72, len(mode))
    assert pictures.why_not_whole(data) is None
    for end in (-2, -20, len(data) // 2, 30):
        assert pictures.why_not_whole(data[:end])
    frame = data.rindex(b"\xff\xc2" if "progressive" in options else b"\xff\xc0")
    of_12_bits = data[: frame + 4] + bytes([12]) + data[frame + 5 :]
    assert pictures.why_not_whole(of_12_bits), "which Pillow cannot decode"
    small = data[: frame + 5] + bytes([0, 4]) + data[frame + 7 :]
    assert pictures.why_not_whole(small) == "72×4 pixels are too few; expected at least 8 a side"


def test_a_heic_picture_is_read_or_said(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"\0\0\0\x18ftypheic" + bytes(20)
    monkeypatch.setattr(pictures, "find_spec", lambda _: None)
    assert pictures.why_no_picture(head) == "a HEIC picture, read if the package pi-heif is installed"
    monkeypatch.setattr(pictures, "find_spec", lambda _: True)
    assert pictures.why_no_picture(head) is None


@pytest.mark.parametrize(
    "data", [b"BMW is a car, not a picture ........", b"\0\5\x16\7\0\2\0\0Mac OS X", b"%PDF-1.4", b"RIFF1234WAVE"]
)
def test_other_files_are_no_pictures(data: bytes) -> None:
    assert pictures.why_no_picture(data) == "not a picture"


# Folders


def test_a_folders_pictures_are_found_below_it_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    jpeg = saved(Image.new("RGB", (64, 64)), "JPEG")
    for name in ("a.jfif", "b.jpe", "c", "sub/D.JPG", "sub/sub/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(jpeg)
    for name in (
        "._a.jpg",
        ".hidden/x.jpg",
        "__MACOSX/x.jpg",
        "@eaDir/x.jpg",
        "Thumbs.db",
        "notes.txt",
        "sub/more.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(jpeg if name.endswith("jpg") else b"text")
    left_out = picture_files.LeftOut()
    found = list(picture_files.find_pictures([str(tmp_path)], left_out))
    assert found == [str(tmp_path / name) for name in ("a.jfif", "b.jpe", "c", "sub/D.JPG", "sub/sub/e.jpg")]
    assert str(left_out) == (
        f"left out: 5 files: hidden, or a system's ({tmp_path}/._a.jpg, …); "
        f"2 files: not a picture ({tmp_path}/notes.txt, …)"
    )
    assert not picture_files.LeftOut()
