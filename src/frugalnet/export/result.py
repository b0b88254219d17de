"""What the stage `export` measured of a network, as export.json and timing.json hold it."""

from dataclasses import dataclass
from pathlib import Path

from frugalnet.export.formats import Format
from frugalnet.files import read_record
from frugalnet.metrics.statistics import Interval, Quantiles
from frugalnet.schema import Config


class FormatResult(Config):
    """A format on the validation images: accuracies in 0..1, and how it differs from PyTorch.

    other_class: the images to which it gives another class. largest_difference: of a logit. loss_points: PyTorch's
    top-1 less its own, paired by image.
    """

    bytes: int
    sha256: str
    top1: float
    top5: float
    other_class: int
    largest_difference: float
    loss_points: Interval


class ClassLoss(Config):
    """A class of n images, of which each format classifies so many correctly."""

    id: str
    name: str
    n: int
    pytorch: int
    int8: int


class ExportResult(Config):
    """A network's files for other runtimes: nothing in it varies from run to run."""

    n: int
    validated_on: str
    data: str
    calibration_images: int
    max_loss_points: float
    int8_accepted: bool
    int8_classes_that_lose_most: list[ClassLoss]
    formats: dict[Format, FormatResult]

    @property
    def int8_loss(self) -> Interval:
        """What int8 loses of top-1, in percentage points."""
        return self.formats["int8"].loss_points

    def in_words(self, name: str) -> str:
        """The accuracy of every format, for the terminal."""
        lines = [f"{name} on the {self.validated_on} of {self.data}, {self.n:,} images:"]
        for kind, measured in self.formats.items():
            same = f"not PyTorch's class on {measured.other_class:,}" if measured.other_class else "PyTorch's classes"
            lines.append(f"  {kind}: {measured.bytes:,} bytes, top-1 {measured.top1:.2%}, {same}")
        loss = self.int8_loss
        bounds = f"{loss.estimate:z.2f} points (95 % interval {loss.low:z.2f} to {loss.high:z.2f})"
        verdict = "within" if self.int8_accepted else "not registered: more than"
        lines.append(f"  int8 loses {bounds}, {verdict} export.max_loss_points={self.max_loss_points}")
        return "\n".join(lines)


class Cost(Config):
    """What a format costs. latency_ms: of one image.

    peak_memory_bytes: resident, of a process that only runs the network; before_bytes: of it, before the runtime.
    arena_bytes: what the runtime itself says it needs for one image; None if it says nothing.
    """

    latency_ms: Quantiles
    peak_memory_bytes: int
    before_bytes: int
    arena_bytes: int | None


class Machine(Config):
    """What the costs were measured on."""

    device: str
    cpu: str
    cores: int
    threads: int
    cpu_capability: str
    torch: str
    system: str

    def __str__(self) -> str:
        return f"{self.cpu} ({self.cpu_capability}, torch {self.torch})"


class ExportCosts(Config):
    """What every format costs on one thread of a machine."""

    formats: dict[Format, Cost]
    machine: Machine


@dataclass(frozen=True)
class Exported:
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
    result = read_record(measured, ExportResult)
    costs = read_record(timed, ExportCosts)
    return Exported(model, seed, result, costs) if result and costs else None


def figures(result: ExportResult, costs: ExportCosts) -> dict[str, float]:
    """Accuracies and costs, flat, for MLflow: int8_top1, int8_latency_ms, …"""
    flat = {"int8_loss_points": result.int8_loss.estimate}
    for kind, measured in result.formats.items():
        cost = costs.formats[kind]
        flat[f"{kind}_bytes"] = measured.bytes
        flat[f"{kind}_top1"] = measured.top1
        flat[f"{kind}_latency_ms"] = cost.latency_ms.median
        flat[f"{kind}_peak_memory_bytes"] = cost.peak_memory_bytes
    return flat
