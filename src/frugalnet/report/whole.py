"""All that the report shows, from a folder of results."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frugalnet.report import adaptation, adaptation_section, comparison, device, results, robustness
from frugalnet.report.comparison import Comparison
from frugalnet.report.page import Section


def load(root: Path, data_sha256: str, validated_on: str) -> Comparison:
    """The networks evaluated on these data, with what was measured on changed pictures and of fine-tuning."""
    compared = comparison.compare(results.load(root), data_sha256, validated_on)
    changed = robustness.load(root / "robustness/robustness.json")
    return replace(compared, robustness=changed, adaptation=adaptation.load(root))


def further_sections(compared: Comparison, root: Path) -> Sequence[Section]:
    """The sections after those of the comparison itself."""
    return [*device.sections(compared.rows, root), *adaptation_section.sections(compared)]
