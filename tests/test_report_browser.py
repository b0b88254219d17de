"""The report in a real browser: nothing fails, nothing is fetched, nothing is wider than the window."""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fake_results
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from frugalnet.comparison.compare import Evidence
from frugalnet.document.blocks import Chooser, Limit
from frugalnet.document.write import write_document
from frugalnet.recommendation import Budget, choose
from frugalnet.study.advice import candidates
from frugalnet.study.findings import Findings, conclude
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
def found(tmp_path_factory) -> Findings:
    """Seven networks with long names, measured, on sample data."""
    networks = {"models": tuple(fake_results.NETWORKS), "seeds": (0,), "num_classes": 40, "is_sample": True}
    return fake_results.found(tmp_path_factory.mktemp("found"), fake_results.images(), **networks)


@pytest.fixture(scope="module")
def page_path(tmp_path_factory, found) -> Path:
    """The widest report."""
    out = tmp_path_factory.mktemp("browser") / "compare"
    write_report(compose(found), out)
    return out / "report.html"


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
    assert -1 < made["y"] < 844  # a browser scrolls by whole pixels
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


SIZES = {"macs": 1e6, "weights_bytes": 1e6, "latency_ms": 1}  # of the fields' units, in their order
FADED = "[...document.querySelectorAll('[data-figure=accuracy_macs] .trace.scatter')].filter(t => t.style.opacity < 1)"


def unfit(page: Page) -> set[str]:
    """The networks whose rows are grey in the first table."""
    return {*page.locator("table").first.locator("tr.unfit th span").all_inner_texts()}


def test_a_budget_is_tried_with_the_keyboard_and_greys_out_rows_and_points(browser, page_path):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(page_path.as_uri())
    page.wait_for_function("document.querySelector('[data-figure=accuracy_macs] .main-svg')")
    status = page.get_by_role("status")
    expect(status).to_contain_text("resnet18 is the most accurate of all 7 networks: 56.0")
    assert page.evaluate(FADED + ".length") == 0

    page.keyboard.press("Tab")
    expect(page.get_by_role("spinbutton", name="MACs per image M")).to_be_focused()
    page.keyboard.type("28")
    expect(status).to_contain_text("alexnet is the most accurate of the 4 of 7 networks that fit: 46.0")
    assert unfit(page) == {"resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"}
    page.wait_for_function(FADED + ".length === 3")
    names = page.locator("[data-figure=accuracy_macs] .textpoint text")
    grey = names.evaluate_all(
        "all => all.filter(one => one.style.fill === 'rgb(128, 128, 128)').map(one => one.textContent)"
    )
    assert {name.strip() for name in grey} == unfit(page)
    row = page.get_by_role("row", name="resnet18").first
    assert "over the limit" in row.locator("th").evaluate("head => getComputedStyle(head, '::after').content")
    page.keyboard.press("ArrowDown")
    expect(status).to_contain_text("squeezenet1_1 is the most accurate of the 3 of 7 networks that fit: ")
    page.keyboard.press("Enter")  # submits nothing
    page.keyboard.press("Tab")
    expect(page.get_by_role("spinbutton", name="Weights MB")).to_be_focused()
    page.keyboard.type("0.1")
    expect(status).to_contain_text("No network fits. The closest is residual: Weights 0.299 MB.")
    page.keyboard.type("-")
    expect(status).to_contain_text("Weights: ")  # and what the browser says of it, in the reader's language
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    for name in ("MACs per image", "Weights"):
        page.get_by_role("spinbutton", name=name).fill("")
    assert unfit(page) == set()
    page.wait_for_function(FADED + ".length === 0")
    page.close()


def test_curves_of_several_widths_fit_and_grey_out(browser, tmp_path):
    models = ("alexnet", "depthwise", *(name for name in fake_results.WIDTHS if name != "residual_x2"))
    findings = conclude(Evidence(fake_results.comparison(tmp_path, models=models, seeds=(0,))))
    write_report(compose(findings), tmp_path / "compare")
    page = browser.new_page(viewport={"width": 390, "height": 844})
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto((tmp_path / "compare/report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_function("[...document.querySelectorAll('.chart')].every(c => c.querySelector('.main-svg'))")
    assert page.locator("#equal_cost .chart").count() == 2
    assert_names_are_free(page)
    page.get_by_role("spinbutton", name="MACs per image").fill("4.3")
    expect(page.get_by_role("status")).to_contain_text("of the 4 of 8 networks that fit: ")
    grey = page.locator("[data-figure=equal_macs] .textpoint text").evaluate_all(
        "all => all.filter(one => one.style.fill === 'rgb(128, 128, 128)').map(one => one.textContent.trim())"
    )
    assert {*grey} == {"alexnet ×1", "×0.5", "×2", "depthwise ×3"}
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not failures
    page.close()


TRY = """budgets => budgets.map(budget => {
  chooser.querySelectorAll("input").forEach((field, i) => { field.value = budget[i] ?? "" });
  choose();
  return [chooser.querySelector("output").textContent, [...unfit.keys()]];
})"""


def test_the_page_names_the_network_that_the_rule_names(browser, page_path, found):
    page = browser.new_page()
    page.goto(page_path.as_uri())
    networks = candidates(found.evidence)
    costs = [[getattr(network, cost) for network in networks] for cost in SIZES]
    budgets = [*itertools.product(*([None, 0.9 * min(values), *values[::2]] for values in costs))]
    shown = [[limit and limit / size for limit, size in zip(each, SIZES.values(), strict=True)] for each in budgets]
    nothing = 0
    for limits, (said, unfit) in zip(budgets, page.evaluate(TRY, shown), strict=True):
        choice = choose(networks, Budget(**dict(zip(SIZES, limits, strict=True))))
        if choice.fitting:
            assert said.startswith((f"{choice.fitting[0].name} is ", f"Only {choice.fitting[0].name} fits"))
        else:
            assert choice.closest
            assert said.startswith(f"No network fits. The closest is {choice.closest.name}: ")
            nothing += 1
        assert {*unfit} == {network.name for network in networks if network not in choice.fitting}
    assert 0 < nothing < len(budgets) / 2
    page.close()


def test_the_page_begins_with_the_budget_and_its_texts_are_no_markup(browser, tmp_path, found):
    evil = "</script><img src=x onerror=alert(1)>"
    limits = [Limit("Weights", "kB", [3, 2, None], most=2.5), Limit(evil, evil, [1, 1, 1])]
    chooser = Chooser(["first", evil, "third"], ["a", evil, "c"], limits)
    write_document(replace(compose(found).document, chooser=chooser, sections=(), attached=()), tmp_path)
    page = browser.new_page(viewport={"width": 390, "height": 844})
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto((tmp_path / "report.html").as_uri())
    expect(page.get_by_role("status")).to_have_text(f"Only {evil} fits: {evil}.")
    expect(page.get_by_role("spinbutton", name="Weights")).to_have_value("2.5")
    page.get_by_role("spinbutton", name="Weights").fill("1")
    expect(page.get_by_role("status")).to_have_text(f"No network fits. The closest is {evil}: Weights 2 kB.")
    page.get_by_role("spinbutton", name=evil).fill("0")
    expect(page.get_by_role("status")).to_have_text(
        f"No network fits. The closest is first: Weights 3 kB, {evil} 1 {evil}."
    )
    assert not dialogs
    assert page.locator("img").count() == 0
    page.close()
