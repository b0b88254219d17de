"""The one list of what decides the weights, and what follows from it."""

import ast
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


# What no stage's output depends on: how parameters are read, files written, MLflow told.
NO_STAGE = {"compute", "config", "errors", "files", "mlflow_store", "processes", "project", "registry", "runs_page"}
NO_STAGE |= {
    "schema",
    "tracking",
    "data",
    "data.config",
    "data.albumentations_alone",
    "metrics",
    "models",
    "report",
    "training",
    "use",
}
READ = {"data.arrays"}  # arrays that are there already, and whose bytes are a dependency
RUNS = {"training.checkpoint", "training.runs"}  # where a run's files are
# What a stage imports and what decides no output of it.
KNOWN = {
    "download": {"data.policy"},
    "teach": READ,
    "measure": READ,
    "evaluate": READ
    | RUNS
    | {"metrics.energy", "training.distillation", "training.muon", "training.optim", "training.trainer"},
    "export": READ | {"metrics.counts", "metrics.energy", "recommendation", "use.pictures"},
    "robustness": READ | {"use.weights"},
    "adapt": READ | RUNS | {"metrics.statistics", "training.distillation"},
    "compare": READ,
}


def imported(script: Path, modules: set[str]) -> set[str]:
    """The modules of the package that a script imports."""
    tree = ast.walk(ast.parse(script.read_text()))
    lines = [node for node in tree if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("frugalnet")]
    names = [(f"{line.module}.{name.name}", line.module) for line in lines for name in line.names]
    return {name if name in modules else module for name, module in names}


@pytest.mark.parametrize("stage", ["normalise", "augment", *KNOWN])  # train: see below
def test_a_stage_depends_on_all_that_it_imports_and_that_decides_its_output(stage):
    graph = grimp.build_graph("frugalnet", cache_dir=None)
    for component in graph.find_modules_directly_imported_by("frugalnet.config"):  # it reads the parameters of all
        graph.remove_import(importer="frugalnet.config", imported=component)
    direct = imported(ROOT / f"pipeline/{stage}.py", graph.modules)
    used = direct.union(*(graph.find_upstream_modules(name) for name in direct))
    used -= {"frugalnet", *(f"frugalnet.{name}" for name in NO_STAGE)}
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    depends = [dep.removesuffix(".py") for dep in stages[stage]["deps"]]
    sources = {name: f"src/{name.replace('.', '/')}" for name in used}
    undeclared = {
        name for name, path in sources.items() if not any(f"{path}/".startswith(f"{dep}/") for dep in depends)
    }
    assert undeclared == {f"frugalnet.{name}" for name in KNOWN.get(stage, ())}


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("frugalnet", cache_dir=None)


def test_all_that_training_imports_is_on_the_list_or_known_to_decide_nothing(imports):
    trained = imports.find_upstream_modules("frugalnet.training.loop") | {"frugalnet.training.loop"}
    trained |= imports.find_upstream_modules("frugalnet.models.residual")
    of_data = {name for name in trained if name.startswith("frugalnet.data.")}
    assert trained - of_data - DECIDE_NOTHING == set(map(module, SOURCES))
    others = tuple(f"frugalnet.{room}." for room in ("comparison", "distributed", "document", "study"))
    assert not [name for name in trained if name.startswith(others)]


def test_what_is_known_to_decide_nothing_still_exists(imports):
    assert imports.modules >= DECIDE_NOTHING
    assert "torch" in sys.modules
