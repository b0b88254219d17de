"""Whether your own pictures may have changed: DVC runs this every time, as it can't know what a parameter names."""

import json
from pathlib import Path

from frugalnet import config
from frugalnet.data.watch import state
from frugalnet.files import write_json
from frugalnet.project import project_root
from frugalnet.stage import run_stage


def main(_: str) -> None:
    params = config.read_params()
    code = json.loads(Path("data/sources/download.json").read_text(encoding="utf-8"))
    pictures = state(params.data.absolute_path(project_root()))
    write_json(Path("data/watched/download.json"), {"code": code, "pictures": pictures})


if __name__ == "__main__":
    run_stage(main)
