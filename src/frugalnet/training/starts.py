"""The committed weights that networks start from, as the stage `start` leaves them: start.json, and the files it names.

Without torch: the stage takes no longer than its imports.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from frugalnet.files import atomic, read_json, unreadable, write_json
from frugalnet.run import Start
from frugalnet.schema import Config
from frugalnet.training.config import TrainConfig

FOLDER = Path("data/start")
_LIST = "start.json"


class _Listed(Config):
    networks: dict[str, Start]  # by model; a model that is not there starts from random weights


def write_starts(networks: Mapping[Path, Start], folder: Path) -> None:
    """Copy the weights at these paths into `folder`, with their list. It is written whole or not at all.

    The first part of a file's name, before the seed, is the model's: depthwise-0.safetensors.
    """
    with atomic(folder) as partial:
        partial.mkdir(parents=True)
        for path, start in networks.items():
            shutil.copyfile(path, partial / start.file)
        listed = {start.file.rpartition("-")[0]: start for start in networks.values()}
        write_json(partial / _LIST, _Listed(networks=listed).model_dump())


def read_start(model: str, folder: Path = FOLDER) -> Start | None:
    """What a network starts from; None: random weights. Raises UserError if the list is missing or damaged."""
    path = folder / _LIST
    try:
        return _Listed.model_validate(read_json(path)).networks.get(model)
    except ValidationError as error:
        raise unreadable(path, error) from error


def start_path(model: str, recipe: TrainConfig, folder: Path = FOLDER) -> Path | None:
    """The weights that the recipe has a network start from; None: random ones. Raises what `read_start` does."""
    start = read_start(model, folder) if recipe.start == "committed" else None
    return folder / start.file if start else None
