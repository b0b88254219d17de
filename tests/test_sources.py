"""Hashes of what code means: an edit of words or layout changes none, an edit of an operator does."""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import compose_and_dump
from ruamel.yaml import YAML

from frugalnet import sources
from pipeline import sources as stage

ROOT = Path(__file__).parents[1]
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
OPERATORS = {  # of each file, a line and what changes its meaning
    "training/trainer.py": ("(1 - own) * loss", "(1 + own) * loss"),
    "training/optim.py": ("(step + 1) / (peak_step + 1)", "(step - 1) / (peak_step + 1)"),
    "metrics/accuracy.py": ("argmax(axis=1)", "argmin(axis=1)"),
    "models/layers.py": ("x + self.block(x)", "x - self.block(x)"),
    "models/__init__.py": ("network.width == 1 else", "network.width != 1 else"),
    "inference_mode.py": ("network.eval()", "network.train()"),
}


@pytest.fixture
def package(tmp_path) -> Path:
    return shutil.copytree(sources.PACKAGE, tmp_path / "frugalnet", ignore=shutil.ignore_patterns("__pycache__"))


def every_hash(package: Path) -> dict[str, str]:
    """Of every architecture's weights, and of the package's modules, each with all that it imports."""
    models = [path.stem for path in package.glob("models/[!_]*.py")]
    weights = {model: sources.weights_sha256(model, package) for model in models}
    return weights | sources.code_of(package.rglob("*.py"), frozenset(), package)


@pytest.mark.parametrize("file", OPERATORS)
def test_an_edit_of_docstring_comment_and_layout_leaves_every_hash(package, file):
    before = every_hash(package)
    path = package / file
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    for node in documented:
        if ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("Other words."))
    path.write_text(ast.unparse(tree) + "\n# no comment of before, another layout\n", encoding="utf-8")
    assert path.read_text(encoding="utf-8").count("Other words.") >= 2
    assert every_hash(package) == before


@pytest.mark.parametrize("file", OPERATORS)
def test_an_edit_of_an_operator_changes_the_hash_of_every_networks_weights(package, file):
    before = every_hash(package)
    path = package / file
    line, other = OPERATORS[file]
    text = path.read_text(encoding="utf-8")
    assert text.count(line) == 1
    path.write_text(text.replace(line, other), encoding="utf-8")
    after = every_hash(package)
    changed = {name for name in before if before[name] != after[name]}
    assert {file, "depthwise", "residual"} <= changed
    assert {name for name in changed if name.endswith(".py")} == {file}


def test_an_architecture_decides_its_own_weights_only(package):
    before = every_hash(package)
    path = package / "models/frugal.py"
    path.write_text(path.read_text(encoding="utf-8").replace("108", "107"), encoding="utf-8")
    after = every_hash(package)
    assert {name for name in before if before[name] != after[name]} == {"frugal", "models/frugal.py"}


@pytest.mark.parametrize("line", ["from frugalnet.training import new", "import frugalnet.training.new", ""])
def test_a_module_that_training_begins_to_import_is_hashed_too_wherever_the_import_stands(package, line):
    (package / "training/new.py").write_text("import frugalnet.data\n")
    path = package / "training/optim.py"
    path.write_text(f"{path.read_text(encoding='utf-8')}\n\ndef used() -> None:\n    {line or 'pass'}\n")
    added = {"training/new.py", "data/__init__.py"} & sources.weights_code("residual", package).keys()
    assert added == ({"training/new.py", "data/__init__.py"} if line else set())


def test_an_import_for_type_checkers_alone_does_not_count(package):
    path = package / "training/muon.py"
    for_checkers = "if TYPE_CHECKING:\n    from frugalnet.report import page\n"
    text = f"{for_checkers}else:\n    from frugalnet.use import adapt as other\n"
    path.write_text(text)
    assert list(sources.imported_modules(path, package)) == ["use/adapt.py"]


