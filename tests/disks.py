"""Disks that misbehave, for tests."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, kilobytes: int, *, read_only: bool = False) -> Iterator[Path]:
    """A tmpfs of that size mounted at `folder`; skips the test where mounting isn't allowed."""
    folder.mkdir(exist_ok=True)
    options = f"size={kilobytes}k" + (",ro" if read_only else "")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip(f"no tmpfs here: {mount.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # MLflow keeps its database open


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder as it is, but nothing can be written there; skips the test where mounting isn't allowed."""
    bind = ["mount", "--bind", "--options", "ro", folder, folder]
    if (mount := subprocess.run(bind, capture_output=True, check=False)).returncode:
        pytest.skip(f"no bind mounts here: {mount.stderr.decode().strip()}")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (folder / "written").touch()
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
