"""A table of confusions as a picture, drawn by Pillow."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MOST = 40  # classes: with more, a picture of the table is no longer read
CELL = 44  # pixels
TEXT = 14
LONGEST = 24  # letters of a name


def draw_confusion(classes: Sequence[str], confusion: Sequence[Sequence[int]], path: Path) -> None:
    """Write a PNG: a row for each class, a column for each predicted one, darker for a larger share of the row.

    Of more than MOST classes, those with the smallest share of right answers are drawn.
    """
    order = sorted(range(len(classes)), key=lambda i: confusion[i][i] / sum(confusion[i]))[:MOST]
    names = [classes[i] if len(classes[i]) <= LONGEST else f"{classes[i][: LONGEST - 1]}…" for i in order]
    font = ImageFont.load_default(TEXT)
    margin = 24 + int(max(font.getlength(name) for name in names))
    side = margin + CELL * len(order)
    image = Image.new("RGB", (side + 12, side + 12), "white")
    drawing = ImageDraw.Draw(image)
    drawing.text((8, margin - 26), "class", "black", font)
    drawing.text((8, margin - 48), "predicted", "black", font)
    for row, i in enumerate(order):
        y = margin + CELL * row
        drawing.text((margin - 8, y + CELL // 2), names[row], "black", font, anchor="rm")
        for column, j in enumerate(order):
            x = margin + CELL * column
            share = confusion[i][j] / sum(confusion[i])
            colour = _blend((255, 255, 255), (8, 48, 107) if i == j else (127, 39, 4), share)
            drawing.rectangle((x, y, x + CELL - 2, y + CELL - 2), colour, "lightgrey")
            if confusion[i][j]:
                ink = "white" if share > 0.45 else "black"
                drawing.text((x + CELL // 2 - 1, y + CELL // 2 - 1), str(confusion[i][j]), ink, font, anchor="mm")
    image.paste(_column_names(names, font, margin), (margin, 0))
    image.save(path, "PNG")


def _column_names(names: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, height: int) -> Image.Image:
    """The names, reading upwards, one a column."""
    lying = Image.new("RGB", (height, CELL * len(names)), "white")
    drawing = ImageDraw.Draw(lying)
    for column, name in enumerate(names):
        drawing.text((8, CELL * column + CELL // 2), name, "black", font, anchor="lm")
    return lying.transpose(Image.Transpose.ROTATE_90)


def _blend(light: tuple[int, int, int], dark: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(light, dark, strict=True))
    return red, green, blue