def test_what_decides_the_weights_is_training_but_neither_distributed_nor_the_report():
    code = sources.weights_code("frugal")
    assert {"training/trainer.py", "training/muon.py", "models/layers.py", "models/frugal.py"} <= code.keys()
    assert {name.partition("/")[0] for name in code} == {"training", "models", "metrics", "inference_mode.py"}


def test_a_file_that_is_not_python_has_a_hash():
    assert len({sources.sha256_of_code(text) for text in ("def build(:", "def build(", "")}) == 3


def test_every_file_that_is_left_out_exists():
    """A name that nothing has any more would hide that another file took its place."""
    assert [name for name in sources.NOT_WEIGHTS if not (sources.PACKAGE / name).is_file()] == []


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    choice = ["model=curve_small"]
    compose_and_dump(folder / "params.yaml", str(ROOT / "conf"), None, "config", "", choice)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stage.main()
    return folder


def test_the_download_depends_on_its_code_or_with_your_own_pictures_on_what_watches_them():
    assert STAGES["download"]["deps"] == [
        "data/${data.known_by}/download.json",
        "data/checked.json",
    ]  # sources or watched
    assert STAGES["watch"]["deps"] == ["data/sources/download.json"]
    assert STAGES["watch"]["always_changed"]
    choices = {path.stem: YAML(typ="safe").load(path.read_text()) for path in (ROOT / "conf/data").glob("*.yaml")}
    assert {name: choice["known_by"] for name, choice in choices.items() if "known_by" in choice} == {
        "full": "sources",
        "folder": "watched",
    }


@pytest.mark.parametrize("name", [name for name in STAGES if name not in ("sources", "watch", "download")])
def test_every_stage_depends_on_what_its_code_means_and_on_no_other_code(written, name):
    assert STAGES[name]["cmd"] == f"python -m pipeline.{name}"
    code = [dep for dep in STAGES[name]["deps"] if dep.startswith(("data/sources", "src/", "pipeline/"))]
    models = [dep for dep in code if dep.startswith(("data/sources/models", "data/sources/networks"))]
    words = {"compare": ["src/frugalnet/document/templates"], "export": ["src/frugalnet/export/run.py"]}.get(name, [])
    assert code == [f"data/sources/{name}.json", *models, *words]
    hashed = json.loads((written / f"data/sources/{name}.json").read_text())
    assert f"pipeline/{name}.py" in hashed
    assert not [module for module in hashed if re.match(r"models/(?!layers|__init__)", module)]
    text = (ROOT / f"pipeline/{name}.py").read_text(encoding="utf-8")
    if "models.build(" in text or name in ("train", "export", "adapt"):  # the last three build them in the library
        assert models in (["data/sources/models"], ["data/sources/networks/${item.model}.json"])


def test_every_file_of_the_package_that_is_no_code_is_a_dependency_as_it_is():
    others = [path for path in sources.PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    others = [path.relative_to(ROOT).as_posix() for path in others if path.name != "py.typed"]
    depends = tuple(f"{dep}/" for name, stage in STAGES.items() if name != "sources" for dep in stage["deps"])
    served = [path for path in others if path.startswith("src/frugalnet/use/server/page/")]  # no stage serves
    assert len(others) - len(served) == 4
    assert [path for path in others if not path.startswith(depends)] == served


def test_every_architecture_has_its_file(written):
    names = {path.stem for path in (ROOT / "src/frugalnet/models").glob("[!_]*.py")}
    assert {path.stem for path in (written / "data/sources/models").iterdir()} == names - {"check"}


def test_a_network_of_another_width_has_its_architectures_code(written):
    networks = {path.stem: path.read_text() for path in (written / "data/sources/networks").iterdir()}
    names = YAML(typ="safe").load((ROOT / "conf/model/curve_small.yaml").read_text(encoding="utf-8"))["names"]
    assert networks.keys() == set(names)
    for name, code in networks.items():
        assert code == (written / f"data/sources/models/{name.split('_x')[0]}.json").read_text()
