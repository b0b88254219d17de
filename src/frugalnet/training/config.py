"""A training recipe, and who teaches; without the weight of the code that takes them, which imports torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from frugalnet.schema import Config, Name


class OptimConfig(Config):
    """The optimiser and its learning-rate schedule."""

    optimiser: Literal["sgd", "adamw", "muon"]  # sgd has Nesterov momentum; adamw without weight decay is Adam
    learning_rate: float = Field(gt=0)  # the peak
    muon_learning_rate: float = Field(gt=0)  # the peak for hidden convolutions, with the optimiser muon
    muon_weight_decay: float = Field(ge=0)  # times the learning rate, of the same
    momentum: float = Field(ge=0, lt=1)  # Adam's first beta
    weight_decay: float = Field(ge=0)
    schedule: Literal["one_cycle", "constant"]
    warmup: float = Field(ge=0, lt=1)  # the fraction of all steps in which one_cycle rises to the peak


class TrainConfig(OptimConfig):
    """A training recipe, the same for every network."""

    recipe: Name
    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(ge=2, le=100_000)
    label_smoothing: float = Field(ge=0, lt=1)
    ema_decay: float = Field(ge=0, lt=1)  # of the moving average of the weights that is evaluated; 0: none
    distillation: float = Field(ge=0, le=1)  # the teacher's share of the loss; 0: no teacher
    temperature: float = Field(gt=0, le=100)  # that softens the teacher's predictions and the network's
    resolutions: list[Annotated[int, Field(ge=24, le=256)]] = Field(min_length=1)  # pixels a side
    # Not in a run's record at these defaults: records of earlier versions have neither.
    balance: Literal["none", "weights", "sampling"] = "none"  # of classes with unequal numbers of images
    start: Literal["random", "committed"] = "random"  # weights: random, or those of weights/ where there are some

    @field_validator("resolutions")
    @classmethod
    def _all_are_used(cls, resolutions: list[int], info: ValidationInfo) -> list[int]:
        epochs = info.data.get("epochs", len(resolutions))
        if len(resolutions) > epochs:
            raise ValueError(f"{len(resolutions)} sizes for {epochs} epochs: give as many epochs or fewer sizes")
        return resolutions


class TeacherConfig(Config):
    """The trained network that others learn from: its architecture, its weights and their SHA-256; or three nulls.

    The hash stands for the file's content: DVC compares it, and the stage `teach` checks it.
    """

    model: str | None
    weights: str | None
    sha256: str | None

    @model_validator(mode="after")
    def _is_complete(self) -> "TeacherConfig":
        if len({value is None for value in (self.model, self.weights, self.sha256)}) > 1:
            raise ValueError("give model, weights and sha256, or none of them: null")
        return self


class TeachersConfig(TeacherConfig):
    """A teacher, and others whose logits are averaged with its."""

    others: tuple[TeacherConfig, ...] = ()

    @model_validator(mode="after")
    def _has_a_first(self) -> "TeachersConfig":
        if self.others and None in [self.model, *(other.model for other in self.others)]:
            raise ValueError("others are averaged with teacher.model: give it, and model, weights, sha256 of each")
        return self

    @property
    def members(self) -> list[TeacherConfig]:
        """All teachers; none without one."""
        return [self, *self.others] if self.model else []

    def stated(self) -> dict[str, Any]:
        """What a run's record says of it: a single teacher as the records of earlier versions do."""
        return self.model_dump(exclude=None if self.others else {"others"})
