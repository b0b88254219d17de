"""What the stages `adapt` measured, as the adapt.json and timing.json of each network and scenario hold it."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from frugalnet.adaptation.config import AdaptConfig, Scenario, Trained
from frugalnet.errors import UserError
from frugalnet.files import read_json, unreadable, write_json
from frugalnet.metrics.statistics import Interval, Quantiles, over_draws, quantiles
from frugalnet.schema import Config

Method = Literal["general", "restricted", Trained]
Candidate = tuple[Method, int]  # and the pictures of each class that it was trained on; 0: not trained

_LACKING = "lacking"  # the only key of what is written where the data do not suffice


class Outcome(Config):
    """A candidate on the validation pictures of a draw's classes."""

    draw: int
    pictures: int  # of each class, that it was trained on; 0: not trained
    method: Method
    right: str  # a digit for each validation picture, by class: 1 if it was classified correctly


class Cost(Config):
    """What training takes beside time. saved_bytes_by_layer: kept for the backward pass of a batch."""

    macs_per_picture: int  # of a step
    steps: int
    stored_bytes: int  # of what training changes
    saved_bytes_by_layer: dict[str, int]
    batch: int  # pictures


class Training(Config):
    """How long a training took, and its energy; None: the machine has no counter."""

    draw: int
    pictures: int
    method: Trained
    seconds: float
    joules: float | None


class Timing(Config):
    """What depends on the machine. peak_memory_bytes: of a step, beyond the weights and the batch."""

    trainings: list[Training]
    peak_memory_bytes: dict[Trained, int]
    machine: dict[str, str | int]


class _Scope(Config):
    """The first keys of adapt.json."""

    measured: Literal[True] = True  # where nothing was measured, the file holds null
    model: str
    scenario: Scenario


class NetworkResult(AdaptConfig, _Scope):
    """A network in one scenario. drawn: the ids of each draw's classes. timing: in a file of its own."""

    drawn: list[list[str]]
    outcomes: list[Outcome]
    costs: dict[Trained, Cost]
    timing: Timing = Field(exclude=True)

    @property
    def most(self) -> int:
        """The largest number of pictures of each class."""
        return max(self.pictures)

    def right(self, method: Method, pictures: int = 0) -> list[NDArray[np.float64]]:
        """For each draw (N,): 1 where the picture was classified correctly, else 0. Empty if it was not tried."""
        tried = [outcome for outcome in self.outcomes if (outcome.method, outcome.pictures) == (method, pictures)]
        tried.sort(key=lambda outcome: outcome.draw)
        return [np.array([*outcome.right], dtype=np.float64) for outcome in tried]

    def accuracy(self, method: Method, pictures: int = 0) -> Interval | None:
        """Top-1 among the drawn classes; of the general network as it is, among all. None if it was not tried."""
        right = self.right(method, pictures)
        return over_draws(right) if right else None

    def seconds(self, method: Trained) -> Quantiles:
        """The time of a training, over all draws and numbers of pictures."""
        return quantiles([training.seconds for training in self.timing.trainings if training.method == method])

    def joules(self, method: Trained) -> Quantiles | None:
        """The energy of a training, over all draws and numbers of pictures; None: not measured."""
        measured = [training.joules for training in self.timing.trainings if training.method == method]
        known = [joules for joules in measured if joules is not None]
        return quantiles(known) if len(known) == len(measured) else None

    def with_scratch_of(self, other: "NetworkResult") -> "NetworkResult":
        """This scenario with the training from scratch of another one of the same network, where it is the same."""
        outcomes = [outcome for outcome in other.outcomes if outcome.method == "scratch"]
        trainings = [training for training in other.timing.trainings if training.method == "scratch"]
        timing = self.timing.model_copy(update={"trainings": [*self.timing.trainings, *trainings]})
        return self.model_copy(update={"outcomes": [*self.outcomes, *outcomes], "timing": timing})


class AdaptationResult(Config):
    """All networks and scenarios."""

    networks: list[NetworkResult]  # by scenario and model

    @property
    def models(self) -> list[str]:
        """The names of the networks."""
        return [*dict.fromkeys(network.model for network in self.networks)]

    def first(self, model: str) -> NetworkResult:
        """The network in its first scenario."""
        return next(network for network in self.networks if network.model == model)

    def of_scenario(self, scenario: Scenario) -> list[NetworkResult]:
        """The networks in a scenario."""
        return [network for network in self.networks if network.scenario == scenario]

    def network(self, scenario: Scenario, model: str) -> NetworkResult | None:
        """A network in a scenario; None if that was not measured."""
        return next((network for network in self.of_scenario(scenario) if network.model == model), None)


def difference(first: NetworkResult, candidate: Candidate, second: NetworkResult, other: Candidate) -> Interval | None:
    """How much more accurate the first network's candidate is than the second's, paired by picture.

    None if one was not tried, or if they were tried on other classes.
    """
    rights = first.right(*candidate)
    others = second.right(*other)
    if not rights or not others or first.drawn != second.drawn:
        return None
    gains = [right - of_other for right, of_other in zip(rights, others, strict=True)]
    return over_draws(gains, lowest=-1)


def write_network(network: NetworkResult | None, results: Path, name: str, lacking: str | None = None) -> None:
    """Write what was measured of a network, named MODEL-SCENARIO, into a folder of results; None: nothing.

    lacking: what the data lack for the experiment.
    """
    missing = {_LACKING: lacking} if lacking else None
    write_json(results / "adapt" / name / "adapt.json", network.model_dump() if network else missing)
    write_json(results / "adapt_timing" / name / "timing.json", network.timing.model_dump() if network else None)


def read_lacking(results: Path) -> str:
    """What the data lack for the experiment; empty: nothing."""
    outcomes = [read_json(path) for path in sorted((results / "adapt").glob("*/adapt.json"))]
    return next((str(each[_LACKING]) for each in outcomes if each and _LACKING in each), "")


def read_result(results: Path) -> AdaptationResult:
    """What `write_network` wrote. Raises UserError if a file is missing or damaged.

    Training from scratch is the same in each scenario, so only one holds it; here, all do.
    """
    paths = sorted((results / "adapt").glob("*/adapt.json"))
    networks = [network for path in paths if (network := _read_network(path, results))]
    complete = {network.model: network for network in networks if network.right("scratch", network.most)}
    if lacking := sorted({network.model for network in networks} - complete.keys()):
        raise UserError(f"{results / 'adapt'}: no training from scratch of {', '.join(lacking)}: run `dvc repro`")
    networks = [
        network if network.right("scratch", network.most) else network.with_scratch_of(complete[network.model])
        for network in networks
    ]
    return AdaptationResult(networks=sorted(networks, key=lambda network: (network.scenario, network.model)))


def _read_network(path: Path, results: Path) -> NetworkResult | None:
    outcomes = read_json(path)
    timing = read_json(results / "adapt_timing" / path.parent.name / "timing.json")
    if outcomes is None or _LACKING in outcomes:
        return None
    try:
        return NetworkResult.model_validate({**outcomes, "timing": timing})
    except (TypeError, ValidationError) as error:
        raise unreadable(path, error) from error
