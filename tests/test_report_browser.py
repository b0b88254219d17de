"""The report in a real browser: nothing fails, nothing is fetched, nothing is wider than the window."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import fake_results
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from frugalnet.study.report import SAMPLE_BANNER, compose, write_report

_BROWSERS = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser", "chrome")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
EXECUTABLE = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason=f"no browser: none of {', '.join(_BROWSERS)} is on the PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_path(tmp_path_factory) -> Path:
    """Seven networks with long names, measured, on sample data: the widest report."""
    root = tmp_path_factory.mktemp("browser")
    networks = {"models": tuple(fake_results.NETWORKS), "seeds": (0,), "num_classes": 40, "is_sample": True}
    found = fake_results.found(root, fake_results.images(), **networks)
    write_report(compose(found), root / "compare")
    return root / "compare" / "report.html"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_opens_without_error_request_or_horizontal_scroll(browser, page_path, width):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme="light")
    failures: list[str] = []
    page.on("console", lambda m: failures.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("request", lambda r: failures.append(r.url[:200]) if not r.url.startswith(("file:", "data:")) else None)
    page.goto(page_path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_function("[...document.querySelectorAll('.chart')].every(c => c.querySelector('.main-svg'))")
    assert page.locator(".chart").count() == 4 + 7 + 1 + 7 + 2 + 2
    displays = page.locator("table").evaluate_all("tables => tables.map(t => getComputedStyle(t).display)")
    assert set(displays) == {"table"}  # no class of the style sheet is a table's and another element's
    assert page.locator("[role=note]").inner_text() == SAMPLE_BANNER

    # In both schemes, to which page and charts change while they are open.
    background = "getComputedStyle(document.body).backgroundColor"
    tick = "document.querySelector('[data-figure=accuracy_macs] .xtick text').style.fill"
    assert (page.evaluate(background), page.evaluate(tick)) == ("rgb(251, 250, 247)", "rgb(102, 100, 95)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert_names_are_free(page)
    answer = page.locator("#recommendation .answer").bounding_box()
    assert answer
    assert answer["y"] + answer["height"] < 844, "above the fold"
    page.locator("nav a").last.click()
    made = page.locator("#made").bounding_box()
    assert made
    assert 0 <= made["y"] < 844
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{tick} === 'rgb(163, 161, 154)'")
    assert page.evaluate(background) == "rgb(20, 22, 25)"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not failures
    page.close()


def assert_names_are_free(page: Page) -> None:
    """No name of a chart overlaps another; bars are below the names, and hidden by their halo."""
    for chart in page.locator(".chart").all():
        texts = chart.locator(".textpoint text, .annotation-text").all()
        boxes = [((text.text_content() or "").strip(), box) for text in texts if (box := text.bounding_box())]
        for (first, a), (second, b) in itertools.combinations(boxes, 2):
            across = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
            down = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"])
            # Boxes include a blank of 4 pixels at either end, and a line's leading.
            assert across <= 8 or down <= 4, (chart.get_attribute("aria-label"), first, second)
    scatter = page.locator("[data-figure=accuracy_latency_ms] .trace.scatter")
    assert scatter.last.locator(".textpoint").count() == scatter.count() - 2, "all names, after every bar"
    assert scatter.last.locator("text").first.evaluate("e => getComputedStyle(e).strokeWidth") == "4px"


def test_a_chart_names_a_point_and_its_figures_under_the_pointer(browser, page_path):
    page = browser.new_page(viewport={"width": 1280, "height": 1200})
    page.goto(page_path.as_uri())
    point = page.locator("[data-figure=accuracy_macs] .points path").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = page.locator("[data-figure=accuracy_macs] .hoverlayer .hovertext").first.text_content() or ""
    assert "resnet18" in hover
    assert "MACs per image: 560 M" in hover
    page.close()
