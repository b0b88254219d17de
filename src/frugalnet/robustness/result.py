"""What the stage `robustness` measured, as robustness.json holds it."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from frugalnet.files import read_record, write_json
from frugalnet.schema import Config

FILE = "robustness/robustness.json"  # in a folder of results
Method = Literal["evolution", "random"]
METHODS: tuple[Method, ...] = ("evolution", "random")


class Outcome(Config):
    """Of an attack on one picture. queries: the pictures shown to the network, up to the first it misclassified.

    changes: x, y, red, green, blue of that picture's changed pixels, and what it was taken for; None without success.
    """

    queries: int
    changes: list[list[int]] | None = None
    predicted: int | None = None


class Attacks(Config):
    """With one number of changed pixels: the outcomes on each attacked picture, by method."""

    pixels: int
    evolution: list[Outcome]
    random: list[Outcome]

    def fooled(self, method: Method) -> NDArray[np.bool_]:
        """Whether each picture was misclassified, (N,)."""
        return np.array([outcome.changes is not None for outcome in getattr(self, method)], dtype=bool)

    def queries(self, method: Method) -> NDArray[np.int64]:
        """The queries of each attack, (N,)."""
        return np.array([outcome.queries for outcome in getattr(self, method)], dtype=np.int64)


class Corruption(Config):
    """Whether each corrupted picture was classified correctly, for one kind: a string of 0 and 1 for each severity."""

    kind: str
    right: list[str]


class NetworkResult(Config):
    """A network on the changed pictures. confidence: in its prediction of each attacked picture, unchanged."""

    model: str
    seed: int
    format: Literal["float32", "int8"]
    confidence: list[float]
    attacks: list[Attacks]
    clean: str  # 0 and 1: whether each of the pictures to corrupt was classified correctly before
    corruptions: list[Corruption]

    @property
    def title(self) -> str:
        """The network's name; quantised, it is another network."""
        return self.model if self.format == "float32" else f"{self.model} {self.format}"

    def attack(self, pixels: int) -> Attacks:
        """The attacks that changed so many pixels."""
        return next(attacks for attacks in self.attacks if attacks.pixels == pixels)

    def clean_right(self) -> NDArray[np.bool_]:
        """Whether each picture, unchanged, was classified correctly, (N,)."""
        return np.asarray(np.array([*self.clean]) == "1")

    def corrupted_right(self) -> NDArray[np.bool_]:
        """Whether each corrupted picture was classified correctly, (kinds, severities, N)."""
        digits = [[[*right] for right in corruption.right] for corruption in self.corruptions]
        return np.asarray(np.array(digits) == "1")


class RobustnessResult(Config):
    """All networks on the same changed pictures, and the settings. attacked, corrupted: indices of validation pictures.

    labels: of the attacked ones.
    """

    seed: int
    pixels: list[int]
    candidates: int
    generations: int
    pictures: int  # asked for; fewer are attacked where fewer are classified correctly by every network
    attacked: list[int]
    labels: list[int]
    corrupted: list[int]
    networks: list[NetworkResult]

    @property
    def one_pixel(self) -> bool:
        """Whether pictures were attacked by changing a single pixel."""
        return bool(self.attacked) and 1 in self.pixels

    @property
    def most_queries(self) -> int:
        """The most queries of an attack."""
        return self.candidates * (1 + self.generations)


def write_result(result: RobustnessResult | None, results: Path) -> None:
    """Write what was measured into a folder of results; None: nothing."""
    write_json(results / FILE, result.model_dump() if result else None)


def read_result(results: Path) -> RobustnessResult | None:
    """What `write_result` wrote. Raises UserError if the file is missing or damaged."""
    return read_record(results / FILE, RobustnessResult)
