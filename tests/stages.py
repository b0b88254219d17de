"""A whole study in one process: what DVC would run, without the seconds that each process takes to import torch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from dvc.utils.hydra import compose_and_dump

ROOT = Path(__file__).parents[1]
Stage = tuple[str | int, ...]  # of pipeline/, and what its main function is given
PREPARED: list[Stage] = [("download",), ("normalise",), ("augment",), ("teach",), ("start",)]
QUICK = [
    *("augment.views=1", "compute.threads=1", "compute.processes=1", "export.calibration_images=10"),
    *("measure.rounds=1", "measure.warmup_rounds=0", "measure.latencies_per_round=2", "measure.batch_size=4"),
    "measure.energy_seconds=0.1",
]
_PROGRAM = """
import importlib, json, sys
for stage, *words in json.loads(sys.argv[1]):
    importlib.import_module(f"pipeline.{stage}").main(*words)
"""


def in_turn(networks: Iterable[str], *stages: str) -> list[Stage]:
    """Each stage for all networks, of seed 0."""
    named = [*networks]
    return [(stage, network, 0) for stage in stages for network in named]


def study(folder: Path, stages: Sequence[Stage], *overrides: str) -> str:
    """Run stages in a project's folder, with these parameters; what they printed."""
    compose_and_dump(folder / "params.yaml", str(ROOT / "conf"), None, "config", "", [*QUICK, *overrides])
    environment = {**os.environ, "DVC_ROOT": str(folder), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    command = [sys.executable, "-c", _PROGRAM, json.dumps(stages)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
