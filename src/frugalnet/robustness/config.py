"""What to measure of networks on changed pictures."""

from typing import Annotated

from pydantic import Field

from frugalnet.schema import Config


class RobustnessConfig(Config):
    """What to measure on how many pictures; 0 pictures: nothing."""

    seed: int = Field(ge=0)
    pictures: int = Field(ge=0)  # to attack, of those that every network classifies correctly
    pixels: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=1)]  # changed: an attack for each
    candidates: int = Field(ge=5, le=10_000)  # of a generation
    generations: int = Field(ge=1, le=1000)  # after the first, at most
    corrupted: int = Field(ge=0)  # to corrupt, of all
    int8: bool  # whether the network with the fewest MACs is measured as int8 too
