"""Whether the parameters can be used, tried before any data is fetched. The output is the same for all that can."""

from pathlib import Path

from frugalnet import config
from frugalnet.check import check
from frugalnet.files import write_json
from frugalnet.stage import run_stage


def main() -> None:
    check(config.read_params())
    write_json(Path("data/checked.json"), {})


if __name__ == "__main__":
    run_stage(main)
