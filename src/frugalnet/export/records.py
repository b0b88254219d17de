"""What the stage `export` left of a network, read again from a folder of results."""

from pathlib import Path

from frugalnet.export.description import Description
from frugalnet.export.result import ExportCosts, ExportResult
from frugalnet.files import read_json, read_record
from frugalnet.schema import Config


class Exported(Config):
    """A network with what was measured of its files."""

    model: str
    seed: int
    result: ExportResult
    costs: ExportCosts


def read_exported(results: Path, model: str, seed: int) -> Exported | None:
    """What a folder of results holds of a network's export; None if it was not exported and measured.

    Raises UserError if a file is damaged.
    """
    name = f"{model}-{seed}"
    measured = results / "export" / name / "export.json"
    timed = results / "export_timing" / name / "timing.json"
    if not (measured.is_file() and timed.is_file()):
        return None
    result = read_accuracy(measured)
    costs = read_record(timed, ExportCosts)
    return Exported(model=model, seed=seed, result=result, costs=costs) if result and costs else None


def read_accuracy(path: Path) -> ExportResult | None:
    """The accuracies in an export.json; one that describes no folder, as they once were, holds nothing else.

    Raises UserError if the file is damaged.
    """
    if "network" not in (read_json(path) or {}):
        return read_record(path, ExportResult)
    description = read_record(path, Description)
    return description.accuracy if description else None
