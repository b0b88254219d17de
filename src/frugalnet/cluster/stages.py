"""The pipeline as DVC knows it: which trainings and evaluations are missing, and what is committed."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.stage.cache import RunCacheNotFoundError
from dvc.stage.serialize import to_single_stage_lockfile

from frugalnet.cluster.items import Finished, Item
from frugalnet.errors import UserError
from frugalnet.files import atomic, sha256_of

PLACED = ("train", "evaluate")  # of the matrix; the other stages record times, or take moments


class Pipeline:
    """The stages of dvc.yaml in the project's folder, `root`, which has to be the working directory: DVC assumes it.

    All methods wait while another DVC process holds the project. Each call reads dvc.yaml anew, which takes a second
    with a hundred stages; in a block of `held`, they are read once.
    remote: where results that are missing here are looked for, and finished ones are put.
    """

    def __init__(self, root: Path, remote: str | None) -> None:
        self.root = root
        self.remote = remote
        logging.getLogger("dvc").setLevel(logging.WARNING)
        self.repo = Repo(str(root), remote=remote, _wait_for_lock=True)
        if remote and remote not in self.repo.config["remote"]:
            raise UserError(f"cluster.remote: there is no DVC remote '{remote}'; `dvc remote list` names them")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the project for the block: no other DVC process works on it, and dvc.yaml is read once."""
        with lock_repo(self.repo):
            yield

    def items(self) -> list[str]:
        """The networks and seeds of the matrix, `depthwise-0`."""
        return [name.partition("@")[2] for name in self._names() if name.startswith("train@")]

    def run_earlier_stages(self) -> None:
        """Run what trainings and evaluations need, here. Raises UserError if a stage fails."""
        names = self._earlier_stages()
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        command = [sys.executable, "-m", "dvc", "repro", *names]
        with subprocess.Popen(command, cwd=self.root, env={**os.environ, "PATH": path}) as dvc:
            try:
                code = dvc.wait()
            except BaseException:  # a signal: the stage that runs ends with dvc
                dvc.terminate()
                raise
        if code:
            raise UserError("a stage before the trainings failed: see above, or run `dvc repro`")
        if self.remote:
            self.push(names)

    def is_done(self, name: str) -> bool:
        """Whether a stage's outputs are there, if need be restored from DVC's cache or the remote. Raises UserError."""
        with self.held(), self._remote_in_words("pulled from"):
            stage = self._stage(name)
            if not stage.changed():
                return True
            try:
                stage.save_deps()
            except DvcException:  # an earlier stage of the item is missing
                return False
            is_lost = self._prefer_whole_results(stage)
            try:
                self.repo.stage_cache.restore(stage, pull=bool(self.remote))
            except RunCacheNotFoundError:
                if is_lost:
                    print(
                        f"{name}: DVC's run cache lists results whose files are missing here: it is run again, unless "
                        "you push them from where they were made (`dvc push`), and pull them here",
                        file=sys.stderr,
                    )
                return False
            self.repo.commit(name, force=True)
            return True

    def outs(self, name: str) -> tuple[str, ...]:
        """The paths of a stage's outputs, from the project's folder."""
        return tuple(out.def_path for out in self._stage(name).outs)

    def needs(self, name: str) -> tuple[str, ...]:
        """The paths of what a stage reads, without other outputs of the same item."""
        deps = (dep.def_path for dep in self._stage(name).deps if type(dep).__name__ != "ParamsDependency")
        return tuple(path for path in deps if path not in self._made_by_items())

    def inputs(self, name: str) -> str:
        """A hash of a stage's command and parameters and of what it reads, without other outputs of the same item."""
        with self.held():
            stage = self._stage(name)
            stage.save_deps(allow_missing=True)
            recorded: dict[str, Any] = to_single_stage_lockfile(stage)
            made = self._made_by_items()
        deps = [dep for dep in recorded.get("deps", []) if dep["path"] not in made]
        return sha256_of([recorded["cmd"], recorded.get("params"), deps])

    def commit(self, name: str) -> None:
        """Take a stage's outputs into DVC's cache and dvc.lock, as `dvc repro` does. Raises UserError."""
        try:
            self.repo.commit(name, force=True)
        except DvcException as error:
            raise UserError(f"{name}: DVC could not commit it ({' '.join(str(error).split())})") from error

    def push(self, names: Iterable[str]) -> None:
        """Push the stages' outputs to the remote. Raises UserError.

        Without the run cache: DVC would push all of its entries, but only these stages' files, and a clone that has an
        entry without its files trains again, and says nothing.
        """
        with self._remote_in_words("pushed to"):
            self.repo.push(list(names))

    @contextmanager
    def _remote_in_words(self, what: str) -> Iterator[None]:
        """Turn whatever DVC or the remote's storage raise in the block into a UserError."""
        try:
            yield
        except Exception as error:
            if not self.remote or isinstance(error, UserError):
                raise
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(f"cluster.remote: '{self.remote}' could not be {what} ({reason})") from error

    def _earlier_stages(self) -> list[str]:
        """The stages that trainings and evaluations need, directly or not."""
        graph = self.repo.index.graph  # from each stage to those that it depends on
        waiting = [stage for stage in graph if _is_placed(stage.name)]
        needed: set[str] = set()
        while waiting:
            for earlier in graph.successors(waiting.pop()):
                if earlier.name not in needed and not _is_placed(earlier.name):
                    needed.add(earlier.name)
                    waiting.append(earlier)
        return sorted(needed)

    def _names(self) -> list[str]:
        return [stage.name for stage in self.repo.index.stages if getattr(stage, "name", None)]

    def _stage(self, name: str) -> Any:
        return next(stage for stage in self.repo.index.stages if getattr(stage, "name", None) == name)

    def _made_by_items(self) -> set[str]:
        return {out.def_path for stage in self.repo.index.stages if _is_placed(stage.name) for out in stage.outs}

    def _prefer_whole_results(self, stage: Any) -> bool:
        """Have DVC restore results whose files are all there; whether there are only others.

        timing.json differs at each training, so the run cache may hold several results of one training. DVC tries the
        newest alone: one whose files are elsewhere hides an older one that is whole.
        """
        cache = self.repo.stage_cache
        folder = Path(cache._get_cache_dir(_key(stage)))
        entries = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime) if folder.is_dir() else []
        for entry in reversed(entries):
            recorded = cache._load_cache(folder.name, entry.name)
            if recorded is None:
                continue
            stored = cache._create_stage(recorded, wdir=stage.wdir)
            if self.remote:
                for objects in stored.get_used_objs().values():
                    self.repo.cloud.pull(objects)
            if stored.outs_cached():
                entry.touch()  # DVC takes the newest
                return False
        return bool(entries)


class Committer:
    """Takes the outputs of finished items into the project, its DVC cache and dvc.lock."""

    def __init__(self, pipeline: Pipeline, items: Sequence[Item]) -> None:
        self._pipeline = pipeline
        stages = [stage.name for item in items for stage in item.stages]
        self._inputs = {name: pipeline.inputs(name) for name in stages}  # what is trained; edits meanwhile are not

    def __call__(self, item: Item, finished: Finished) -> None:
        """Raises UserError if the stage's inputs have changed since the command began."""
        names = [stage.name for stage in finished.stages]
        with self._pipeline.held():
            for name in names:
                if self._pipeline.inputs(name) != self._inputs[name]:
                    raise UserError(f"{name} was run, but its parameters or data have changed meanwhile: run it again")
            for path, content in finished.outs.items():
                with atomic(self._pipeline.root / path) as partial:
                    partial.write_bytes(content)
            for name in names:
                self._pipeline.commit(name)
            if self._pipeline.remote:
                self._pipeline.push(names)


def _is_placed(name: str) -> bool:
    return name.partition("@")[0] in PLACED and "@" in name


def _key(stage: Any) -> str:
    from dvc.stage.cache import _get_stage_hash

    return str(_get_stage_hash(stage))
