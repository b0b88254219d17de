"""What each stage's code and each architecture means, as hashes that no comment changes. The other stages depend on it.

DVC runs this stage after any edit below pipeline/ and src/, but its outputs change only with what the code does.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from frugalnet import config, models, sources
from frugalnet.stage import run_stage

OUT = Path("data/sources")


def main() -> None:
    params = config.read_params()
    for stage in Path(__file__).parent.glob("[!_]*.py"):
        if stage.stem == "train":
            code = sources.code_of([stage, sources.PACKAGE / sources.TRAINING], sources.NOT_WEIGHTS)
        else:
            code = sources.code_of([stage])
        write_hashes(OUT / f"{stage.stem}.json", code)
    for model in (sources.PACKAGE / "models").glob("[!_]*.py"):
        if code := sources.code_of([model]):
            write_hashes(OUT / f"models/{model.stem}.json", code)
    for name in params.model.names:
        write_hashes(OUT / f"networks/{name}.json", sources.code_of([models.find(name)]))


def write_hashes(path: Path, code: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(code, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
