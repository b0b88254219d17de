"""The two aliases of the registered models, which name the networks to use, for each data.

- champion: the highest accuracy, the mean over the seeds that were trained alike: top-1 or, where classes differ in
  size, macro accuracy, as in the report.
- frugal: the network that the report recommends where computation matters (frugalnet.recommendation).

Networks are compared only if they were evaluated on the same images, so none takes an alias from other data. An alias
goes to the lowest seed: the best one on the validation images would flatter the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from frugalnet import recommendation
from frugalnet.datasets import is_tiny_imagenet
from frugalnet.errors import UserError


def family(data: str, is_sample: bool) -> str:
    """The data that a registered model is of: empty for Tiny ImageNet, its subsets and the sample."""
    return "" if is_sample or is_tiny_imagenet(data) else data


class Version(BaseModel):
    """A version of a registered model, and some of its tags. created: milliseconds since 1970."""

    model_config = ConfigDict(frozen=True)

    name: str
    number: int
    created: int
    model: str
    seed: int
    trained_sha256: str  # of how it was trained, without the seed
    data: str
    data_sha256: str
    validated_on: str
    is_sample: bool
    top1: float
    macro_accuracy: float | None = None  # where classes differ in size
    macs: int

    @property
    def images(self) -> tuple[str, str]:
        """What it was evaluated on."""
        return self.data_sha256, self.validated_on

    @property
    def lead(self) -> float:
        """The accuracy that ranks it."""
        return self.top1 if self.macro_accuracy is None else self.macro_accuracy

    @property
    def measure(self) -> str:
        """What that accuracy is."""
        return "top-1" if self.macro_accuracy is None else "macro accuracy"

    @property
    def family(self) -> str:
        return family(self.data, self.is_sample)


@dataclass(frozen=True)
class Network:
    """The newest version of each seed of a network trained alike."""

    seeds: dict[int, Version]

    @property
    def lead(self) -> float:
        return sum(version.lead for version in self.seeds.values()) / len(self.seeds)

    @property
    def version(self) -> Version:
        return self.seeds[min(self.seeds)]

    @property
    def candidate(self) -> recommendation.Candidate:
        version = self.version
        return recommendation.Candidate(f"{version.name} {version.number}", self.lead, version.macs)


@dataclass(frozen=True)
class Chosen:
    """The version that an alias should name, and why."""

    version: Version
    why: str


def choose_versions(versions: Sequence[Version]) -> dict[str, Chosen]:
    """The version for each alias, of one family: see the module. Of several data sets in that it is the one of the
    newest version, and sample data only if there are no others. Raises UserError if there are no versions."""
    if not versions:
        raise UserError("the registry holds no network: run `dvc repro` first")
    newest = max(versions, key=lambda version: (not version.is_sample, version.created))
    compared = [version for version in versions if version.images == newest.images]
    networks = _networks(compared)
    candidates = {network.candidate: network for network in networks}
    best = recommendation.ranked(candidates)[0]
    frugal = recommendation.frugal([*candidates])
    near = recommendation.near(candidates)
    within = f"within {100 * recommendation.NEAR:g} points of {best.top1:.2%}"
    if frugal == best:
        cheap = f"none has {recommendation.SAVING:.0%} fewer MACs"
    elif frugal in near:
        cheap = f"the fewest MACs of {len(near)} {within}"
    else:
        cheap = f"the highest {newest.measure} with fewer MACs, none of them {within}"

    def chosen(network: Network, why: str) -> Chosen:
        seeds = f"{len(network.seeds)} seed{'s' if len(network.seeds) > 1 else ''}"
        figures = f"mean {newest.measure} {network.lead:.2%} over {seeds}, {network.version.macs / 1e6:.2f} M MACs"
        return Chosen(network.version, f"{figures}; {why} on {newest.data}")

    return {
        "champion": chosen(candidates[best], f"the highest {newest.measure} of {len(networks)}"),
        "frugal": chosen(candidates[frugal], cheap),
    }


def _networks(versions: Sequence[Version]) -> list[Network]:
    networks: dict[tuple[str, str], dict[int, Version]] = {}
    for version in sorted(versions, key=lambda version: version.created):
        networks.setdefault((version.model, version.trained_sha256), {})[version.seed] = version
    return [Network(seeds) for seeds in networks.values()]
