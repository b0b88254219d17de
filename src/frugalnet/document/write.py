"""A document as files: report.html, which needs no other file, report.md, and figures/ with a PNG of each chart."""

import base64
import gzip
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from frugalnet.document.blocks import Chart, Document, Heatmap, figures_of
from frugalnet.document.plotly_figures import plotly_figure
from frugalnet.document.png_figures import write_png
from frugalnet.document.wording import NOT_MEASURED, markdown

EXAMPLE_PIXELS = 128  # a side: no larger than an example is shown on a dense screen


def write_document(document: Document, folder: Path) -> None:
    """Write report.html, report.md and figures/ into an existing folder, the same bytes for the same document."""
    in_sections = [figure for section in document.sections for block in section.blocks for figure in figures_of(block)]
    every = [figure for figure in (document.chart, *in_sections, *document.attached) if not figure.is_empty]
    figures = {figure.name: figure for figure in every}
    (folder / "figures").mkdir(exist_ok=True)
    for name, figure in figures.items():
        write_png(figure, folder / "figures" / f"{name}.png")
    shown = [figure for figure in (document.chart, *in_sections) if isinstance(figure, Chart | Heatmap)]
    large = [figure.name for figure in shown if isinstance(figure, Heatmap) and figure.is_large]
    charts = {figure.name: figure for figure in shown if figure.name not in large}
    environment = Environment(
        loader=PackageLoader("frugalnet.document"),
        autoescape=lambda name: bool(name and ".html" in name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"markdown": markdown, "example_url": example_url, "exact_url": exact_url}
    context = {
        "document": document,
        "chooser": asdict(document.chooser) if document.chooser else None,
        "not_measured": NOT_MEASURED,
        "large": {name: _url("png", (folder / "figures" / f"{name}.png").read_bytes()) for name in large},
        "plotly_js": base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode(),
        # plotly's JSON writes "<" as an escape, so that no figure can end the script element that it is in.
        "drawn": {n: to_json_plotly(plotly_figure(c)) for n, c in charts.items() if not c.is_empty},
    }
    for name in ("report.html", "report.md"):
        text = environment.get_template(f"{name}.j2").render(context)
        (folder / name).write_text(text, encoding="utf-8")


def example_url(image: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) uint8 RGB for the page: a JPEG of at most `EXAMPLE_PIXELS` a side."""
    if len(image) > EXAMPLE_PIXELS:
        image = cv2.resize(image, (EXAMPLE_PIXELS, EXAMPLE_PIXELS), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return _url("jpeg", _encoded(image, "jpeg", (cv2.IMWRITE_JPEG_QUALITY, 92)))


def exact_url(image: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) uint8 RGB for the page, with its own pixels: JPEG would smear one that differs."""
    return _url("png", _encoded(image, "png", ()))


def _encoded(image: NDArray[np.uint8], kind: str, settings: tuple[int, ...]) -> bytes:
    encoded, data = cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    assert encoded
    return data.tobytes()


def _url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
