"""The committed weights and records are those of today's training code, and the settings in the docs those of conf/."""

import ast
import hashlib
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.utils.hydra import compose_and_dump

from frugalnet import config, models, sources
from frugalnet.comparison import records
from frugalnet.files import read_table, sha256
from frugalnet.paper import claims
from frugalnet.training import recorded

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
TABLE = RESULTS / "sources.json"
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
    architecture = models.parse(run["model"]).architecture
    here = sources.weights_sha256(architecture)
    assert recorded.same_code(architecture, run["source_sha256"], here, RESULTS), (
        f"what decides the weights has changed since {record} was trained: take the change back; or show that the bits "
        "are the same (the recorded bits in test_pipeline.py, and epochs trained again), and add a row to "
        f"docs/results/sources.json that says how, with {here} for {architecture}; or train again and publish anew"
    )


def test_the_table_of_equal_code_says_of_every_row_where_and_how():
    rows = read(TABLE)
    assert all(set(row) == {"commit", "how", "sha256"} and row["how"] for row in rows)
    assert {models.parse(run["model"]).architecture for run in map(read, RESULTS.glob("*/*/run.json"))} <= rows[0][
        "sha256"
    ].keys()


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """The package at the commit of the table's first two rows."""
    folder = tmp_path_factory.mktemp("first")
    commit = read(TABLE)[0]["commit"]
    shown = subprocess.run(["git", "archive", commit, "src/frugalnet"], cwd=ROOT, capture_output=True, check=False)
    if shown.returncode:
        pytest.skip(f"this clone is shallow: it does not hold commit {commit}")
    with tarfile.open(fileobj=io.BytesIO(shown.stdout)) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # since 3.11.4
    return folder / "src/frugalnet"


def test_published_records_name_the_bytes_of_the_first_row(first):
    (names,) = re.findall(r"^SOURCES = (\(.*?^\))", (first / "training/runs.py").read_text(), re.MULTILINE | re.DOTALL)
    for model, expected in read(TABLE)[0]["sha256"].items():
        files = [*ast.literal_eval(names), f"models/{model}.py"]
        assert hashlib.sha256(b"".join((first / file).read_bytes() for file in files)).hexdigest() == expected


def test_the_second_row_is_what_the_same_code_means(first):
    assert read(TABLE)[0]["commit"] == read(TABLE)[1]["commit"]
    left_out = {  # of what training imported then
        *("compute.py", "data/arrays.py", "errors.py", "files.py", "metrics/energy.py", "models/__init__.py"),
        *("processes.py", "schema.py", "training/checkpoint.py"),
    }
    for model, expected in read(TABLE)[1]["sha256"].items():
        code = sources.code_of([first / "training/loop.py", first / f"models/{model}.py"], left_out, first)
        assert sources.sha256_of_all(code) == expected


@pytest.mark.parametrize(("folder", "entry"), STORED, ids=[entry["file"] for _, entry in STORED])
def test_a_stored_network_is_the_one_that_was_trained_and_evaluated(folder, entry):
    name = entry["file"].removesuffix(".safetensors")
    record = RESULTS / entry["recipe"]["recipe"] / name
    run, metrics = read(record / "run.json"), read(record / "metrics.json")
    assert sha256(folder / entry["file"]) == entry["sha256"] == run["weights_sha256"]
    assert entry["top1"] == metrics["top1"]
    assert entry["data_sha256"] == run["data_sha256"]


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_a_records_predictions_give_its_figures(record):
    labels, predicted = records.read_predictions(RESULTS / record / "predictions.npz")
    metrics, rows = read(RESULTS / record / "metrics.json"), read_table(RESULTS / record / "per_class.csv")
    correct = np.bincount(labels[predicted == labels], minlength=len(rows))
    assert (len(labels), correct.sum()) == (metrics["n"], round(metrics["top1"] * metrics["n"]))
    assert correct.tolist() == [int(row["correct"]) for row in rows]


def test_the_studys_report_has_the_claims_that_the_papers_recipe_has_tested():
    modern, paper = (
        [claims.Claim(**one) for one in read(RESULTS / recipe / "comparison.json")["claims"]]
        for recipe in ("modern", "paper")
    )
    assert {one.outcome for one in paper} & {"agrees", "differs", "undecided"}
    assert claims.tested_by(modern, paper) == modern, "publish docs/results/modern again: make results"


@pytest.mark.parametrize("choice", sorted({path.stem for path in (ROOT / "conf/teacher").glob("*.yaml")} - {"none"}))
def test_a_teacher_is_a_network_of_the_study_and_can_be_chosen(choice, tmp_path):
    groups = [f"teacher={choice}", "train=distilled"]
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", groups)
    chosen = config.read_params(tmp_path / "params.yaml").teacher
    recorded = json.loads((RESULTS / "modern" / f"{Path(str(chosen.weights)).stem}/run.json").read_text())
    assert chosen.sha256 == recorded["weights_sha256"]  # large networks' weights are not in git
    stored = ROOT / str(chosen.weights)
    assert stored.parent.name == "data" or sha256(stored) == chosen.sha256


def row(page: str, choice: str) -> str:
    (line,) = [line for line in (ROOT / page).read_text().splitlines() if line.startswith(f"| `{choice}`")]
    return line


@pytest.mark.parametrize("choice", ["demo", "quick", "full"])
def test_the_docs_state_the_settings_of_each_choice(choice, tmp_path):
    groups = [f"robustness={choice}", f"adapt={choice}"]
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", groups)
    params = config.read_params(tmp_path / "params.yaml")
    attack, adapt = params.robustness, params.adapt
    numbers, tries = ", ".join(map(str, attack.pixels)), attack.candidates * (attack.generations + 1)
    cells = [attack.pictures, numbers, f"{attack.candidates} × {attack.generations + 1}", f"{tries:,}"]
    stated = f"| {' | '.join(map(str, cells))} | {attack.corrupted:,} |"
    assert row("docs/robustness.md", choice).endswith(stated)
    epochs = adapt.unseen_epochs if "unseen" in adapt.scenarios else ""
    cells = [", ".join(adapt.scenarios), f"{adapt.draws} × {adapt.classes}", ", ".join(map(str, adapt.pictures))]
    stated = f"| {' | '.join(cells)} | {adapt.steps}, {adapt.scratch_steps:,} | {epochs}".rstrip() + " |"
    assert row("docs/adaptation.md", choice).endswith(stated)
