"""An experiment is one folder and one line: what the report shows of it, and what it costs to import."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import fake_results
import pytest

from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.experiment import Experiment
from frugalnet.document.blocks import Section
from frugalnet.files import read_record, sha256_of, write_json
from frugalnet.robustness.result import RobustnessResult, write_result
from frugalnet.schema import Config
from frugalnet.study import experiments, findings
from frugalnet.study import report as reports
from frugalnet.study.experiments import EXPERIMENTS, gather
from frugalnet.study.findings import conclude
from frugalnet.study.report import compose

ROOT = Path(__file__).parents[1]


class Counted(Config):
    """What the experiment of this test measures."""

    pictures: int


def load(results: Path, comparison: Comparison) -> Counted | None:
    return read_record(results / "counting.json", Counted)


def section(result: Counted, comparison: Comparison) -> Section:
    return Section("counting", "Counting", [f"{comparison.first.model} was shown {result.pictures} pictures."])


def summary(result: Counted, comparison: Comparison) -> dict[str, Any]:
    return result.model_dump()


COUNTING = Experiment(
    id="counting",
    title="Counting",
    choice="counting=quick",
    result=Counted,
    load=load,
    section=section,
    summary=summary,
)


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Composes the report of one network, with what the new experiment measured."""
    for module in (experiments, findings, reports):
        monkeypatch.setattr(module, "EXPERIMENTS", (*EXPERIMENTS, COUNTING))
    data = fake_results.dataset(fake_results.images())
    one = {"models": ("alexnet",), "seeds": (0,), "data_sha256": sha256_of(data.sha256)}
    results = fake_results.make(tmp_path / "results", **one)
    write_result(fake_results.robustness(["alexnet"]), results)

    def composed(counted: dict[str, int] | None):
        write_json(results / "counting.json", counted)
        return compose(conclude(gather(results, data)))

    return composed


def test_a_new_experiment_is_in_the_report_and_in_its_figures(report):
    shown = report({"pictures": 7})
    *others, robustness, counting = shown.document.sections
    assert (robustness.id, counting.id) == ("robustness", "counting")
    assert others[-1].id == "claims", "the paper's claims come before the experiments"
    assert counting.blocks == ["alexnet was shown 7 pictures."]
    assert shown.comparison["counting"] == {"pictures": 7}
    assert not [note for note in shown.document.notes if "Counting" in note]


def test_an_experiment_that_was_not_measured_has_a_line_instead(report):
    shown = report(None)
    assert [section.id for section in shown.document.sections][-2:] == ["claims", "robustness"]
    assert "Counting: not measured. Rerun with -S counting=quick." in shown.document.notes
    assert "counting" not in shown.comparison


def test_results_are_found_by_their_class(full):
    assert full.result(RobustnessResult) is full.results[0]
    assert full.result(Counted) is None


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.id)
def test_every_experiment_is_told_from_the_others_and_measured_by_a_choice_that_exists(experiment):
    kind, _, choice = experiment.choice.partition("=")
    assert (ROOT / "conf" / kind / f"{choice}.yaml").is_file()
    assert len({other.id for other in EXPERIMENTS} | {other.title for other in EXPERIMENTS}) == 2 * len(EXPERIMENTS)


def test_the_report_is_composed_and_written_without_torch():
    code = "import frugalnet.study.report, sys; print([name for name in ('torch', 'mlflow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_what_the_package_needs_beside_its_modules_is_installed_with_it():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    package = ROOT / "src/frugalnet"
    installed = {path for pattern in tool["setuptools"]["package-data"]["frugalnet"] for path in package.glob(pattern)}
    others = {path for path in package.rglob("*.*") if path.suffix not in (".py", ".pyc")}
    assert installed == others
