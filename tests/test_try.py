"""The page of `frugalnet try` in a real browser; without the extra `try` it says how to install it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import servers
import trained
from playwright.sync_api import Page, sync_playwright
from test_report_browser import _FLAGS, EXECUTABLE

import frugalnet
from frugalnet import pictures
from frugalnet.data import arrays
from frugalnet.use import weights

has_gradio = find_spec("gradio") is not None
in_browser = pytest.mark.skipif(
    not has_gradio or EXECUTABLE is None, reason="needs a browser and the extra `try`: make install EXTRAS=try"
)
NAMES = ("depthwise-0", "alexnet-0")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "frugalnet.use.cli", "try", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(trained.ROOT / "src"), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.skipif(has_gradio, reason="the extra `try` is installed")
def test_without_the_extra_one_line_names_the_command_that_installs_it():
    done = subprocess.run(command(), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "frugalnet: the page needs the extra `try`; install it: make install EXTRAS=try\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory, sample_archive) -> Path:
    folder = trained.project(tmp_path_factory.mktemp("trained"), sample_archive, NAMES)
    weights.write_weights(folder / "weights", [weights.of_run(folder, name) for name in NAMES])
    data = arrays.read_dataset(folder / "data/arrays")
    (folder / "one.png").write_bytes(pictures.encode_png(np.array(data.validation.images[30])))
    (folder / "bad.png").write_bytes((folder / "one.png").read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def page(project, tmp_path_factory) -> Iterator[tuple[Page, list[str]]]:
    """The opened page, and what failed in it or left this machine."""
    port = servers.free_port()
    log, address = tmp_path_factory.mktemp("try") / "log", f"http://127.0.0.1:{port}/"
    words = command("--port", str(port), "--weights", str(project / "weights"))
    with servers.started(words, port, log, "/", env=environment()):
        failures: list[str] = []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=_FLAGS)
            opened = browser.new_page(viewport={"width": 1280, "height": 900})
            opened.on("pageerror", lambda error: failures.append(str(error)))
            opened.on(
                "request",
                lambda one: failures.append(one.url) if not one.url.startswith((address, "data:", "blob:")) else None,
            )
            opened.goto(address)
            opened.get_by_text("What do small networks see?").wait_for(timeout=120_000)
            yield opened, failures
            browser.close()


@in_browser
def test_a_chosen_picture_is_classified_by_every_network_and_a_bad_one_is_said(page, project):
    opened, failures = page
    opened.locator("input[type=file]").first.set_input_files(project / "one.png")
    for name in NAMES:
        network = frugalnet.load(name, project / "weights")
        (expected,) = network.predict([project / "one.png"])
        block = opened.locator(".block", has=opened.get_by_text(re.compile(name))).last
        best, probability = expected.top(1)[0]
        block.get_by_text(best).first.wait_for(timeout=60_000)
        assert f"{100 * probability:.0f}%" in block.inner_text()
    for box in opened.get_by_label("Time, and changes").all():
        assert re.fullmatch(r"\d+\.\d\d ms", box.input_value())
    if where := os.environ.get("SCREENSHOTS"):
        opened.screenshot(path=Path(where) / "try.png", full_page=True)

    opened.get_by_label("Remove").or_(opened.get_by_label("Clear")).first.click()
    opened.locator("input[type=file]").first.set_input_files(project / "bad.png")
    opened.get_by_text(re.compile("damaged or truncated|not a picture|cannot")).first.wait_for(timeout=60_000)
    assert failures == []


@in_browser
def test_an_example_of_the_sample_archive_is_classified(page):
    opened, failures = page
    opened.get_by_role("button", name=re.compile("example", re.I)).or_(
        opened.locator("button.gallery-item")
    ).first.click()
    opened.wait_for_function("[...document.querySelectorAll('textarea')].every(t => t.value.includes(' ms'))")
    assert failures == []
