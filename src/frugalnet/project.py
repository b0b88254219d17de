"""The project that this process works for: its folder and its provenance."""

import os
import subprocess
from pathlib import Path

PROVENANCE = ("mlflow.source.git.commit", "git_uncommitted_changes", "dvc_experiment", "dvc_stage", "node")


def project_root() -> Path:
    """The repository's folder, also where a stage works in a temporary copy (`dvc exp run --temp`, `--queue`)."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def checkpoints_folder(root: Path) -> Path:
    """Where trainings keep checkpoints: $FRUGALNET_CHECKPOINTS, which machines may share, else in the project."""
    return Path(os.environ.get("FRUGALNET_CHECKPOINTS") or root / ".checkpoints")


def provenance() -> dict[str, str]:
    """Tags that lead back from what this process makes, with the keys `PROVENANCE`, as far as they are known."""
    # Untracked files count: one may be an architecture. dvc.lock does not: the run itself writes it.
    paths = [line[3:] for line in _git("status", "--porcelain", "--", ".", ":!dvc.lock").splitlines()]
    values = (
        _git("rev-parse", "HEAD").strip(),
        ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else ""),
        os.environ.get("DVC_EXP_NAME", ""),
        os.environ.get("DVC_STAGE", ""),
        os.environ.get("FRUGALNET_NODE", ""),  # the machine of a training that `make train-all` placed
    )
    return {key: value for key, value in zip(PROVENANCE, values, strict=True) if value}


def _git(*arguments: str) -> str:
    """What git prints; nothing where git or a repository is missing."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", errors="replace").stdout
    except OSError:
        return ""
