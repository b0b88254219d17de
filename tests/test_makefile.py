import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("target", ["install", "demo", "ui"])
@pytest.mark.parametrize("has_repository", [False, True])
def test_without_a_git_repository_or_a_commit_nothing_is_installed(tmp_path, monkeypatch, target, has_repository):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    if has_repository:
        subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    done = subprocess.run(["make", target, "PYTHON=false"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{tmp_path}: DVC needs a git repository with a commit: git clone the project" in done.stderr
    assert not (tmp_path / ".venv").exists()
