"""How a claim of the paper is judged by what was measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["agrees", "differs", "undecided", "not tested", "not judged", "not measured"]
Judgement = tuple[str, Outcome]  # what was measured, and the outcome


@dataclass(frozen=True)
class Judge:
    """Decides a claim about some models.

    decide: takes the comparison and the models' rows; None if there is nothing to judge by.
    depends_on_training: whether the claim is tested only by the paper's recipe and number of epochs.
    """

    models: tuple[str, ...]
    rule: str
    decide: Callable[..., Judgement | None]
    depends_on_training: bool = True


def outcome_of(agrees: bool) -> Outcome:
    return "agrees" if agrees else "differs"
