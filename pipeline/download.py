"""The archive: the official one, a mirror's, or the sample, verified; or your own pictures, packed."""

import os
from pathlib import Path

from frugalnet import config
from frugalnet.data.download import fetch, is_verified
from frugalnet.data.pack import pack
from frugalnet.project import project_root
from frugalnet.stage import run_stage


def main() -> None:
    params = config.read_params()
    archive = Path("data/archive.zip")
    if is_verified(archive, params.data):
        return
    if params.data.source == "folder":
        path = params.data.absolute_path(project_root())
        return pack(params.data, params.data.max_unpacked_bytes, path, archive, params.compute.processes)
    # A partial download is kept where DVC deletes nothing.
    fetch(params.data, archive, Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints" / "download")


if __name__ == "__main__":
    run_stage(main)
