import csv
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import fake_results
import numpy as np
import pytest
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from frugalnet.metrics.statistics import Interval
from frugalnet.report import comparison, page
from frugalnet.report.comparison import Comparison

SHA = "d" * 64


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return fake_results.images()


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Comparison:
    return fake_results.compared(tmp_path_factory.mktemp("sample"), is_sample=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory, sample, images) -> Path:
    out = tmp_path_factory.mktemp("report") / "compare"
    page.write(sample, out, images)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_written(written):
    found = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    assert found == {
        "report.html",
        "report.md",
        "comparison.json",
        "table.csv",
        "table.txt",
        "accuracy.csv",
        "curves.csv",
        "confusion.csv",
        *(f"figures/accuracy_{k}.png" for k in ("parameters_trainable", "macs", "latency_ms", "train_seconds")),
        *(f"figures/curves_{name}.png" for name in ("alexnet", "depthwise", "residual", "together")),
        "figures/confusion_alexnet.png",
    }


def test_the_html_is_one_file_that_loads_nothing(written):
    page = (written / "report.html").read_text()
    ours = page.replace(get_plotlyjs(), "")
    assert len(page) - len(ours) > 1_000_000
    for address in re.findall(r"(?:src|href)=[\"']?([^\"' >]+)", ours):
        assert address.startswith("data:"), address
    assert "http" not in re.sub(r"http://www\.w3\.org\S*", "", ours)
    assert "@import" not in ours


def test_the_sections_stand_in_their_order(written):
    page = (written / "report.html").read_text()
    sections = re.findall(r'<section id="(\w+)"', page)
    assert sections == ["run", "verdict", "table", "cost", "curves", "classes", "confusion", "layers", "claims"]


@pytest.mark.parametrize("file", ["report.html", "report.md"])
def test_sample_data_are_named_on_top_and_real_data_are_not(written, tmp_path, file):
    assert page.SAMPLE_BANNER in (written / file).read_text()[:12_000]
    page.write(fake_results.compared(tmp_path / "real", models=("alexnet",), seeds=(0,)), tmp_path / "out")
    assert page.SAMPLE_BANNER not in (tmp_path / "out" / file).read_text()


def test_class_names_are_data_not_markup(written):
    page, text = (written / "report.html").read_text(), (written / "report.md").read_text()
    assert "&lt;b&gt;bow | tie&lt;/b&gt;" in page
    assert "<b>bow" not in page
    assert "&lt;b&gt;bow \\| tie&lt;/b&gt;" in text
    assert "<b>bow" not in text


def test_a_class_name_cannot_end_the_script_it_stands_in(tmp_path, sample, images):
    names = ["</script><script>alert(1)</script>", *sample.first.class_names[1:]]
    records = {m: [replace(r, class_names=names) for r in group] for m, group in sample.records.items()}
    page.write(replace(sample, records=records), tmp_path / "out", images)
    assert "<script>alert" not in (tmp_path / "out" / "report.html").read_text()


def test_figures_are_json_without_an_end_of_script():
    text = to_json_plotly({"text": "</script>"})
    assert "<" not in text
    assert json.loads(text) == {"text": "</script>"}


def test_every_table_of_the_markdown_twin_is_whole(written):
    lines = (written / "report.md").read_text().split("\n")
    tables = 0
    for before, line, after in zip(lines, lines[1:], [*lines[2:], ""], strict=False):
        if re.fullmatch(r"\|(-+:?\||---\|)+", line):
            tables += 1
            columns = line.count("|")
            assert len(re.findall(r"(?<!\\)\|", before)) == columns
            assert len(re.findall(r"(?<!\\)\|", after)) == columns
    assert tables == 13
    for picture in re.findall(r'src="([^"]+)"', "\n".join(lines)):
        assert (written / picture).is_file()


def test_the_bytes_are_the_same_every_time(written, sample, images, tmp_path):
    page.write(sample, tmp_path / "again", images)
    for path in written.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(written)).read_bytes(), path.name


