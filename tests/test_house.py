"""The bounds that keep the code readable: lines of a module, of a function and of the document, parameters."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = [path for folder in ("src", "pipeline", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
MOST_LINES_OF_A_MODULE = 300
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_THE_DOCUMENT = 1300  # with its templates: it knows no experiment, so it need not grow with them
MOST_PARAMETERS = 6  # self apart: more are a class


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_modules_and_functions_are_short():
    assert {path for path in MODULES if lines(path) > MOST_LINES_OF_A_MODULE} == set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert node.end_lineno - node.lineno < MOST_LINES_OF_A_FUNCTION, (path, node.name)
                assert len([each for each in taken if each.arg not in ("self", "cls")]) <= MOST_PARAMETERS, (path, node)


def test_the_document_does_not_grow():
    files = [path for path in (ROOT / "src/frugalnet/document").rglob("*") if path.suffix not in ("", ".pyc")]
    assert sum(map(lines, files)) <= MOST_LINES_OF_THE_DOCUMENT
