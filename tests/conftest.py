"""Every test works in a folder of its own, offline, and leaves no trace in the project."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # small tensors: more threads only wait for one another, the more so on a busy machine

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the caller's leads a test to his tracking server or project."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_TRACKING", "DVC_ROOT", "DVC_STAGE", "DVC_EXP")):
            monkeypatch.delenv(name)
