"""Runs of the train stage with other parameters, each in its own folder, on the images in `data/`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from dvc.utils.hydra import compose_and_dump

from frugalnet import files
from frugalnet.data import arrays
from frugalnet.errors import UserError
from frugalnet.files import remove

ROOT = Path(__file__).parents[1]


def train(name: str, overrides: Sequence[str], folder: Path, model: str) -> None:
    """Train in `folder`, unless finished; an interrupted run resumes. Overrides of `augment` make new views.

    Raises UserError for overrides that hydra does not accept, and ends the process as a stage that fails or is stopped.
    """
    params, done = folder / "params.yaml", folder / "results/train" / f"{model}-0" / "run.json"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        compose_and_dump(params, str(ROOT / "conf"), None, "config", "", list(overrides))
    except Exception as error:  # hydra's and DVC's own, which differ between their versions
        raise UserError(f"{' '.join(overrides)}: {' '.join(str(error).split())[:300]}") from error
    setting = files.sha256_of([params.read_text(), arrays.read_dataset(Path("data/arrays")).sha256])
    stamp = folder / "setting.sha256"  # of what is in the folder
    if not stamp.is_file() or stamp.read_text() != setting:
        remove(done)
        remove(folder / "data")  # a link to the project's, or a folder with views of its own
        stamp.write_text(setting)
    if done.is_file():
        return
    print(f"\n{name}: {' '.join(overrides)}", file=sys.stderr)
    own_views = any(override.startswith("augment") for override in overrides)
    shared = "data/arrays" if own_views else "data"
    if not (folder / shared).is_symlink():
        (folder / shared).parent.mkdir(exist_ok=True)
        (folder / shared).symlink_to(Path(shared).resolve())
    if own_views and not (folder / "data/views").is_dir():
        _stage(folder, "augment")
    _stage(folder, "train", model, "0")
    if own_views:
        remove(folder / "data/views")


def _stage(folder: Path, *stage: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder.resolve())}
    command = [sys.executable, "-m", f"pipeline.{stage[0]}", *stage[1:]]
    before = signal.signal(signal.SIGINT, lambda *_: None)  # the stage gets it, too, and writes a checkpoint
    try:
        code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        sys.exit(code if code > 0 else 128 - code)  # the stage has said why


def figures(folder: Path, model: str) -> dict[str, float]:
    """The figures of a finished setting."""
    trained = folder / "results/train" / f"{model}-0"
    last, timing = files.read_history(trained / "history.csv")[-1], json.loads((trained / "timing.json").read_text())
    alone = {"payload_bytes": 0, "all_reduces": 0, "communication_seconds": 0.0, "waiting_seconds": 0.0}
    exchange = timing.get("exchange", [alone])
    return {
        "validation_top1": last["validation_top1"],
        "train_top1": last["train_top1"],
        "epoch_seconds": mean(timing["epoch_seconds"]),
        "train_seconds": sum(timing["epoch_seconds"]),
        **{key: mean(epoch[key] for epoch in exchange) for key in exchange[0] if key != "workers"},
    }
