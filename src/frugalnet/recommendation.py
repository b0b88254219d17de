"""Which network to recommend: the one rule of the report, of the registry's aliases and of the command line."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from frugalnet.schema import Config

NEAR = 0.05  # top-1 that a network may lose against the best one and still be recommended for its cost
SAVING = 0.1  # of the best network's MACs: saving less is no reason to give up accuracy
MORE = 1.2  # by how much a limit is raised, to see what is just beyond it
_ROUNDING = 1e-9
_AMOUNT = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([kKMGT]?)B?", re.ASCII)
_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}

Cost = Literal["macs", "parameters", "weights_bytes", "latency_ms", "memory_bytes"]
COSTS: tuple[Cost, ...] = get_args(Cost)


def amount(text: str) -> float:
    """A number with or without a decimal prefix: "4M" → 4e6, "100k" and "100 kB" → 1e5, "1.5G" → 1.5e9, "0.4" → 0.4.

    Raises ValueError, saying what is expected.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a number, as 4000000, 4M, 100k or 1.5G; found {text!r}")
    return float(match[1]) * _PREFIXES[match[2]]


def _of_text(value: Any) -> Any:
    return amount(value) if isinstance(value, str) else value


Limit = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_of_text)]


@dataclass(frozen=True)
class Candidate:
    """A network to choose from: its top-1, 0..1, and what it costs, as `Budget` has it. None: not measured.

    Where classes have unequal numbers of images, top1 is the accuracy that ranks the networks instead.
    """

    name: str
    top1: float
    macs: float
    parameters: float | None = None
    weights_bytes: float | None = None
    latency_ms: float | None = None
    memory_bytes: float | None = None


class Budget(Config):
    """The most that a network may cost, each as a number or as text for `amount`. None: no limit.

    macs: of one image. parameters: trainable. latency_ms: the median of one image. memory_bytes: the peak of a process
    that only runs the network.
    """

    macs: Limit = None
    parameters: Limit = None
    weights_bytes: Limit = None
    latency_ms: Limit = None
    memory_bytes: Limit = None

    @property
    def limits(self) -> dict[Cost, float]:
        """The limits that are set."""
        return {cost: limit for cost in COSTS if (limit := getattr(self, cost)) is not None}

    def exceeded(self, candidate: Candidate) -> dict[Cost, float]:
        """The limits that a network exceeds: its cost as a multiple of each."""
        costs = {cost: getattr(candidate, cost) for cost in self.limits}
        return {c: costs[c] / limit for c, limit in self.limits.items() if costs[c] is not None and costs[c] > limit}

    def unmeasured(self, candidate: Candidate) -> list[Cost]:
        """The limited costs that were not measured of a network."""
        return [cost for cost in self.limits if getattr(candidate, cost) is None]

    def fits(self, candidate: Candidate) -> bool:
        """Whether a network is known to exceed no limit."""
        return not self.exceeded(candidate) and not self.unmeasured(candidate)

    def just_beyond(self, candidate: Candidate) -> Cost | None:
        """The only limit that a network exceeds, if it is known to fit one `MORE` times as high; else None."""
        exceeded = self.exceeded(candidate)
        if len(exceeded) != 1 or self.unmeasured(candidate):
            return None
        ((cost, excess),) = exceeded.items()
        return cost if excess <= MORE else None


NO_LIMIT = Budget()


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Best first: by top-1; of equal ones, the one with fewer MACs."""
    return sorted(candidates, key=lambda candidate: (-candidate.top1, candidate.macs, candidate.name))


def near(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those whose top-1 is at most `NEAR` below the highest, which is one of them; best first."""
    order = ranked(candidates)
    return [candidate for candidate in order if candidate.top1 >= order[0].top1 - NEAR - _ROUNDING]


def frugal(candidates: Sequence[Candidate]) -> Candidate:
    """The network to use if computation matters: of those near the best one, the one with the fewest MACs.

    It has to save `SAVING` of the best one's. If none near the best one does, it is the most accurate of all that do;
    if there is none, the best one.
    """
    best, *others = ranked(candidates)
    cheaper = [candidate for candidate in others if candidate.macs <= (1 - SAVING) * best.macs]
    cheaper_and_near = [candidate for candidate in near(candidates) if candidate in cheaper]
    if cheaper_and_near:
        return min(cheaper_and_near, key=lambda candidate: candidate.macs)
    return cheaper[0] if cheaper else best


@dataclass(frozen=True)
class Choice:
    """What a budget leaves of some networks.

    fitting: best first. unknown: those that exceed no limit, but of which a limited cost was not measured. next: the
    best one just beyond the budget, if it is more accurate than all that fit. closest: if none fits, the one whose
    largest excess is smallest.
    """

    fitting: list[Candidate]
    unknown: list[Candidate]
    next: Candidate | None
    closest: Candidate | None


def choose(candidates: Iterable[Candidate], budget: Budget) -> Choice:
    """The networks within a budget, and what is just beyond it."""
    order = ranked(candidates)
    fitting = [candidate for candidate in order if budget.fits(candidate)]
    unknown = [c for c in order if budget.unmeasured(c) and not budget.exceeded(c)]
    better = [c for c in order if budget.just_beyond(c) and (not fitting or c.top1 > fitting[0].top1)]
    known = [] if fitting else [candidate for candidate in order if not budget.unmeasured(candidate)]
    closest = min(known, key=lambda candidate: max(budget.exceeded(candidate).values()), default=None)
    return Choice(fitting, unknown, better[0] if better else None, closest)
