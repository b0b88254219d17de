"""A document as files: report.html, which needs no other file, report.md, and figures/ with a PNG of each chart."""

import base64
import gzip
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from frugalnet.document import drawing
from frugalnet.document.blocks import Chart, Document, Heatmap, figures_of
from frugalnet.document.wording import NOT_MEASURED, markdown


def write_document(document: Document, folder: Path) -> None:
    """Write report.html, report.md and figures/ into an existing folder, the same bytes for the same document."""
    in_sections = [figure for section in document.sections for block in section.blocks for figure in figures_of(block)]
    every = [figure for figure in (document.chart, *in_sections, *document.attached) if not figure.is_empty]
    figures = {figure.name: figure for figure in every}
    (folder / "figures").mkdir(exist_ok=True)
    for name, figure in figures.items():
        drawing.png(figure, folder / "figures" / f"{name}.png")
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
    environment.filters |= {"markdown": markdown, "data_url": drawing.data_url}
    context = {
        "document": document,
        "chooser": asdict(document.chooser) if document.chooser else None,
        "not_measured": NOT_MEASURED,
        "large": {name: _png_url(folder / "figures" / f"{name}.png") for name in large},
        "plotly_js": base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode(),
        # plotly's JSON writes "<" as an escape, so that no figure can end the script element that it is in.
        "drawn": {n: to_json_plotly(drawing.plotly(c)) for n, c in charts.items() if not c.is_empty},
    }
    for name in ("report.html", "report.md"):
        text = environment.get_template(f"{name}.j2").render(context)
        (folder / name).write_text(text, encoding="utf-8")


def _png_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
