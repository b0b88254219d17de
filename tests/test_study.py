"""The committed weights and records are those of today's training code, and the settings in the docs those of conf/."""

import json
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import compose_and_dump

from frugalnet import config
from frugalnet.files import sha256
from frugalnet.report import claims
from frugalnet.training.runs import source_sha256

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
RECORDS = sorted(path.parent.relative_to(RESULTS) for path in RESULTS.glob("*/*/run.json"))
STORED = [
    (path.parent, entry)
    for path in (ROOT / "weights/weights.json", *sorted(RESULTS.glob("*/weights/weights.json")))
    for entry in json.loads(path.read_text(encoding="utf-8"))["networks"]
]


def test_there_are_records_and_weights():
    assert len(RECORDS) >= len(STORED) >= 3


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_todays_code_is_what_a_recorded_run_was_trained_by(record):
    run = read(RESULTS / record / "run.json")
    assert run["source_sha256"] == source_sha256(run["model"]), (
        f"what decides the weights (SOURCES in training/runs.py, or the architecture's file) has changed since "
        f"{record} was trained: take the change back, or train again, with `dvc repro`, and replace weights/ and "
        "docs/results/"
    )


@pytest.mark.parametrize(("folder", "entry"), STORED, ids=[entry["file"] for _, entry in STORED])
def test_a_stored_network_is_the_one_that_was_trained_and_evaluated(folder, entry):
    name = entry["file"].removesuffix(".safetensors")
    record = RESULTS / entry["recipe"]["recipe"] / name
    run, metrics = read(record / "run.json"), read(record / "metrics.json")
    assert sha256(folder / entry["file"]) == entry["sha256"] == run["weights_sha256"]
    assert entry["top1"] == metrics["top1"]
    assert entry["data_sha256"] == run["data_sha256"]


def test_the_studys_report_has_the_claims_that_the_papers_recipe_has_tested():
    modern, paper = (
        [claims.Claim(**one) for one in read(RESULTS / recipe / "comparison.json")["claims"]]
        for recipe in ("modern", "paper")
    )
    assert {one.outcome for one in paper} & {"agrees", "differs", "undecided"}
    assert claims.tested_by(modern, paper) == modern, "publish docs/results/modern again: python -m tools.results"


@pytest.mark.parametrize("choice", sorted({path.stem for path in (ROOT / "conf/teacher").glob("*.yaml")} - {"none"}))
def test_a_teacher_is_a_stored_network_and_can_be_chosen(choice, tmp_path):
    groups = [f"teacher={choice}", "train=distilled"]
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", groups)
    chosen = config.load(tmp_path / "params.yaml").teacher
    assert chosen.sha256 == sha256(ROOT / str(chosen.weights))


def row(page: str, choice: str) -> str:
    (line,) = [line for line in (ROOT / page).read_text().splitlines() if line.startswith(f"| `{choice}`")]
    return line


@pytest.mark.parametrize("choice", ["demo", "quick", "full"])
def test_the_docs_state_the_settings_of_each_choice(choice, tmp_path):
    groups = [f"robustness={choice}", f"adapt={choice}"]
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", groups)
    params = config.load(tmp_path / "params.yaml")
    attack, adapt = params.robustness, params.adapt
    numbers, tries = ", ".join(map(str, attack.pixels)), attack.candidates * (attack.generations + 1)
    cells = [attack.pictures, numbers, f"{attack.candidates} × {attack.generations + 1}", f"{tries:,}"]
    stated = f"| {' | '.join(map(str, cells))} | {attack.corrupted:,} |"
    assert row("docs/robustness.md", choice).endswith(stated)
    epochs = adapt.unseen_epochs if "unseen" in adapt.scenarios else ""
    cells = [", ".join(adapt.scenarios), f"{adapt.draws} × {adapt.classes}", ", ".join(map(str, adapt.pictures))]
    stated = f"| {' | '.join(cells)} | {adapt.steps}, {adapt.scratch_steps:,} | {epochs}".rstrip() + " |"
    assert row("docs/adaptation.md", choice).endswith(stated)
