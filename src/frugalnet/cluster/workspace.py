"""The folder in which a node runs items: the project itself where the node shares it, else one in the node's clone.

A clone has code, packages and DVC's cache of its own. What belongs to the command is put beside it, in a folder below
its `.dvc/tmp`: the parameters and dvc.lock, links to the code, and data from the cache or a remote.
"""

import hashlib
import os
from pathlib import Path

from frugalnet import models
from frugalnet.cluster.items import TOKEN, Item, Job, Refusal
from frugalnet.files import atomic, locked
from frugalnet.sources import PACKAGE, weights_sha256

_LINKED = ("docs", "pipeline", "src", "weights")  # what the stages train and evaluate read beside data


def open_workspace(job: Job, item: Item) -> Path:
    """The folder, with the item's data and code. Raises Refusal if this node has other code or lacks data."""
    project = job.root if _is_shared(job) else _clone(job)
    package = project / "src/frugalnet"
    if code_sha256(item.name, package) != item.sources:
        raise Refusal(f"{package}: other code than where the command runs, for {item.name}; check out the same commit")
    if project == job.root:
        return project
    folder = project / ".dvc/tmp/train-all" / _digest(job)
    with locked(folder):
        if not (folder / ".dvc/config.local").exists():
            _fill(folder, project, job)
        _fetch(folder, item, job.remote)
    for name, content in item.files.items():
        with atomic(folder / name) as partial:
            partial.write_bytes(content)
    return folder


def code_sha256(name: str, package: Path) -> str:
    """The hash of the code that decides the weights of an item of that name, whatever its width."""
    return weights_sha256(models.parse(name.rpartition("-")[0]).architecture, package)


def is_own(job: Job, workspace: Path) -> bool:
    """Whether the outputs have to be sent: the folder is not where the command runs."""
    return workspace != job.root


def _is_shared(job: Job) -> bool:
    """Whether this node sees the folder in which the command runs, and is not told to use a clone."""
    if "FRUGALNET_PROJECT" in os.environ:
        return False
    try:
        return (job.root / TOKEN).read_text(encoding="utf-8") == job.token
    except OSError:
        return False


def _clone(job: Job) -> Path:
    """This node's clone of the project: $FRUGALNET_PROJECT, or where the package is installed from."""
    project = Path(os.environ.get("FRUGALNET_PROJECT") or PACKAGE.parents[1])
    if not (project / "dvc.yaml").is_file():
        raise Refusal(f"{project}: no clone of the project; set FRUGALNET_PROJECT where `ray start` is called")
    if project.resolve() == job.root:
        raise Refusal(f"{project} is not the folder of that name where the command runs; share it, or clone elsewhere")
    return project.resolve()


def _digest(job: Job) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(job.files.items()):
        digest.update(name.encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def _fill(folder: Path, project: Path, job: Job) -> None:
    from dvc.config import Config
    from dvc.repo import Repo

    for name in _LINKED:
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(project / name, target_is_directory=True)
    for name, content in job.files.items():
        (folder / name).write_bytes(content)
    (folder / ".dvc").mkdir(exist_ok=True)
    (folder / ".dvc/config").touch()
    with Repo(str(project)) as clone:
        cache = {"dir": str(clone.cache.legacy.path), "type": clone.config["cache"].get("type")}
        remotes = clone.config["remote"]
        core = {"no_scm": True, "analytics": False, "remote": clone.config["core"].get("remote")}
    local = Config(str(folder / ".dvc"), validate=False)
    with local.edit("local") as settings:  # last, so that a folder with it is whole; it may hold passwords
        settings["core"] = {key: value for key, value in core.items() if value is not None}
        settings["cache"] = {key: value for key, value in cache.items() if value is not None}
        settings["remote"] = remotes
    (folder / ".dvc/config.local").chmod(0o600)


def _fetch(folder: Path, item: Item, remote: str | None) -> None:
    """Put the item's data into the folder, as DVC's cache or the remote hold them."""
    from dvc.repo import Repo

    needs = [str(folder / path) for path in item.needs]
    with Repo(str(folder), _wait_for_lock=True) as repo:
        try:
            if remote:
                repo.pull(needs, remote=remote)
            else:
                repo.checkout(needs)
        except Exception as error:  # whatever DVC, its index or the storage raise
            where = f"the remote '{remote}'" if remote else f"its DVC cache, {repo.cache.legacy.path}"
            what = "; share DVC's cache.dir between the machines, or set cluster.remote" if not remote else ""
            raise Refusal(f"data cannot be had from {where}{what} ({' '.join(str(error).split())[:200]})") from error
