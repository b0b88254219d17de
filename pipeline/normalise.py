"""The archive's images as uint8 arrays, with labels, names and channel statistics."""

from pathlib import Path

from frugalnet import config
from frugalnet.data.normalise import normalise
from frugalnet.stage import run_stage


def main() -> None:
    params = config.read_params()
    normalise(
        Path("data/archive.zip"),
        Path("data/arrays"),
        params.data,
        is_sample=params.data.source == "sample",
        processes=params.compute.processes,
    )


if __name__ == "__main__":
    run_stage(main)
