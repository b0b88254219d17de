"""A page on this machine on which one picture is shown to several networks, side by side. Needs the extra `try`."""

import os
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from frugalnet import pictures
from frugalnet.data.sample import write_sample
from frugalnet.errors import UserError
from frugalnet.use.runtime import Network, open_stored
from frugalnet.use.weights import Stored

# Gradio reads these when it is imported: it sends nothing anywhere.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_EXAMPLES = 5  # of the sample archive


def serve_page(networks: Sequence[Stored], port: int) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C. Raises UserError without the extra `try`."""
    if find_spec("gradio") is None:
        raise UserError("the page needs the extra `try`; install it: make install EXTRAS=try")
    with tempfile.TemporaryDirectory() as folder:
        page = build_page([open_stored(stored) for stored in networks], _examples(Path(folder)))
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            ssr_mode=False,
            footer_links=[],
            max_file_size=pictures.MAX_BYTES,
            theme=_theme(),
        )


def _theme() -> Any:
    import gradio

    return gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # no fonts from the web


def build_page(classifiers: Sequence[Network], examples: Sequence[Path]) -> Any:
    """The page, a gradio.Blocks: a picture in, what each network says out."""
    import gradio

    def classify(path: str | None) -> list[Any]:
        if path is None:
            return [None] * (2 * len(classifiers))
        try:
            picture = pictures.open_file(path)
        except UserError as error:
            raise gradio.Error(str(error).replace(path, "this file"), print_exception=False) from error
        answers: list[Any] = []
        for classifier in classifiers:
            (prediction,) = classifier.predict([picture.pixels])
            done = ", ".join((f"{prediction.milliseconds:.2f} ms", *picture.changes))
            answers += [dict(prediction.top(5)), done]
        return answers

    with gradio.Blocks(title="frugalnet: try it", analytics_enabled=False) as page:
        gradio.Markdown("# What do small networks see?\nDrop a picture, or choose one; it stays on this machine.")
        shown: list[Any] = []
        with gradio.Row():
            with gradio.Column():
                given = gradio.Image(label="Picture", type="filepath", image_mode=None, sources=["upload"], height=320)
                gradio.Examples([[str(path)] for path in examples], given, label="Examples of the sample data")
            for classifier in classifiers:
                assert classifier.stored is not None
                entry = classifier.stored.entry
                title = f"{classifier.name}: {entry.top1:.1%} top-1, {entry.macs / 1e6:.2f} M MACs"
                with gradio.Column():
                    shown += [gradio.Label(label=title, num_top_classes=5), gradio.Textbox(label="Time, and changes")]
        given.change(classify, given, shown, show_progress="hidden")
    return page


def _examples(folder: Path) -> list[Path]:
    """Pictures of the sample archive, each of another class, as files."""
    write_sample(folder / "sample.zip")
    with zipfile.ZipFile(folder / "sample.zip") as archive:
        names = [name for name in archive.namelist() if "/val/images/" in name and name.endswith(".JPEG")]
        chosen = names[:: max(1, len(names) // _EXAMPLES)][:_EXAMPLES]
        paths = [folder / f"example-{number}.jpg" for number in range(len(chosen))]
        for path, name in zip(paths, chosen, strict=True):
            path.write_bytes(archive.read(name))
    return paths
