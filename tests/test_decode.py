import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from frugalnet.data.decode import decode
from frugalnet.errors import UserError
from frugalnet.pictures import read_picture


def jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def claiming(side: int) -> bytes:
    """A small PNG whose header claims so many pixels a side."""
    png = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def as_file(mode: str, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), (204, 51, 51), np.uint8)).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("RGB", "JPEG", (204, 51, 51)),
        ("L", "JPEG", (97, 97, 97)),
        ("CMYK", "JPEG", (204, 51, 51)),
        ("P", "PNG", (204, 51, 51)),
        ("P", "GIF", (204, 51, 51)),
        ("L", "PNG", (97, 97, 97)),
        ("RGBA", "PNG", (204, 51, 51)),
    ],
)
def test_grey_cmyk_and_palette_images_become_rgb(mode: str, kind: str, expected: tuple[int, int, int]) -> None:
    image = decode(as_file(mode, kind), "a member")
    assert np.abs(image.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("cut_bytes", [2, 100, 600])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_truncated_jpeg_never_passes(mode: str, cut_bytes: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, "JPEG")
    assert decode(file.getvalue(), "a member").shape == (64, 64, 3)
    with pytest.raises(UserError, match="a member is a truncated JPEG"):
        decode(file.getvalue()[:-cut_bytes], "a member")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (jpeg(np.zeros((64, 4, 3), np.uint8)), "a member: 4×64 pixels are too few"),
        (claiming(5000), "a member: damaged or truncated picture"),
        (claiming(50_000), "a member: .*million"),
        (b"<html>", "a member: not a picture"),
        (b"", "a member: empty"),
    ],
)
def test_what_is_not_a_picture_is_refused_by_name(data: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        decode(data, "a member")


@pytest.mark.parametrize("side", [32, 64, 96])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_becomes_what_predict_makes_of_it(kind: str, side: int) -> None:
    small = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
    photograph = Image.fromarray(small).resize((500, 300))
    turned = Image.Exif()
    turned[0x0112] = 6
    file = io.BytesIO()
    photograph.save(file, kind, exif=turned)
    expected = read_picture(file.getvalue(), "a photograph", side).pixels
    assert np.array_equal(decode(file.getvalue(), "a photograph", side), expected)
    assert expected.shape == (side, side, 3)


@pytest.mark.parametrize("side", [32, 64, 128])
def test_a_jpeg_of_the_right_size_has_the_pixels_that_predict_sees(side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(cv2.GaussianBlur(pixels, (5, 5), 0)).save(file, "JPEG")
    assert np.array_equal(decode(file.getvalue(), "m", side), read_picture(file.getvalue(), "m", side).pixels)


def test_opencv_decodes_jpegs_of_the_right_size_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def decoded(data: bytes, flags: int) -> np.ndarray:
        shapes.append(np.asarray(Image.open(io.BytesIO(data))).shape[:2])
        return np.zeros((64, 64, 3), np.uint8)

    monkeypatch.setattr(cv2, "imdecode", decoded)
    for size in ((64, 64), (64, 65), (200, 130)):  # few bytes each
        for options in ({}, {"progressive": True}, {"icc_profile": bytes(100_000)}):
            file = io.BytesIO()
            Image.new("RGB", size).save(file, "JPEG", **options)
            decode(file.getvalue(), "a member")
    assert shapes == [(64, 64)] * 3


def test_a_jpeg_whose_scan_is_damaged_is_refused_and_the_decoder_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = jpeg(noise)
    assert decode(whole, "a member").shape == (64, 64, 3)
    start = whole.rindex(b"\xff\xda") + 14
    cut_out = whole[: start + 1000] + whole[start + 1500 :]
    with pytest.raises(UserError, match=r"^a member is a damaged JPEG image \(Corrupt JPEG data: "):
        decode(cut_out, "a member")
    assert capfd.readouterr().err == ""
    os.write(2, b"standard error is itself again")
    assert capfd.readouterr().err == "standard error is itself again"
