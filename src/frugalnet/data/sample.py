"""The embedded sample: an archive with Tiny ImageNet's layout, drawn by the project itself.

Every stage runs the same code on it. It has ten classes of shapes and textures in clutter and noise: some are easy to
tell apart by colour, some only by the number of points. Measurements on it are not results.
"""

import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from frugalnet.data import ROOT
from frugalnet.errors import UserError
from frugalnet.files import atomic

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]  # BGR, as OpenCV draws and encodes
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
Draw = Callable[[Image, np.random.Generator, tuple[int, int], int, Colour], None]

SIZE = 64
TRAIN_PER_CLASS = 100
VALIDATION_PER_CLASS = 20
GREYSCALE_EVERY = 33  # about 3 %; 1.8 % in the original
SEED = 415656
SHIFT = 4  # OpenCV's coordinates in sixteenths of a pixel


def _shape(radii: list[float], turn: tuple[float, float], thickness: int = -1, colour: Colour | None = None) -> Draw:
    """A polygon with its points at `radii` (of the object's) around the centre, turned by an angle between two."""

    def draw(image: Image, rng: np.random.Generator, centre: tuple[int, int], radius: int, any_colour: Colour) -> None:
        start = rng.uniform(*turn)
        angles = [math.radians(start + 360 * k / len(radii)) for k in range(len(radii))]
        points = [
            [round((c + radius * r * f(a)) * 2**SHIFT) for c, f in zip(centre, (math.sin, math.cos), strict=True)]
            for a, r in zip(angles, radii, strict=True)
        ]
        polygon = [np.array(points, np.int32)]
        ink = _near(rng, colour) if colour else any_colour
        if thickness < 0:
            cv2.fillPoly(image, polygon, ink, cv2.LINE_AA, SHIFT)
        else:
            cv2.polylines(image, polygon, True, ink, thickness, cv2.LINE_AA, SHIFT)

    return draw


