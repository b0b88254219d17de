"""How several workers train one network, and how they are started and connected."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from frugalnet.schema import Config
from frugalnet.training.config import TrainConfig


class LaunchConfig(Config):
    """How workers are started and connected. No weight depends on it."""

    backend: Literal["auto", "gloo", "nccl"]
    timeout_minutes: float = Field(ge=0.01, le=100_000)  # without an answer
    restarts: int = Field(ge=0)


class Single(Config):
    """One process."""

    kind: Literal["none"]


class _Workers(Config):
    workers: int = Field(ge=1, le=100_000)
    batch: Literal["divided", "whole"]  # a worker's batch has batch_size / workers images, or batch_size
    learning_rate_scale: float = Field(gt=0)

    def recipe(self, train: TrainConfig) -> TrainConfig:
        """The recipe of all workers together: its batch_size counts the images of one step of all of them.

        A single worker follows `train` unchanged, as one process does.
        """
        batch_size = train.batch_size * (self.workers if self.batch == "whole" else 1)
        rate = train.learning_rate * (self.learning_rate_scale if self.workers > 1 else 1)
        return train.model_copy(update={"batch_size": batch_size, "learning_rate": rate})


class Ddp(_Workers):
    """Gradients are averaged in every step: DistributedDataParallel."""

    kind: Literal["ddp"]
    sync_batch_norm: bool  # on CUDA


class GlobalNet(_Workers):
    """Parameters are averaged at the end of every `period` epochs: the paper's section 5.2."""

    kind: Literal["global_net"]
    period: int = Field(ge=1)
    warmup: float = Field(ge=0, le=1)  # fraction of the epochs that have several exchanges each
    warmup_exchanges: int = Field(ge=1)  # in each of them
    outer_momentum: float = Field(ge=0, lt=1)
    exchange: Literal["synchronous", "asynchronous"]
    optimiser_state: Literal["averaged", "kept", "reset"]
    batch_norm: Literal["measured", "averaged"]  # the global network's running statistics
    staleness: int = Field(ge=1)

    @model_validator(mode="after")
    def _staleness_allows_equally_fast_workers(self) -> "GlobalNet":
        if self.exchange == "asynchronous" and self.staleness < self.workers - 1:
            raise ValueError(
                f"a staleness bound of {self.staleness} discards the work of {self.workers} equally fast workers; "
                f"use {self.workers - 1} or more"
            )
        return self


Workers = Ddp | GlobalNet
DistributedConfig = Annotated[Single | Ddp | GlobalNet, Field(discriminator="kind")]
