"""What an experiment offers to the study: the contract of the module `section` in an experiment's folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from frugalnet.comparison.compare import Comparison, Evidence
from frugalnet.document.blocks import Section

R = TypeVar("R")


@dataclass(frozen=True)
class Experiment(Generic[R]):
    """How the study reads what one experiment measured, and shows it. None of it imports torch.

    id: the key in comparison.json. title: of its section. choice: what makes the pipeline measure it, as
    "robustness=quick". result: the class of what it measured.
    load: what was measured of the networks compared, from a folder of results; None: nothing. Raises UserError if a
    file is missing or damaged.
    section: what was measured, for the report. summary: every figure of the section that holds no time, ready for JSON.
    lacking: what the data lack for it, as a sentence's end; empty: nothing.
    """

    id: str
    title: str
    choice: str
    result: type[R]
    load: Callable[[Path, Comparison], R | None]
    section: Callable[[R, Comparison], Section]
    summary: Callable[[R, Comparison], dict[str, Any]]
    lacking: Callable[[Path], str] = lambda _results: ""

    def shown(self, evidence: Evidence) -> Section | None:
        """Its section, or None if it measured nothing."""
        result = evidence.result(self.result)
        return None if result is None else self.section(result, evidence.comparison)

    def figures(self, evidence: Evidence) -> dict[str, Any]:
        """Its figures by its id; none if it measured nothing."""
        result = evidence.result(self.result)
        return {} if result is None else {self.id: self.summary(result, evidence.comparison)}
