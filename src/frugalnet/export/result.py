"""What was measured of a network's files, as export.json and timing.json hold it."""

from frugalnet.export.formats import QUANTISED, Format
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

    def accepts(self, kind: Format) -> bool:
        """Whether a format may be registered: one of eight bits only if it loses little enough."""
        return kind not in QUANTISED or self.formats[kind].loss_points.estimate <= self.max_loss_points

    def in_words(self, name: str) -> str:
        """The accuracy of every format, for the terminal."""
        lines = [f"{name} on the {self.validated_on} of {self.data}, {self.n:,} images:"]
        for kind, measured in self.formats.items():
            same = f"not PyTorch's class on {measured.other_class:,}" if measured.other_class else "PyTorch's classes"
            lines.append(f"  {kind}: {measured.bytes:,} bytes, top-1 {measured.top1:.2%}, {same}")
        for kind in QUANTISED:
            if kind in self.formats:
                loss = self.formats[kind].loss_points
                bounds = f"{loss.estimate:z.2f} points (95 % interval {loss.low:z.2f} to {loss.high:z.2f})"
                verdict = "within" if self.accepts(kind) else "not registered: more than"
                lines.append(f"  {kind} loses {bounds}, {verdict} export.max_loss_points={self.max_loss_points}")
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


def figures(result: ExportResult, costs: ExportCosts) -> dict[str, float]:
    """Accuracies and costs, flat, for MLflow: int8_top1, int8_latency_ms, …"""
    quantised = [kind for kind in QUANTISED if kind in result.formats]
    flat = {f"{kind}_loss_points": result.formats[kind].loss_points.estimate for kind in quantised}
    for kind, measured in result.formats.items():
        cost = costs.formats[kind]
        flat[f"{kind}_bytes"] = measured.bytes
        flat[f"{kind}_top1"] = measured.top1
        flat[f"{kind}_latency_ms"] = cost.latency_ms.median
        flat[f"{kind}_peak_memory_bytes"] = cost.peak_memory_bytes
    return flat
