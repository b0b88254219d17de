"""The archive: the official one, a mirror's, or the sample; verified."""

import os
from pathlib import Path

from frugalnet import config
from frugalnet.data.download import fetch
from frugalnet.stage import run_stage


def main() -> None:
    params = config.load(try_policy=True)
    # DVC deletes outputs before it reruns a stage: a partial download is kept elsewhere.
    fetch(params.data, Path("data/archive.zip"), Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints" / "download")


if __name__ == "__main__":
    run_stage(main)
