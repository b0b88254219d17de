"""The archive's images as uint8 arrays, with labels, names and channel statistics."""

from pathlib import Path

from frugalnet.data.arrays import normalise
from frugalnet.errors import run_stage
from frugalnet.processes import cores


def main() -> None:
    from frugalnet import config

    params = config.load()
    normalise(
        Path("data/archive.zip"),
        Path("data/arrays"),
        params.data,
        is_sample=params.data.source == "sample",
        workers=params.compute.processes or cores(),
    )


if __name__ == "__main__":
    run_stage(main)
