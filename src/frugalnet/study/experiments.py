"""The experiments: the only place where they meet. A new one is a folder, a line in EXPERIMENTS and a stage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from frugalnet.adaptation import section as adaptation
from frugalnet.comparison.compare import Comparison, Evidence, compare
from frugalnet.comparison.records import read_records
from frugalnet.data.arrays import Dataset
from frugalnet.document.blocks import Section
from frugalnet.export import section as export
from frugalnet.files import sha256_of
from frugalnet.robustness import section as robustness


class Experiment(Protocol):
    """What the module `section` of an experiment's folder offers. None of it imports torch."""

    ID: str  # of the section, and the key in comparison.json
    TITLE: str  # of the section
    CHOICE: str  # that makes the pipeline measure it, as "robustness=quick"
    Result: type  # of what it measured

    def load(self, results: Path, comparison: Comparison) -> Any:
        """What was measured of the networks compared, from a folder of results; None: nothing. Raises UserError if a
        file is missing or damaged."""

    def section(self, result: Any, comparison: Comparison) -> Section:
        """What was measured, for the report."""

    def summary(self, result: Any, comparison: Comparison) -> dict[str, Any]:
        """Every figure of the section that holds no time, ready for JSON."""


EXPERIMENTS: tuple[Any, ...] = (robustness, export, adaptation)  # each an Experiment; in the order of the report


def gather(results: Path, data: Dataset) -> Evidence:
    """The networks evaluated on these data, and what the experiments measured of them, from a folder of results.

    Raises UserError if there is no such network, or if a file is missing or damaged.
    """
    records = read_records(results)
    comparison = compare(records, sha256_of(data.sha256), data.validated_on, data.validation.images)
    loaded = (experiment.load(results, comparison) for experiment in EXPERIMENTS)
    return Evidence(comparison, tuple(result for result in loaded if result is not None))


def measured(evidence: Evidence) -> Iterator[tuple[Experiment, Any]]:
    """Each experiment that measured something, with its result."""
    for experiment in EXPERIMENTS:
        result = evidence.result(experiment.Result)
        if result is not None:
            yield experiment, result


def unmeasured(evidence: Evidence) -> list[Experiment]:
    """The experiments that measured nothing."""
    return [experiment for experiment in EXPERIMENTS if evidence.result(experiment.Result) is None]
