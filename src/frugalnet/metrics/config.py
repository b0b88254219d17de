"""How the costs of networks are measured."""

from pydantic import Field

from frugalnet.schema import Config


class MeasureConfig(Config):
    """How `measure` goes about it."""

    warmup_rounds: int = Field(ge=0)
    rounds: int = Field(ge=1)  # each measures every network once; n of a throughput
    latencies_per_round: int = Field(ge=1)  # rounds × this many: n of a latency
    batch_size: int = Field(ge=2, le=100_000)  # of throughput, training step and memory
    energy_seconds: float = Field(gt=0)  # at least so long, where there is a counter
