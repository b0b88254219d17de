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
        (jpeg(np.zeros((64, 32, 3), np.uint8)), "a member: expected .*64×64.*found 32×64"),
        (claiming(5000), "a member can't be decoded: .*CV_IO_MAX_IMAGE_PIXELS"),
        (b"<html>", "a member can't be decoded"),
        (b"", "a member can't be decoded"),
    ],
)
def test_what_is_not_an_image_of_64_by_64_pixels_is_refused_by_name(data: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        decode(data, "a member")


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