def _texture(period: int, rows: bool, first: Colour | None = None, second: Colour | None = None) -> Draw:
    """A square of diagonal stripes, or with `rows` of checks, each `period` pixels wide."""

    def draw(image: Image, rng: np.random.Generator, centre: tuple[int, int], radius: int, any_colour: Colour) -> None:
        x, y = centre
        phase = int(rng.integers(2 * period))
        v, u = np.mgrid[y - radius : y + radius, x - radius : x + radius] + phase
        odd = (u // period + v // period) % 2 if rows else ((u + v) // period) % 2
        inks = [_near(rng, first) if first else any_colour, _near(rng, second) if second else _colour(rng)]
        image[y - radius : y + radius, x - radius : x + radius] = np.array(inks, np.uint8)[odd]

    return draw


RED = (40, 40, 205)
GREEN = (60, 160, 50)
BLUE = (200, 90, 40)
WHITE = (225, 225, 225)
PURPLE = (170, 40, 130)
YELLOW = (50, 220, 230)
ANY_TURN = (0.0, 360.0)

# Of each class, its fictitious WordNet id, its names and its picture, in the order of wnids.txt: not sorted.
CLASSES: list[tuple[str, str, Draw]] = [
    ("n99000418", "red disc, crimson moon", _shape([1.0] * 40, ANY_TURN, colour=RED)),
    ("n99000127", "square frame, window", _shape([1.0] * 4, (33, 57), thickness=4)),
    ("n99000733", "yellow star, pentagram", _shape([1.0, 0.42] * 5, ANY_TURN, colour=YELLOW)),
    ("n99000259", "blue stripes, awning", _texture(5, rows=False, first=BLUE, second=WHITE)),
    ("n99000981", "purple ring, hoop", _shape([1.0] * 40, ANY_TURN, thickness=4, colour=PURPLE)),
    ("n99000042", "diamond frame, lozenge", _shape([1.0] * 4, (-12, 12), thickness=4)),
    ("n99000664", "checkerboard, chequers", _texture(6, rows=True)),
    ("n99000375", "green triangle, fir", _shape([1.0] * 3, (165, 195), colour=GREEN)),
    ("n99000590", "six-pointed star, hexagram", _shape([1.0, 0.6] * 6, ANY_TURN)),
    ("n99000806", "four-pointed star, compass rose", _shape([1.0, 0.28] * 4, ANY_TURN)),
]
# words.txt names far more than the classes, as the original does.
OTHER_WORDS = [(f"n98{k:06d}", f"shape number {k}, figure {k}") for k in range(0, 4000, 97)]


def write_sample(path: Path) -> None:
    """Write the sample archive, the same bytes every time; takes about a second."""
    training = [(label, index) for label in range(len(CLASSES)) for index in range(TRAIN_PER_CLASS)]
    # Validation images come in mixed order: reading them as an image folder gives labels that mean nothing.
    count = len(CLASSES) * VALIDATION_PER_CLASS
    labels = np.random.default_rng(SEED).permutation(np.arange(count) % len(CLASSES)).tolist()
    words = sorted([(class_id, names) for class_id, names, _ in CLASSES] + OTHER_WORDS)
    with atomic(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        _add(archive, "wnids.txt", "".join(f"{class_id}\n" for class_id, _, _ in CLASSES))
        _add(archive, "words.txt", "".join(f"{class_id}\t{names}\n" for class_id, names in words))
        boxes = [""] * len(CLASSES)
        for label, index in training:
            class_id = CLASSES[label][0]
            jpeg, box = _picture(label, index)
            _add(archive, f"train/{class_id}/images/{class_id}_{index}.JPEG", jpeg)
            boxes[label] += _line(f"{class_id}_{index}.JPEG", *box)
        for (class_id, _, _), lines in zip(CLASSES, boxes, strict=True):
            _add(archive, f"train/{class_id}/{class_id}_boxes.txt", lines)
        annotations = ""
        for index, label in enumerate(labels):
            jpeg, box = _picture(label, TRAIN_PER_CLASS + index)
            _add(archive, f"val/images/val_{index}.JPEG", jpeg)
            annotations += _line(f"val_{index}.JPEG", CLASSES[label][0], *box)
        _add(archive, "val/val_annotations.txt", annotations)


def _line(*fields: object) -> str:
    return "\t".join(map(str, fields)) + "\n"


def _add(archive: zipfile.ZipFile, name: str, data: bytes | str) -> None:
    """Stored, not deflated, and without a clock: no byte depends on a version of zlib or on the day."""
    member = zipfile.ZipInfo(f"{ROOT}/{name}")
    member.external_attr = 0o644 << 16
    member.create_system = 3  # Unix, whose permissions these are
    archive.writestr(member, data)


def _picture(label: int, index: int) -> tuple[bytes, Box]:
    """A class's picture as a JPEG file, and the box of its object; a function of (label, index) alone."""
    rng = np.random.default_rng([SEED, label, index])
    image: Image = np.empty((SIZE, SIZE, 3), np.uint8)
    ground = _near(rng, (128, 128, 128), 64)
    image[:] = ground
    for _ in range(rng.integers(3, 8)):
        ends = rng.integers(-8, SIZE + 8, (2, 2)).tolist()
        cv2.line(image, ends[0], ends[1], _near(rng, ground, 50), int(rng.integers(1, 9)), cv2.LINE_AA)
    image = cv2.GaussianBlur(image, (5, 5), 0).astype(np.uint8)

    radius = int(rng.integers(15, 28))
    x, y = rng.integers(radius, SIZE - radius, 2, endpoint=True).tolist()
    CLASSES[label][2](image, rng, (x, y), radius, _away_from(rng, ground))

    for _ in range(rng.integers(1, 4)):  # things in front of it
        start = rng.integers(0, SIZE, 2)
        end = start + rng.integers(-14, 15, 2)
        cv2.line(image, start.tolist(), end.tolist(), _colour(rng), 2, cv2.LINE_AA)
    strength = int(rng.integers(5, 30))
    noise = rng.integers(-strength, strength, image.shape, endpoint=True)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if (index + GREYSCALE_EVERY // 2) % GREYSCALE_EVERY == label:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8)
    written, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not written:
        raise UserError("OpenCV can't write JPEG files here; reinstall opencv-python-headless")
    return jpeg.tobytes(), (x - radius, y - radius, min(x + radius, SIZE - 1), min(y + radius, SIZE - 1))


def _colour(rng: np.random.Generator) -> Colour:
    blue, green, red = rng.integers(10, 246, 3).tolist()
    return blue, green, red


def _near(rng: np.random.Generator, colour: Colour, distance: int = 35) -> Colour:
    blue, green, red = np.clip(np.array(colour) + rng.integers(-distance, distance, 3), 0, 255).tolist()
    return blue, green, red


def _away_from(rng: np.random.Generator, ground: Colour) -> Colour:
    """A colour that can be told from the ground's."""
    while True:
        colour = _colour(rng)
        if sum(abs(a - b) for a, b in zip(colour, ground, strict=True)) > 150:
            return colour
