"""Train and evaluate the whole matrix in parallel on Ray: python -m frugalnet.train_all.

On this machine: one training per GPU, or cores divided among trainings. On the cluster at RAY_ADDRESS: wherever there
is room. Outputs, dvc.lock and MLflow's runs are those of `dvc repro`, which afterwards runs the remaining stages.
"""

import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from frugalnet import config, project, tracking
from frugalnet.cluster.items import TOKEN, Item, Job, Stage
from frugalnet.cluster.resources import Resources, choose_resources, describe_nodes
from frugalnet.cluster.workspace import code_sha256
from frugalnet.config import Params
from frugalnet.errors import Interrupted, UserError
from frugalnet.stage import run_stage
from frugalnet.training.loop import caught_signals

try:
    from frugalnet.cluster.ray_cluster import RayCluster, connected, nodes
    from frugalnet.cluster.schedule import Schedule
    from frugalnet.cluster.stages import Committer, Pipeline
    from frugalnet.cluster.view import View
except ModuleNotFoundError as error:
    sys.exit(f"train_all: {error}; run: make install EXTRAS=cluster")

LOGS = Path("logs/train_all")
_FILES = ("params.yaml", "dvc.yaml", "dvc.lock")
_PASSED_ON = ("MLFLOW_", "FRUGALNET_TRACKING")  # variables of the command that the stages have on every node


def main() -> None:
    root = project.project_root()
    params = config.read_params()
    if ":" in params.compute.device:
        raise UserError(
            f"compute.device: Ray chooses the GPUs, so {params.compute.device} cannot be asked for; use cuda"
        )
    signal.signal(signal.SIGTERM, _stop)  # until there are trainings, which end in order
    with _token(root) as token:
        pipeline = Pipeline(root, params.cluster.remote)
        pipeline.run_earlier_stages()
        with pipeline.held():
            names = pipeline.items()
            items = _missing(pipeline, names)
            committer = Committer(pipeline, items)
        if not items:
            print(f"all {len(names)} are trained and evaluated: nothing to do")
            return
        with connected() as address, caught_signals() as signals:
            workers = getattr(params.distributed, "workers", 1)
            resources = choose_resources(params.compute, params.cluster, workers, nodes(), len(names))
            cluster = RayCluster(_job(root, token, params, resources), resources)
            if not cluster.nodes_with_room():
                raise UserError(
                    f"a training asks for {resources}, but nodes have {describe_nodes(nodes())}: see cluster and "
                    "compute.threads"
                )
            print(f"{len(items)} of {len(names)} on {address}, each with {resources}", file=sys.stderr)
            with View([item.name for item in items], LOGS) as view:
                schedule = Schedule(cluster, view, committer)
                number = schedule.run(items, lambda: signals[0] if signals else 0)
    if number:
        raise Interrupted(number)
    for name, reason in schedule.failures.items():
        print(f"{name}: {reason}; log: {view.log(name)}", file=sys.stderr)
    if schedule.failures:
        raise UserError(f"{len(schedule.failures)} of {len(items)} failed; the same command runs only what is missing")
    print(f"all {len(names)} are trained and evaluated; `dvc repro` runs the rest")


def _missing(pipeline: Pipeline, names: Sequence[str]) -> list[Item]:
    """The items of which a stage has to run, without what DVC's cache or the remote hold."""
    items = []
    for name in names:
        train, evaluate = f"train@{name}", f"evaluate@{name}"
        is_trained = pipeline.is_done(train)
        if is_trained and pipeline.is_done(evaluate):
            continue
        missing = [evaluate] if is_trained else [train, evaluate]
        trained = pipeline.outs(train) if is_trained else ()
        items.append(
            Item(
                name,
                tuple(Stage(stage, pipeline.outs(stage)) for stage in missing),
                code_sha256(name, pipeline.root / "src/frugalnet"),
                tuple(dict.fromkeys(path for stage in missing for path in pipeline.needs(stage))),
                {path: (pipeline.root / path).read_bytes() for path in trained},
            )
        )
    return items


def _job(root: Path, token: str, params: Params, resources: Resources) -> Job:
    variables = {key: value for key, value in os.environ.items() if key.startswith(_PASSED_ON)}
    if not params.compute.threads:
        workers = getattr(params.distributed, "workers", 1)
        variables["OMP_NUM_THREADS"] = str(resources.cores // workers)
    variables["LOGNAME"] = tracking.user()  # who made the runs, not who runs Ray
    files = {name: (root / name).read_bytes() for name in _FILES}
    return Job(root, token, files, params.cluster.remote, params.compute.model_dump_json(), variables)


@contextmanager
def _token(root: Path) -> Iterator[str]:
    """A file in the project's folder by which a node finds out that it shares the folder. Yields its content."""
    token = uuid.uuid4().hex
    (root / TOKEN).parent.mkdir(parents=True, exist_ok=True)
    (root / TOKEN).write_text(token, encoding="utf-8")
    try:
        yield token
    finally:
        (root / TOKEN).unlink(missing_ok=True)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


if __name__ == "__main__":
    run_stage(main)
