"""A document as files: report.html, which needs no other file, report.md, and figures/ with a PNG of each chart."""

import base64
import gzip
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from frugalnet.document import drawing
from frugalnet.document.blocks import Document, charts_of
from frugalnet.document.wording import NOT_MEASURED, markdown


def write_document(document: Document, folder: Path) -> None:
    """Write report.html, report.md and figures/ into an existing folder, the same bytes for the same document."""
    in_sections = [chart for section in document.sections for block in section.blocks for chart in charts_of(block)]
    charts = [chart for chart in (document.chart, *in_sections) if not chart.is_empty]
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    for chart in charts:
        drawing.png(chart, figures / f"{chart.name}.png")
    environment = Environment(
        loader=PackageLoader("frugalnet.document"),
        autoescape=lambda name: bool(name and ".html" in name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = markdown
    context = {
        "document": document,
        "not_measured": NOT_MEASURED,
        "plotly_js": base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode(),
        # plotly's JSON writes "<" as an escape, so that no figure can end the script element that it is in.
        "drawn": {chart.name: to_json_plotly(drawing.plotly(chart)) for chart in charts},
    }
    for name in ("report.html", "report.md"):
        text = environment.get_template(f"{name}.j2").render(context)
        (folder / name).write_text(text, encoding="utf-8")
