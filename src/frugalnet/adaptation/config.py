"""What is trained on a device, how, and on which pictures."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from frugalnet.schema import Config

Part = Literal["classifier", "norms", "blocks", "all"]
Trained = Literal[Part, "scratch"]
Scenario = Literal["seen", "unseen"]
PARTS: tuple[Part, ...] = get_args(Part)
TRAINED: tuple[Trained, ...] = get_args(Trained)


class Rates(Config):
    """The learning rate of each part, at the first step; it falls linearly to zero."""

    classifier: float = Field(gt=0, le=100)
    norms: float = Field(gt=0, le=100)
    blocks: float = Field(gt=0, le=100)
    all: float = Field(gt=0, le=100)
    scratch: float = Field(gt=0, le=100)  # of everything, from random weights


class TuningConfig(Config):
    """How a network is fine-tuned: by AdamW without weight decay, on batches of at most `batch_size` pictures."""

    steps: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(ge=2, le=100_000)
    learning_rate: Rates


class AdaptConfig(TuningConfig):
    """Which classes a device meets, how often that is drawn, and what is trained there."""

    scenarios: Annotated[list[Scenario], Field(min_length=1, max_length=2)]
    seed: int = Field(ge=0, lt=2**63)
    draws: int = Field(ge=0)  # of classes, which share none; 0: nothing is measured
    classes: int = Field(ge=2)  # of a draw
    pictures: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]  # of each class, to train on
    scratch_steps: int = Field(ge=1, le=1_000_000)  # from random weights, which takes longer
    unseen_epochs: int = Field(ge=1)  # at most, of the training without the drawn classes
