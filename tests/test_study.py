"""The committed weights and records are those of today's training code, and the settings in the docs those of conf/."""

import hashlib
import json
import shutil
import subprocess
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.repo import Repo
from dvc.utils.hydra import compose_and_dump
from ruamel.yaml import YAML

from frugalnet import config
from frugalnet.comparison import records
from frugalnet.errors import UserError
from frugalnet.files import read_table, sha256
from frugalnet.paper import claims
from frugalnet.training.runs import source_sha256
from tools import restore

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


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


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


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_a_records_predictions_give_its_figures(record):
    labels, predicted = records.predictions(RESULTS / record / "predictions.npz")
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
    assert claims.tested_by(modern, paper) == modern, "publish docs/results/modern again: python -m tools.results"


@pytest.mark.parametrize("choice", sorted({path.stem for path in (ROOT / "conf/teacher").glob("*.yaml")} - {"none"}))
def test_a_teacher_is_a_network_of_the_study_and_can_be_chosen(choice, tmp_path):
    groups = [f"teacher={choice}", "train=distilled"]
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", groups)
    chosen = config.load(tmp_path / "params.yaml").teacher
    recorded = json.loads((RESULTS / "modern" / f"{Path(str(chosen.weights)).stem}/run.json").read_text())
    assert chosen.sha256 == recorded["weights_sha256"]  # large networks' weights are not in git
    stored = ROOT / str(chosen.weights)
    assert stored.parent.name == "data" or sha256(stored) == chosen.sha256


@pytest.fixture(scope="module")
def study_lock() -> str:
    """The committed dvc.lock: the file itself is also written by `dvc repro`."""
    shown = subprocess.run(["git", "show", "HEAD:./dvc.lock"], cwd=ROOT, capture_output=True, text=True)
    text = (ROOT / "dvc.lock").read_text() if shown.returncode else shown.stdout
    if "normalise" in YAML(typ="safe").load(text)["stages"]:  # only the stages that train are the study's
        pytest.skip("the committed dvc.lock is of your runs, no longer of the study's")
    return text


def test_dvc_lock_names_todays_code_and_the_files_that_it_made(tmp_path, study_lock):
    lock = YAML(typ="safe").load(study_lock)["stages"]
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", ["compute.threads=1"])
    params = YAML(typ="safe").load(tmp_path / "params.yaml")
    names = [path.parent.name for path in sorted((RESULTS / "modern").glob("*/run.json"))]
    runs = [name for name in names if name.rsplit("-", 1)[0] in params["model"]["names"]]  # not those of model=zoo
    assert sorted(lock) == ["augment", "teach", *(f"train@{name}" for name in runs)]
    for name in runs:
        stage = lock[f"train@{name}"]
        code = [one for one in stage["deps"] if not one["path"].startswith("data/")]
        assert len(code) > 10
        changed = [one["path"] for one in code if md5(ROOT / one["path"]) != one["md5"]]
        assert not changed, (
            "dvc.lock was made by other code: train again and commit its stages augment, teach and train"
        )
        for key, value in stage["params"]["params.yaml"].items():
            assert value == reduce(dict.__getitem__, key.split("."), params), key
        for one in stage["outs"]:
            assert one["md5"] == md5(restore.committed(Path(one["path"]), ROOT))


def test_restored_runs_come_from_dvcs_cache(tmp_path, capsys, monkeypatch, study_lock):
    for folder in ("weights", "docs/results/modern"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / ".dvc").mkdir()
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config"):
        shutil.copy(ROOT / name, tmp_path / name)
    others = "  train@tiny-0: {cmd: x, outs: [{path: models/tiny-0.safetensors, md5: f00}]}\n  without_outs: {cmd: x}\n"
    (tmp_path / "dvc.lock").write_text(study_lock + others)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    restore.main()
    restored = capsys.readouterr().out.splitlines()
    assert {"train@depthwise-0: 4 files", "train@residual-2: 4 files"} <= {*restored}
    assert "train@tiny-0: left out, not committed here" in restored
    with Repo() as repo:
        repo.checkout("train@depthwise-0")
    assert sha256(tmp_path / "models/depthwise-0.safetensors") == sha256(ROOT / "weights/depthwise-0.safetensors")
    assert (tmp_path / "results/train/depthwise-0/history.csv").is_file()
    (tmp_path / "weights/residual-0.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"weights/residual-0\.safetensors: not the file that dvc\.lock lists"):
        restore.main()


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
