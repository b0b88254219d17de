"""What the code means, as hashes: syntax trees without docstrings, comments and layout.

DVC's stages and a run's fingerprint depend on these hashes, not on bytes: editing a comment trains nothing.
Imports nothing of the project: the stage `sources` takes a fraction of a second.
"""

import ast
import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
TRAINING = "training/job.py"  # imports all that decides the weights, but for the architectures
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# What decides no output of a stage: how parameters are read, files written, processes started, MLflow told. compute.py
# chooses device and threads, which a run's `environment` records.
WITHOUT_EFFECT = frozenset(
    {"check.py", "compute.py", "compute_config.py", "errors.py", "files.py", "models/check.py"}
    | {
        "processes.py",
        "project.py",
        "registry.py",
        "run_cache.py",
        "runs_page.py",
        "schema.py",
        "sources.py",
        "stage.py",
        "streams.py",
        "tracking.py",
    }
    | {"use/registered.py"}
)
# What decides no weight of a run of one process: the data and the views have hashes of their own, distributed runs name
# their code, and the rest measures time, writes files or copies them.
NOT_WEIGHTS = WITHOUT_EFFECT | {
    "data/arrays.py",
    "distributed/run.py",
    "metrics/energy.py",
    "training/checkpoint.py",
    "training/recorded.py",
    "training/runs.py",
}


@cache
def sha256_of_code(source: str | bytes) -> str:
    """The SHA-256 of Python code's syntax tree, the same in every version of Python that can parse it.

    Code that is not Python has the hash of its bytes: whoever imports it says what is wrong.
    """
    try:
        code = _plain(ast.parse(source)).encode()
    except SyntaxError:
        code = source if isinstance(source, bytes) else source.encode()
    return hashlib.sha256(code).hexdigest()


def _plain(node: object) -> str:
    """A node and what is below it as text. Fields without a value are left out: versions of Python add such fields."""
    if isinstance(node, list):
        return f"[{','.join(map(_plain, node))}]"
    if isinstance(node, ast.Constant):
        return f"Constant({node.value!r})"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    shown = (f"{name}={_plain(value)}" for name, value in fields.items() if value not in (None, []))
    return f"{type(node).__name__}({','.join(shown)})"


def imported_modules(path: Path, package: Path = PACKAGE) -> Iterator[str]:
    """The package's modules that a file imports, anywhere in it, as "training/loop.py"; not those for type checkers."""
    for module, name in _imports(path.read_bytes()):
        if file := _file(f"{module}.{name}", package) or _file(module, package):
            yield file


@cache
def _imports(source: bytes) -> list[tuple[str, str]]:
    """Each import as module and name: `from a import b` is ("a", "b"), `import a` is ("a", "")."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    imports: list[tuple[str, str]] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            imports += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports += [(node.module, alias.name) for alias in node.names]
        waiting += ast.iter_child_nodes(node)
    return imports


def _file(name: str, package: Path) -> str | None:
    """The file of a module of the package, or None if there is no such module."""
    module = package.parent.joinpath(*name.split("."))
    for file in (module.with_suffix(".py"), module / "__init__.py"):
        if file.is_file() and file.is_relative_to(package):
            return file.relative_to(package).as_posix()
    return None


def code_of(roots: Iterable[Path], without: Container[str] = WITHOUT_EFFECT, package: Path = PACKAGE) -> dict[str, str]:
    """The hash of each of the roots and of every module of the package that they import, directly or not.

    without: modules that are left out, and what only they import.
    """
    hashes: dict[str, str] = {}
    waiting = [*roots]
    while waiting:
        path = waiting.pop()
        inside = path.is_relative_to(package)
        name = path.relative_to(package).as_posix() if inside else f"{path.parent.name}/{path.name}"
        if name in hashes or name in without or path.name == "config.py":  # DVC and runs compare the parameters
            continue
        hashes[name] = sha256_of_code(path.read_bytes())
        waiting += [package / file for file in imported_modules(path, package)]
    return dict(sorted(hashes.items()))


def sha256_of_all(code: Mapping[str, str]) -> str:
    """One hash of what `code_of` returns. It does not depend on the names of the files."""
    return hashlib.sha256("\n".join(sorted(code.values())).encode()).hexdigest()


def weights_code(model: str, package: Path = PACKAGE) -> dict[str, str]:
    """The hash of every module that decides an architecture's weights: the training's and its own file."""
    return code_of([package / TRAINING, package / f"models/{model}.py"], NOT_WEIGHTS, package)


def weights_sha256(model: str, package: Path = PACKAGE) -> str:
    """The hash of what decides an architecture's weights."""
    return sha256_of_all(weights_code(model, package))
