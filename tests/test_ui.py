"""The page that `make ui` prints, from a real server in a real browser: the project's saved view of MLflow's UI."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import servers
from playwright.sync_api import sync_playwright
from test_report_browser import _FLAGS, EXECUTABLE
from test_tracking import ROWS, RUN

from frugalnet import tracking
from frugalnet.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(EXECUTABLE is None, reason="no browser on the PATH")]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def page_of_two_trainings(tmp_path) -> Iterator[str]:
    """What tools.ui prints, with the server that it became."""
    for model, top1 in (("depthwise", 0.25), ("residual", 0.5)):
        with tracking.training_run(tmp_path, Run(**RUN | {"model": model, "fingerprint": model}), {}) as tracked:
            tracked.log_history([{**row, "train_top1": 0.1, "validation_loss": 1.0} for row in ROWS])
            tracked.log_results({"final/top1": top1, "final/macs": 1e6, "efficiency/latency_ms": 1.5})
    port = servers.free_port()
    paths = os.pathsep.join(map(str, (ROOT / "src", ROOT)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"PORT": str(port), "PYTHONPATH": paths, "MLFLOW_DISABLE_TELEMETRY": "true"}
    browser = tmp_path / "browser"  # what OPEN=1 calls with the page's address
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n', encoding="utf-8")
    browser.chmod(0o755)
    environment |= {"OPEN": "1", "BROWSER": str(browser)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with subprocess.Popen(
        [sys.executable, "-m", "tools.ui"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as server:
        address = server.stdout.readline().removeprefix("Training runs: ").strip()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        yield address
        os.killpg(server.pid, signal.SIGKILL)


def test_open_opens_the_page_once_the_server_answers(page_of_two_trainings, tmp_path):
    deadline = time.monotonic() + 60
    while not (tmp_path / "opened").is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (tmp_path / "opened").read_text(encoding="utf-8").strip() == page_of_two_trainings


def test_the_page_shows_the_best_training_first_its_columns_and_the_charts_in_order(page_of_two_trainings):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=_FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1600})
        page.goto(page_of_two_trainings)
        page.wait_for_selector("h4:has-text('curves/train_loss')", timeout=60_000)
        titles = [title.inner_text() for title in page.query_selector_all("h4")]
        assert titles[:3] == ["curves/validation_top1", "curves/train_top1", "curves/validation_loss"]
        assert not any("learning_rate" in title for title in titles)
        page.goto(page_of_two_trainings.replace("&compareRunsMode=CHART", ""))
        page.reload()
        page.wait_for_selector("text=efficiency/latency_ms", timeout=60_000)
        text = page.inner_text("body")
        assert "final/top1" in text
        assert "final/macs" in text
        assert text.index("residual · 3 epochs demo · seed 0 · sample data") < text.index("depthwise · 3 epochs demo")
        browser.close()
