"""The one list of what decides the weights, and what follows from it."""

import sys
from pathlib import Path

import grimp
import pytest
from ruamel.yaml import YAML

from frugalnet.training.runs import SOURCES

ROOT = Path(__file__).parents[1]
# What training imports and what decides no bit of the weights: the devices' settings are part of a run's environment,
# data and views have hashes of their own, and the rest raises, writes, or measures time.
DECIDE_NOTHING = {
    "frugalnet",
    "frugalnet.compute",
    "frugalnet.data",
    "frugalnet.errors",
    "frugalnet.files",
    "frugalnet.metrics",
    "frugalnet.metrics.energy",
    "frugalnet.metrics.statistics",
    "frugalnet.models",
    "frugalnet.processes",
    "frugalnet.schema",
    "frugalnet.training",
    "frugalnet.training.checkpoint",
}


def module(source: str) -> str:
    return f"frugalnet.{source.removesuffix('.py').replace('/', '.')}"


def test_the_stage_train_depends_on_what_decides_the_weights():
    stage = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]["train"]
    code = {dep for dep in stage["deps"] if dep.startswith("src/")}
    assert code == {f"src/frugalnet/{source}" for source in (*SOURCES, "models/${item.model}.py")}
    assert all((ROOT / "src/frugalnet" / source).is_file() for source in SOURCES)


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("frugalnet", cache_dir=None)


def test_all_that_training_imports_is_on_the_list_or_known_to_decide_nothing(imports):
    trained = imports.find_upstream_modules("frugalnet.training.loop") | {"frugalnet.training.loop"}
    trained |= imports.find_upstream_modules("frugalnet.models.residual")
    of_data = {name for name in trained if name.startswith("frugalnet.data.")}
    assert trained - of_data - DECIDE_NOTHING == set(map(module, SOURCES))
    assert not [name for name in trained if name.startswith(("frugalnet.report", "frugalnet.distributed"))]


def test_what_is_known_to_decide_nothing_still_exists(imports):
    assert imports.modules >= DECIDE_NOTHING
    assert "torch" in sys.modules
