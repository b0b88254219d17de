"""The server's pages in a real browser: by mouse, keyboard, clipboard and camera, in both schemes and widths."""

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path

import networks
import numpy as np
import pytest
import servers
from playwright.sync_api import Browser, Page, expect, sync_playwright
from test_report_browser import _FLAGS, EXECUTABLE

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="no browser is on the PATH")
_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
MARK_UP = "<img src=x onerror=document.title='run'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=[*_FLAGS, *_CAMERA])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("examples")
    paths = [folder / name / "one.png" for name in ("red", MARK_UP.replace("/", ""))]
    for path, colour in zip(paths, ((250, 10, 10), (10, 10, 250)), strict=True):
        path.parent.mkdir()
        path.write_bytes(networks.png(colour))
    return paths


@pytest.fixture(scope="module")
def server(examples) -> Iterator[str]:
    unsure = networks.network("even-1", run=lambda pixels: np.zeros((len(pixels), 3), np.float32))
    named = networks.network("marked-0", names=["red", "green", MARK_UP])
    with servers.in_this_process([networks.network(), named, unsure], examples) as url:
        yield url


@pytest.fixture
def page(browser, server, request) -> Iterator[Page]:
    """The opened page. Nothing may fail in it, and nothing may be asked of another machine."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    failures: list[str] = []
    page.on("console", lambda m: failures.append(f"{m.type}: {m.text}") if "422" not in m.text else None)
    page.on("pageerror", lambda error: failures.append(str(error)))
    own = (f"{server}/", "data:", f"blob:{server}")
    page.on("request", lambda r: None if r.url.startswith(own) else failures.append(r.url))
    page.goto(server)
    page.get_by_role("article", name="colours-0").wait_for()
    yield page
    assert failures == []
    context.close()


def said(page: Page, network: str) -> str:
    return re.sub(r"\n+", "\n", page.get_by_role("article", name=network, exact=True).inner_text())


def choose(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)


@pytest.mark.parametrize("page", [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")], indirect=True)
def test_a_chosen_picture_is_classified_by_every_network(page, examples, request):
    choose(page, examples[0])
    page.get_by_text("2 of 3 networks say red. 1 is not sure.").wait_for()
    assert said(page, "colours-0").splitlines()[1:4] == ["red", "red", "96 %"]
    assert "Not sure: perhaps red" in said(page, "even-1")
    assert said(page, "colours-0").endswith(" ms")
    for image in page.locator("#preview, #input").all():
        assert image.evaluate("image => image.complete && image.naturalWidth") == 64
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    if where := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(where) / f"{request.node.callspec.id}.png", full_page=True)


def test_text_and_background_differ_enough_in_both_schemes(browser, server):
    """WCAG's contrast of at least 4.5 to 1, of every piece of text against what is behind it."""
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(server)
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": networks.png()})
        page.get_by_text("is not sure").wait_for()
        low = page.evaluate(_LOW_CONTRAST)
        assert low == []
        page.close()


_LOW_CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parse(colour).map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (parse(colour)[3] !== 0) return colour;
    }
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(`${node.textContent}: ${(a + 0.05) / (b + 0.05)}`);
  }
  return low;
}"""


def test_class_names_are_text_and_never_mark_up(page, examples):
    choose(page, examples[1])
    page.get_by_text("1 is not sure").wait_for()
    assert MARK_UP in said(page, "marked-0")
    page.locator("summary", has_text="marked-0").click()
    assert page.locator("#known li", has_text=MARK_UP).is_visible()
    assert page.locator("#examples button").last.inner_text() == MARK_UP.replace("/", "")
    assert page.title() != "run"
    assert page.locator("img[src=x]").count() == 0


def test_a_name_that_came_into_the_page_as_mark_up_would_not_run_either(browser, server):
    page = browser.new_page()
    page.goto(server)
    refused = page.evaluate(
        """() => new Promise((done) => {
          document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
          document.body.insertAdjacentHTML("beforeend", "<img src='/nix' onerror='document.title = 1'>");
        })"""
    )
    assert (refused, page.title()) == ("script-src-attr", "frugalnet: what do small networks see?")
    page.close()


def test_what_is_no_picture_is_said_and_the_next_one_is_classified(page, examples, tmp_path):
    (tmp_path / "notes.png").write_text("text")
    choose(page, tmp_path / "notes.png")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "not a picture; expected one of: BMP" in alert.inner_text()
    choose(page, examples[0])
    page.get_by_text("say red").wait_for()
    assert not alert.is_visible()


_DATA = """(base64) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "given.png", { type: "image/png" }));
  return data;
}"""


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page, how):
    data = page.evaluate_handle(_DATA, base64.b64encode(networks.png()).decode())
    if how == "drop":
        page.dispatch_event("body", "dragover", {"dataTransfer": data})
        assert "over" in page.locator("#drop").get_attribute("class")
        page.dispatch_event("body", "drop", {"dataTransfer": data})
    else:
        page.evaluate("data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))", data)
    page.get_by_text("say red").wait_for()
    assert page.locator("#preview").get_attribute("alt") == "given.png"


def test_a_photo_is_taken_with_the_keyboard(page):
    page.get_by_role("button", name="Take a photo").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Take a photo")).to_be_visible()
    expect(page.locator("video")).to_have_js_property("readyState", 4)
    page.keyboard.press("Enter")  # on the dialog's first button
    expect(page.locator("#preview")).to_have_js_property("naturalWidth", 640)
    assert not page.get_by_role("dialog").is_visible()
    assert page.evaluate("document.querySelector('video').srcObject.active") is False  # the camera is off


def test_an_example_is_reached_and_chosen_with_the_keyboard(page):
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.innerText"))
    assert reached[:3] == ["Choose a file", "Take a photo", "red"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_text("say red").wait_for()


def test_a_screen_reader_is_told_the_answer(page, examples):
    choose(page, examples[0])
    page.get_by_role("status").filter(has_text="2 of 3 networks say red").wait_for()
    assert page.get_by_role("img", name="one.png").is_visible()
    for button in page.get_by_role("button").all():
        assert button.inner_text()


def test_a_server_that_has_ended_is_said(browser, examples):
    page = browser.new_page()
    with servers.in_this_process([networks.network()]) as url:
        page.goto(url)
        page.get_by_role("article").wait_for()
        choose(page, examples[0])
        page.get_by_text("It says red.").wait_for()
    choose(page, examples[0])
    page.get_by_text("The server does not answer.").wait_for()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_documentation_of_the_api_opens_without_other_machines(browser, server, scheme):
    page = browser.new_page(color_scheme=scheme)
    failures: list[str] = []
    page.on("console", lambda message: failures.append(message.text))
    page.on("request", lambda r: None if r.url.startswith((f"{server}/", "data:")) else failures.append(r.url))
    page.goto(f"{server}/docs")
    page.get_by_text("/predict", exact=True).click()
    page.get_by_text("Name what is in pictures.").wait_for()
    assert failures == []
    page.close()
