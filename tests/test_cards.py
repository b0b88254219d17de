"""The model cards are what the committed results say."""

from pathlib import Path

import fake_results
import pytest
from ruamel.yaml import YAML

from frugalnet.files import read_json
from frugalnet.use import weights
from tools import cards

ROOT = Path(__file__).parents[1]
FIGURES = read_json(ROOT / "docs/results/comparison.json")


def test_the_committed_cards_are_those_of_the_committed_results(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "RESULTS", ROOT / "docs/results")
    monkeypatch.setattr(cards, "CARDS", tmp_path / "models")
    cards.main()
    made = {path.name: path.read_text() for path in (tmp_path / "models").glob("*.md")}
    assert made == {path.name: path.read_text() for path in (ROOT / "docs/models").glob("*.md")}, "run `make readme`"
    assert made.keys() == {f"{network['model']}.md" for network in FIGURES["networks"]}


@pytest.mark.parametrize("network", FIGURES["networks"], ids=lambda network: network["model"])
def test_the_front_matter_is_yaml_with_the_figures(network, tmp_path):
    text = cards.card(network, FIGURES, tmp_path, None)
    _, front, body = text.split("---\n", 2)
    index = YAML(typ="safe").load(front)["model-index"][0]
    assert index["name"] == f"frugalnet-{network['model']}"
    values = {metric["name"]: metric["value"] for metric in index["results"][0]["metrics"]}
    assert values["top-1"] == pytest.approx(network["top1"]["mean"], abs=1e-4)
    assert index["results"][0]["dataset"]["name"] == "tiny-imagenet"
    assert "`weights/` does not hold this network" in body
    assert "| energy | not measured |" in body
    assert "## On a device" not in body


def test_the_card_names_the_weights_and_the_formats(tmp_path):
    (network,) = [one for one in FIGURES["networks"] if one["model"] == "depthwise"]
    stored = weights.choose("depthwise", ROOT / "weights")
    fake_results.export(tmp_path, models=("depthwise",))
    text = cards.card(network, FIGURES, tmp_path, stored)
    assert (
        f"Weights: `weights/depthwise-0.safetensors`, seed 0, {stored.entry.top1:.2%}".replace("%", "\u00a0%") in text
    )
    assert "| ONNX, int8 | 39.5\u00a0% (−1.0 points (−1.5 to −0.5)) | 7 of 600 | 89.7 kB |" in text
