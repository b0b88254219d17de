"""The report's section "On a device"."""

from pathlib import Path

import fake_results
import pytest

from frugalnet.export import section as device


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def compared(root):
    compared = fake_results.compared(root)
    fake_results.export(root, models=("alexnet",), loss=1.0)
    fake_results.export(root, models=("depthwise",), loss=3.0)
    return compared


def row(table, model: str, kind: str) -> list[tuple[str, tuple[str, ...]]]:
    (found,) = [row for row in table.rows if (row[0].text, row[1].text) == (model, kind)]
    return [(cell.text.replace("\u00a0", " "), cell.below) for cell in found]


def test_every_format_has_its_accuracy_bytes_latency_and_memory(root, compared):
    (section,) = device.sections(compared.rows, root)
    table, note, chart, *_ = section.blocks
    assert len(table.rows) == 2 * 4
    assert row(table, "alexnet", "ONNX, int8")[2:] == [
        ("45.0 %", ("−1.0 points (−1.5 to −0.5)",)),
        ("7 of 600", ()),
        ("498.8 kB", ()),
        ("0.933 ms", ("0.700 to 1.400 ms", "n\u00a0100")),
        ("61.3 MB", ()),
    ]
    assert row(table, "depthwise", "ONNX, int8")[2][1][1] == "not registered: loses more than 2 points"
    assert row(table, "depthwise", "ExecuTorch")[6] == ("61.3 MB", ("arena 61.5 kB",))
    assert row(table, "depthwise", "PyTorch")[3] == ("–", ())
    assert "Seeds: alexnet 0, depthwise 0." in note
    assert "1,000 training images" in note
    names = {point.name: (point.x, round(point.y, 1), point.filled) for point in chart.points}
    assert names == {
        "alexnet": (1_662_624.0, 46.0, True),
        "alexnet int8": (498_787.0, 45.0, True),
        "depthwise": (299_040.0, 40.5, True),
        "depthwise int8": (89_712.0, 37.5, True),
    }


def test_html_and_markdown_show_it_and_text_from_data_is_no_markup(root, compared, tmp_path):
    page.write(findings.find(compared), tmp_path / "compare", None, device.sections(compared.rows, root))
    html = (tmp_path / "compare/report.html").read_text()
    assert '<section id="device">' in html
    assert 'data-figure="accuracy_bytes"' in html
    assert fake_results.MARKUP[1] not in html
    markdown = (tmp_path / "compare/report.md").read_text()
    assert "## On a device" in markdown
    assert "&lt;b&gt;bow \\| tie&lt;/b&gt;" in markdown
    assert '<img src="figures/accuracy_bytes.png"' in markdown
    assert (tmp_path / "compare/figures/accuracy_bytes.png").stat().st_size > 10_000


def test_without_exports_there_is_no_section_and_one_that_was_not_measured_is_left_out(compared, root, tmp_path):
    assert device.sections(compared.rows, tmp_path) == []
    fake_results.export(tmp_path)
    (tmp_path / "export_timing/alexnet-0/timing.json").unlink()
    assert [one.model for one in device.load(compared.rows, tmp_path)] == ["depthwise"]
