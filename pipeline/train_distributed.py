"""Train one architecture with one seed on several workers: called by pipeline.train if `distributed` says so."""

from frugalnet.config import Params
from frugalnet.distributed import run
from frugalnet.distributed.launch import Single


def main(params: Params, model: str, seed: int) -> None:
    assert not isinstance(params.distributed, Single)
    run.train(run.Task(model, seed, params.train, params.distributed, params.launch, params.compute))
