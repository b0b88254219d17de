"""What `make train-all` asks Ray for, and how data reach other machines. No weight depends on it."""

from pydantic import Field

from frugalnet.schema import Config


class ClusterConfig(Config):
    """What one training asks for, beside its threads."""

    gpus: float = Field(gt=0, le=1)  # for each worker, where there are GPUs; with 0.5, two trainings share one
    memory_gb: float = Field(ge=0)  # that Ray sets aside; 0: none
    remote: str | None  # the DVC remote through which data reach nodes with a clone of their own; null: a shared cache
