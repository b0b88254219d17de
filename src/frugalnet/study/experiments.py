"""The experiments that the report shows. A new one is a folder, a line in EXPERIMENTS and a stage (docs/design.md)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from frugalnet.adaptation.section import EXPERIMENT as adaptation
from frugalnet.comparison.compare import Evidence, compare
from frugalnet.comparison.experiment import Experiment
from frugalnet.comparison.records import read_records
from frugalnet.data.arrays import Dataset
from frugalnet.data.copies import NearCopy
from frugalnet.data.sizes import unequal_sizes
from frugalnet.document.wording import count
from frugalnet.errors import printable
from frugalnet.export.section import EXPERIMENT as export
from frugalnet.files import sha256_of
from frugalnet.robustness.section import EXPERIMENT as robustness

MOST_NAMED = 10  # near copies
EXPERIMENTS: tuple[Experiment[Any], ...] = (robustness, export, adaptation)  # in the order of the report


def gather(results: Path, data: Dataset, near_copies: Sequence[NearCopy] = ()) -> Evidence:
    """The networks evaluated on these data, and what the experiments measured of them, from a folder of results.

    near_copies: in both splits. Raises UserError if there is no such network, or if a file is missing or damaged.
    """
    records = read_records(results)
    sizes = unequal_sizes(data)
    comparison = compare(records, sha256_of(data.sha256), data.validated_on, data.validation.images, sizes)
    if near_copies:
        comparison = replace(comparison, notes=[*comparison.notes, _in_words(near_copies)])
    loaded = (experiment.load(results, comparison) for experiment in EXPERIMENTS)
    lacking = {each.id: text for each in EXPERIMENTS if (text := each.lacking(results))}
    return Evidence(comparison, tuple(result for result in loaded if result is not None), lacking)


def _in_words(near_copies: Sequence[NearCopy]) -> str:
    named = ", ".join(f"{printable(pair.validation)} (as {printable(pair.train)})" for pair in near_copies[:MOST_NAMED])
    more = f" and {len(near_copies) - MOST_NAMED} more" if len(near_copies) > MOST_NAMED else ""
    look = f"look{'s' if len(near_copies) == 1 else ''} like a training image, which flatters every network"
    return f"{count(len(near_copies), 'validation image')} {look}: {named}{more}."
