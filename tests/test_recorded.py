"""A run whose results are committed is copied, not trained again."""

import json
from pathlib import Path

import pytest

from frugalnet import reproduce
from frugalnet.files import sha256, write_json
from frugalnet.models import parse
from frugalnet.run import Run, read_run
from frugalnet.sources import weights_sha256
from frugalnet.training import recorded

ROOT = Path(__file__).parents[1]
RECORD = "docs/results/paper/depthwise-0"


@pytest.fixture
def run() -> Run:
    """The recorded run as `describe` returns it here and now, on the machine of the record."""
    stored = json.loads((ROOT / RECORD / "run.json").read_text(encoding="utf-8"))
    del stored["weights_sha256"]
    stored["train"]["resolutions"] = tuple(stored["train"]["resolutions"])
    return Run(**stored | {"source_sha256": weights_sha256("depthwise"), "fingerprint": "of another code"})


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the committed results, in which a stage could run."""
    for name in ("docs", "weights"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_of_the_same_environment_is_copied_whole_and_says_so(run, project, capsys):
    record = recorded.find_record(run, "same")
    assert record is not None
    record.copy()
    said = capsys.readouterr().out
    assert said.startswith(f"depthwise-0 is copied from {RECORD} (commit ")
    assert "AMD EPYC, AVX512, 1 threads); compute.records=none trains it again" in said
    for name in ("run.json", "history.csv", "timing.json"):
        assert (project / "results/train/depthwise-0" / name).read_bytes() == (ROOT / RECORD / name).read_bytes()
    assert sha256(project / "models/depthwise-0.safetensors") == record.run.weights_sha256


def test_a_run_of_another_environment_is_copied_only_if_any_may_be(run, capsys):
    run = run.changed(environment=run.environment | {"threads": 2})
    assert recorded.find_record(run, "same") is None
    assert f"{RECORD} is this run on another machine (" in capsys.readouterr().out
    record = recorded.find_record(run, "any")
    assert record is not None
    assert record.folder == Path(RECORD)


def test_no_run_is_copied_if_none_may_be(run, capsys):
    assert recorded.find_record(run, "none") is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"views_sha256": "other"},
        {"data_sha256": "other"},
        {"source_sha256": "other"},
        {"teacher": {"model": "alexnet"}},
        {"distributed": {"kind": "ddp"}},
        {"n_train": 99_999},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_run_is_trained(run, change, capsys):
    assert recorded.find_record(run.changed(**change), "any") is None
    assert capsys.readouterr().out == ""


def test_another_recipe_is_trained(run):
    run.train["learning_rate"] *= 2
    assert recorded.find_record(run, "any") is None


def test_a_record_whose_weights_are_not_there_or_are_others_is_no_record(run, project):
    (project / "docs").unlink()
    results = project / RECORD
    results.mkdir(parents=True)
    for name in ("../../sources.json", "run.json"):
        (results / name).write_bytes((ROOT / RECORD / name).read_bytes())
    assert recorded.find_record(run, "any") is None  # weights/ holds depthwise-0 of another recipe
    stored = results.parent / "weights/depthwise-0.safetensors"
    stored.parent.mkdir()
    stored.write_bytes(b"other")
    assert recorded.find_record(run, "any") is None


def test_a_record_of_the_same_code_may_be_trained_again_here(run):
    record = read_run(ROOT / RECORD / "run.json")
    assert record.source_sha256 != run.source_sha256
    assert reproduce.differences(record, run) == ([], [])
    (difference,), _ = reproduce.differences(record.changed(source_sha256="0" * 64), run)
    assert difference.startswith("training code: SHA-256 0000")


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/results/*/*/run.json")), ids=lambda path: path.parent.name)
def test_every_record_is_of_todays_code_for_who_trains_it_again(path):
    record = read_run(path)
    here = record.changed(source_sha256=weights_sha256(parse(record.model).architecture))
    assert reproduce.differences(record, here) == ([], [])


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/results/*/*/run.json")), ids=lambda path: path.parent.name)
def test_a_record_that_is_read_is_written_with_the_same_bytes(path, tmp_path):
    write_json(tmp_path / "run.json", read_run(path).stored())
    assert (tmp_path / "run.json").read_bytes() == path.read_bytes()


def test_what_a_run_does_not_state_is_left_out_and_none_is_a_value(run):
    stored = run.changed(environment={"compiled": None}).stored()
    assert stored["environment"] == {"compiled": None}
    assert not {"start", "side", "distributed", "left_out", "weights_sha256"} & stored.keys()


def test_hashes_mean_the_same_code_only_if_both_stand_in_the_networks_column():
    table = json.loads((ROOT / "docs/results/sources.json").read_text(encoding="utf-8"))
    first, second = (row["sha256"]["depthwise"] for row in table[:2])
    assert recorded.same_code("depthwise", first, second)
    assert recorded.same_code("depthwise", "new", "new")
    assert not recorded.same_code("depthwise", first, "new")
    assert not recorded.same_code("residual", first, second)
