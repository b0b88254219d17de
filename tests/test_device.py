"""The report's section "On a device"."""

from pathlib import Path

import fake_results
import pytest

from frugalnet.comparison.compare import Comparison, compare
from frugalnet.comparison.records import read_records
from frugalnet.document.blocks import Document
from frugalnet.document.charts import colours
from frugalnet.document.write import write_document
from frugalnet.errors import UserError
from frugalnet.export import section as export
from frugalnet.metrics.statistics import Interval


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = fake_results.make(tmp_path_factory.mktemp("results"))
    fake_results.export(root, models=("alexnet",), loss=1.0)
    fake_results.export(root, models=("depthwise",), loss=3.0)
    return root


@pytest.fixture(scope="module")
def comparison(root) -> Comparison:
    return compare(read_records(root), "d" * 64, "validation split")


@pytest.fixture(scope="module")
def result(root, comparison) -> export.Result:
    result = export.load(root, comparison)
    assert result is not None
    return result


def row(table, model: str, kind: str) -> list[tuple[str, tuple[str, ...]]]:
    (cells,) = [row for row in table.rows if (row[0].text, row[1].text) == (model, kind)]
    return [(cell.text.replace("\u00a0", " "), cell.below) for cell in cells]


def test_every_format_has_its_accuracy_bytes_latency_and_memory(result, comparison):
    table, note, chart, *_ = export.section(result, comparison).blocks
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
    points = {point.name: (point.x, round(point.y, 1), point.filled) for point in chart.points}
    assert points == {
        "alexnet": (1_662_624.0, 46.0, True),
        "alexnet int8": (498_787.0, 45.0, True),
        "depthwise": (299_040.0, 40.5, True),
        "depthwise int8": (89_712.0, 37.5, True),
    }


def test_a_file_for_microcontrollers_is_shown_with_its_arena_and_judged(result):
    (network,) = [network for network in result.networks if network.model == "alexnet"]
    lossy = network.result.formats["int8"].model_copy(update={"loss_points": Interval(2.5, 2.0, 3.0)})
    formats = {**network.result.formats, "tflite": lossy}
    cost = network.costs.formats["executorch"].model_copy(update={"arena_bytes": 73_728})
    result = network.result.model_copy(update={"formats": formats})
    costs = network.costs.model_copy(update={"formats": {**network.costs.formats, "tflite": cost}})
    micro = network.model_copy(update={"result": result, "costs": costs})
    cells = row(export.table([micro]), "alexnet", "TFLite, int8")
    assert cells[2][1] == ("−2.5 points (−3.0 to −2.0)", "not registered: loses more than 2 points")
    assert cells[6][1] == ("arena 73.7 kB",)
    assert "TensorFlow Lite Micro" in export.note([micro])
    assert "TensorFlow Lite Micro" not in export.note([network])


def test_the_summary_has_accuracy_bytes_and_the_loss_of_int8_and_no_time(result, comparison):
    summary = export.summary(result, comparison)
    assert list(summary) == ["alexnet", "depthwise"]
    assert summary["depthwise"]["top1"]["int8"] == pytest.approx(0.375)
    assert summary["depthwise"]["bytes"]["onnx"] == 299_040
    assert summary["depthwise"]["int8_loss_points"] == {"estimate": 3.0, "low": 2.5, "high": 3.5}
    assert "_ms" not in str(summary)


def test_html_and_markdown_show_it_and_text_from_data_is_no_markup(result, comparison, tmp_path):
    section = export.section(result, comparison)
    document = Document(
        title="Formats",
        scope="",
        answer=[],
        chart=section.blocks[2],
        chooser=None,
        terms="",
        sections=[section],
        facts={},
        notes=[],
        colours=colours(row.model for row in comparison.rows),
        open_fold="",
    )
    write_document(document, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert '<section id="device">' in html
    assert 'data-figure="accuracy_bytes"' in html
    assert fake_results.MARKUP[1] not in html
    markdown = (tmp_path / "report.md").read_text()
    assert "## On a device" in markdown
    assert "&lt;b&gt;bow \\| tie&lt;/b&gt;" in markdown
    assert '<img src="figures/accuracy_bytes.png"' in markdown
    assert (tmp_path / "figures/accuracy_bytes.png").stat().st_size > 10_000


def test_without_exports_there_is_no_section_and_one_that_was_not_measured_is_left_out(comparison, tmp_path):
    assert export.load(tmp_path, comparison) is None
    fake_results.export(tmp_path)
    (tmp_path / "export_timing/alexnet-0/timing.json").unlink()
    result = export.load(tmp_path, comparison)
    assert [network.model for network in result.networks] == ["depthwise"]


def test_a_damaged_record_is_named(comparison, tmp_path):
    fake_results.export(tmp_path)
    path = tmp_path / "export/alexnet-0/export.json"
    path.write_text(path.read_text().replace('"top1"', '"top_1"'))
    with pytest.raises(UserError, match=r"export/alexnet-0/export\.json: missing or damaged"):
        export.load(tmp_path, comparison)
