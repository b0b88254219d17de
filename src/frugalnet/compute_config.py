"""Where to compute; without the weight of `compute`, which imports torch."""

from typing import Literal

from pydantic import Field

from frugalnet.schema import Config


class ComputeConfig(Config):
    """Where to compute. `threads`: 0 means OMP_NUM_THREADS, else one a core. `processes`: 0 means one a core."""

    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d{1,4})?|mps)$")
    threads: int = Field(ge=0, le=1024)
    processes: int = Field(ge=0, le=1024)  # that decode and augment
    compile: Literal["auto", "off", "default", "reduce-overhead"]  # torch.compile's mode; auto: default, on CUDA only
    deterministic: bool  # on CUDA: PyTorch's deterministic algorithms, some of which are slower
    checkpoint_minutes: float = Field(gt=0)  # between checkpoints within an epoch
    records: Literal["none", "same", "any"]  # committed results that are copied instead of training
