"""The lock files, as the oldest supported pip reads them."""

import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def _locked(lock: Path) -> dict[str, Requirement]:
    found = re.findall(r"^([a-z0-9][^\\\n]*==[^\\\n]*?) \\$", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, found)}


BASE = ROOT / "requirements-base.lock"
STUDY = sorted(set(ROOT.glob("requirements*.lock")) - {BASE, ROOT / "requirements-image.lock"})  # without coverage


@pytest.mark.parametrize("lock", STUDY, ids=lambda lock: lock.stem)
def test_a_lock_pins_the_extras_that_its_packages_ask_for(lock: Path) -> None:
    """Otherwise pip 23 takes the newest release for `coverage[toml]`, and refuses it for its lack of a hash."""
    locked = _locked(lock)
    assert len(locked) > 100
    asked: dict[str, set[str]] = {}
    for distribution in distributions():
        if canonicalize_name(distribution.name) in locked:
            for requirement in map(Requirement, distribution.requires or ()):
                if requirement.extras and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                    asked.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    assert "toml" in asked["coverage"]
    missing = {name: extras - locked[name].extras for name, extras in asked.items() if extras - locked[name].extras}
    assert not missing


def test_extras_can_be_installed_together() -> None:
    versions: dict[str, set[str]] = {}
    for lock in set(ROOT.glob("requirements-*.lock")) - {BASE}:  # which is no extra
        for name, requirement in _locked(lock).items():
            versions.setdefault(name, set()).add(str(requirement.specifier))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_base_is_a_part_of_what_make_install_installs_and_holds_nothing_of_the_study() -> None:
    base, study = (_locked(lock) for lock in (BASE, ROOT / "requirements.lock"))
    assert {"numpy", "onnxruntime", "pillow"} < base.keys()
    assert {name: requirement.specifier for name, requirement in base.items() if name not in study} == {}
    assert all(requirement.specifier == study[name].specifier for name, requirement in base.items())
    assert base.keys().isdisjoint({"torch", "torchvision", "mlflow", "dvc", "scipy", "matplotlib", "pandas"})


@pytest.mark.slow
@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.lock")), ids=lambda lock: lock.stem)
def test_a_lock_can_be_installed_with_this_python(lock: Path) -> None:
    """A resolver may lock a release that is for older Pythons alone; pip says so before it installs anything."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--require-hashes"]
    done = subprocess.run([*command, "-r", str(lock)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