def test_what_was_not_measured_says_so(tmp_path):
    page.write(fake_results.compared(tmp_path / "r", models=("alexnet", "depthwise"), measured=False), tmp_path / "out")
    assert "not measured" in (tmp_path / "out" / "report.md").read_text()
    assert not (tmp_path / "out" / "figures" / "accuracy_latency_ms.png").exists()
    assert rows(tmp_path / "out" / "table.csv")[0]["latency_ms"] == ""


def test_what_was_measured_stands_beside_the_machine_and_energy_is_never_invented(written):
    text = (written / "report.md").read_text()
    assert "cpu A processor; threads 2" in text
    assert "480 MB" in text
    assert "| 33.3 % |" in text.replace("\u00a0", " ")  # of conv1's time
    first = next(line for line in text.split("\n") if line.startswith("| alexnet |") and "480 MB" in line)
    assert first.endswith("| not measured on this machine | not measured on this machine |")
    assert "n 100)" in text


def test_nothing_is_called_better_or_worse_where_every_interval_spans_zero(tmp_path, sample):
    page.write(sample, tmp_path / "apart")
    assert "alexnet is better than depthwise" in (tmp_path / "apart" / "report.md").read_text()
    even = [replace(d, interval=Interval(0.01, -0.01, 0.03)) for d in sample.differences]
    page.write(replace(sample, differences=even), tmp_path / "even")
    for file in ("report.md", "report.html"):
        text = (tmp_path / "even" / file).read_text().replace(get_plotlyjs(), "")
        assert "cannot be told apart" in text
        assert not re.findall(r"\w+ is better|\w+ is worse|and is worse", text)


def test_one_network_of_one_seed_and_one_epoch_is_enough(tmp_path):
    page.write(fake_results.compared(tmp_path / "r", models=("alexnet",), seeds=(0,), epochs=1, n=40), tmp_path / "out")
    assert "the only network evaluated" in (tmp_path / "out" / "report.md").read_text()


def test_a_network_that_gets_nothing_right_can_be_reported(tmp_path, sample):
    nothing = [replace(r, predicted=(r.labels + 1) % 12) for r in sample.records["alexnet"]]
    nothing = [replace(r, metrics=r.metrics | {"top1": 0.0}) for r in nothing]
    found = comparison.compare([*nothing, *sample.records["residual"]], SHA, "validation split")
    page.write(found, tmp_path / "out")
    assert rows(tmp_path / "out" / "table.csv")[1]["top1"] == "0.0"


def test_accuracy_csv_holds_each_evaluation_and_no_time(written):
    found = rows(written / "accuracy.csv")
    assert [(row["model"], row["seed"]) for row in found][:2] == [("alexnet", "0"), ("alexnet", "1")]
    assert len(found) == 6
    assert not [key for key in found[0] if "second" in key or "latency" in key]


def test_curves_csv_holds_every_epoch(written, sample):
    found = rows(written / "curves.csv")
    assert list(found[0]) == [
        "model", "seed", "epoch", "train_top1", "validation_top1", "train_loss", "validation_loss",
    ]  # fmt: skip
    assert len(found) == 6 * 8
    assert float(found[0]["train_top1"]) == sample.first.history[0]["train_top1"]


@pytest.mark.slow
def test_seven_networks_of_three_seeds_are_reported_within_half_a_minute(tmp_path):
    folders = fake_results.make(
        tmp_path, tuple(fake_results.NETWORKS), seeds=(0, 1, 2), num_classes=200, n=10_000, epochs=30
    )
    images = np.zeros((10_000, 64, 64, 3), dtype=np.uint8)
    start = time.perf_counter()
    found = comparison.compare(comparison.load(*folders), SHA, "validation split")
    page.write(found, tmp_path / "out", images)
    assert time.perf_counter() - start < 30
