"""Results that DVC's run cache lists without having their files: DVC then runs the stage again and does not say so."""

import configparser
import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError


def tell_of_lost_results(stage: str) -> None:
    """Report on stderr that a stage which runs was run before, with the same inputs, and its results are lost here.

    stage: its name in dvc.yaml, `train@residual-0`. Reads dvc.lock, params.yaml and DVC's cache below the working
    directory.
    """
    # Another DVC process may be writing what is read here, and no stage should fail for that.
    with suppress(OSError, YAMLError, LookupError, TypeError, AttributeError):
        results = sorted(_results(*stage.split("@", 1)), key=lambda path: path.stat().st_mtime)
        if results and not all(_is_cached(out) for out in _read(results[-1])["outs"]):
            print(
                f"{stage}: DVC's run cache lists results of this stage and these inputs ({len(results)}), but files of "
                "the newest are missing here, so it runs again: see docs/cluster.md",
                file=sys.stderr,
            )


def _results(name: str, item: str = "") -> Iterator[Path]:
    """The entries of the run cache for a stage with the present inputs. item: of a matrix."""
    command = f"python -m pipeline.{name}"
    entries = _cache().glob("runs/??/*/[!.]*")  # DVC's partial files begin with a dot
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in entries}
    candidates = [path for path, text in texts.items() if command in text and item in text]
    if not candidates:
        return
    stages = _read(Path("dvc.lock"))["stages"].values()
    made = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
    params = _read(Path("params.yaml"))
    for path in candidates:
        entry = _read(path)
        parts = {part for out in entry["outs"] for part in Path(out["path"]).parts}
        recorded = entry.get("params", {}).get("params.yaml", {})
        is_of_stage = entry["cmd"] == command and (not item or item in parts)
        same_params = all(_value(params, key) == value for key, value in recorded.items())
        if is_of_stage and same_params and all(_md5(dep["path"], made) == dep["md5"] for dep in entry["deps"]):
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
    settings.read([Path.home() / ".config/dvc/config", ".dvc/config", ".dvc/config.local"])
    return Path(".dvc") / settings.get("cache", "dir", fallback="cache").strip("'\"")
