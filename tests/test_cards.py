"""The model cards are what the committed records of the committed weights say."""

import shutil
from pathlib import Path

import fake_results
import pytest
from ruamel.yaml import YAML

from frugalnet.files import read_json, write_json
from frugalnet.use import weights
from tools import networks, publish

ROOT = Path(__file__).parents[1]
STORED = weights.of_folder(ROOT / "weights")


def test_the_committed_cards_are_those_of_the_committed_weights(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/results").symlink_to(ROOT / "docs/results")
    monkeypatch.chdir(tmp_path)
    publish.main(["cards"])
    made = {path.name: path.read_text() for path in (tmp_path / "docs/models").glob("*.md")}
    assert made == {path.name: path.read_text() for path in (ROOT / "docs/models").glob("*.md")}, (
        "run `python -m tools.publish cards`"
    )
    assert made.keys() == {f"{stored.entry.model}.md" for stored in STORED}


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: stored.name)
def test_the_figures_of_a_card_are_those_of_its_own_weights(stored):
    record = networks.record_of(stored, ROOT / "docs/results")
    text = networks.card(stored, record)
    _, front, body = text.split("---\n", 2)
    index = YAML(typ="safe").load(front)["model-index"][0]
    assert index["name"] == f"frugalnet-{stored.entry.model}"
    values = {metric["name"]: metric["value"] for metric in index["results"][0]["metrics"]}
    assert values["top-1"] == pytest.approx(stored.entry.top1, abs=1e-4)
    assert values["top-5"] == pytest.approx(read_json(record / "metrics.json")["top5"], abs=1e-4)
    assert index["results"][0]["dataset"]["name"] == "tiny-imagenet"
    assert f"Weights: `weights/{stored.entry.file}`, seed 0." in body
    assert f"{100 * stored.entry.top1:.2f}\u00a0% (Wilson 95 % interval " in body
    assert "| energy of training | not measured |" in body
    assert "## On a device" in body
    assert ("; learned from " in body) == bool(read_json(record / "run.json").get("teacher"))


def test_the_card_shows_measured_energy_and_the_exported_formats(tmp_path):
    stored = weights.choose_network("depthwise", ROOT / "weights")
    record = shutil.copytree(networks.record_of(stored, ROOT / "docs/results"), tmp_path / "modern/depthwise-0")
    (record / "timing.json").unlink()
    write_json(record / "timing.json", {"epoch_joules": [1000.0, 2000.0]})
    assert "## On a device" not in networks.card(stored, record)
    fake_results.export(record.parent, models=("depthwise",))
    text = networks.card(stored, record)
    assert "| energy of training | 3 kJ |" in text
    assert "| ONNX, int8 | 39.5\u00a0% (−1.0 points (−1.5 to −0.5)) | 7 of 600 | 89.7 kB |" in text
