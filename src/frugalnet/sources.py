"""What the code means, as hashes: syntax trees without docstrings, comments and layout.

DVC's stages and a run's fingerprint depend on these hashes, not on bytes: editing a comment trains nothing.
Imports nothing of the project: the stage `sources` takes a fraction of a second.
"""

import ast
import hashlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def sha256_of_code(source: str | bytes) -> str:
    """The SHA-256 of Python code's syntax tree, the same in every version of Python that can parse it."""
    return hashlib.sha256(_plain(ast.parse(source)).encode()).hexdigest()


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
    tree = ast.parse(path.read_bytes())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top, _, inner_name = name.partition(".")
            file = f"{inner_name.replace('.', '/')}.py"
            if top == package.name and (package / file).is_file():
                yield file


# What decides no output of a stage: how parameters are read, files written, processes started, MLflow told.
WITHOUT_EFFECT = frozenset(
    {"compute.py", "config.py", "errors.py", "files.py", "mlflow_store.py", "processes.py", "project.py"}
    | {"registry.py", "runs_page.py", "schema.py", "tracking.py", "models/__init__.py"}
)
# What decides no weight: the data and the views have hashes of their own, the rest measures time or writes checkpoints.
NOT_WEIGHTS = WITHOUT_EFFECT | {"data/arrays.py", "metrics/energy.py", "training/checkpoint.py"}


def code_of(roots: Iterable[Path], without: Container[str] = WITHOUT_EFFECT, package: Path = PACKAGE) -> dict[str, str]:
    """The hash of each of the roots and of every module of the package that they import, directly or not.

    without: modules that are left out, and what only they import.
    """
    found: dict[str, str] = {}
    waiting = [*roots]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(package).as_posix() if path.is_relative_to(package) else path.name
        if name in found or name in without:
            continue
        found[name] = sha256_of_code(path.read_bytes())
        waiting += [package / file for file in imported_modules(path, package)]
    return dict(sorted(found.items()))


def weights_code(model: str, package: Path = PACKAGE) -> dict[str, str]:
    """The hash of every module that decides an architecture's weights: the training loop's and its own file."""
    return code_of([package / "training/loop.py", package / f"models/{model}.py"], NOT_WEIGHTS, package)


def weights_sha256(model: str, package: Path = PACKAGE) -> str:
    """One hash of `weights_code`. It does not depend on the names of the files."""
    return hashlib.sha256("\n".join(sorted(weights_code(model, package).values())).encode()).hexdigest()
