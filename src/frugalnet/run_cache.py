"""Results that DVC's run cache lists without having their files: DVC then runs the stage again and does not say so."""

import configparser
import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


def tell_of_lost_results(stage: str) -> None:
    """Report on stderr that a training which runs was run before, with the same inputs, and its results are lost here.

    stage: its name in dvc.yaml, `train@residual-0`. Reads dvc.lock, params.yaml and DVC's cache below the working
    directory.
    """
    results = sorted(_results(stage.partition("@")[2]), key=lambda path: path.stat().st_mtime)
    if results and not all(_is_cached(out) for out in _read(results[-1])["outs"]):
        print(
            f"{stage}: DVC's run cache lists results of this training ({len(results)}), but files of the newest are "
            "missing here, so it is trained again: see docs/cluster.md",
            file=sys.stderr,
        )


def _results(name: str) -> Iterator[Path]:
    """The entries of the run cache for a training with the present inputs."""
    lock = Path("dvc.lock")
    if not lock.is_file():
        return
    made = {out["path"]: out["md5"] for each in _read(lock)["stages"].values() for out in each.get("outs", [])}
    params = _read(Path("params.yaml"))
    for path in _cache().glob("runs/??/*/*"):
        if f"results/train/{name}/run.json" not in path.read_text(encoding="utf-8", errors="replace"):
            continue
        entry = _read(path)
        if f"results/train/{name}/run.json" not in [out["path"] for out in entry["outs"]]:  # it is a dependency
            continue
        recorded = entry.get("params", {}).get("params.yaml", {})
        same_params = all(_value(params, key) == value for key, value in recorded.items())
        if same_params and all(_md5(dep["path"], made) == dep["md5"] for dep in entry["deps"]):
            yield path


def _is_cached(out: Mapping[str, str]) -> bool:
    return (_cache() / "files/md5" / out["md5"][:2] / out["md5"][2:]).exists()


def _read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def _md5(path: str, made: Mapping[str, str]) -> str | None:
    """The MD5 of a dependency: of another stage's output, or of a file within one."""
    file = Path(path)
    return made.get(path) or (hashlib.md5(file.read_bytes()).hexdigest() if file.is_file() else None)


def _value(params: Any, key: str) -> Any:
    for part in key.split("."):
        params = params.get(part) if isinstance(params, dict) else None
    return params


def _cache() -> Path:
    """The folder of DVC's cache that its configuration names."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read([".dvc/config", ".dvc/config.local"])
    return Path(".dvc") / settings.get("cache", "dir", fallback="cache").strip("'\"")
