"""What `make train-all` gains and costs; on an idle machine: python -m benchmarks.cluster speed | start | items.

speed: two trainings of one thread each against one of two threads, images per second (a minute).
start: seconds until a cluster of this machine runs its first task, and until it has ended (half a minute).
items: one-second trainings on pretend nodes, of which one is lost every ten seconds, with one MLflow server: what an
item costs beside its training, the server's requests, and that nothing is lost (minutes; --items 64 --nodes 8).
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # its servers and its clone of the project
STUB = """
import json, os, sys, time
sys.path.insert(0, "src")
from pathlib import Path
from frugalnet import project, tracking
from frugalnet.run import Run
name = os.environ["DVC_STAGE"].partition("@")[2]
print(f"epoch 1/1: loss 1.0, top-1 50.00% (validation 1.0, 50.00%), 1 images a second", flush=True)
root, run = project.project_root(), Run(
    model="depthwise", seed=int(name.split("-")[1]), num_classes=10, n_train=1000, n_validation=200, data="sample",
    is_sample=True, validated_on="validation split", data_sha256="d", views_sha256="v", source_sha256="s",
    train=dict(epochs=1, recipe="stub"), fingerprint=name)
with tracking.training_run(root, run, project.provenance()) as tracked:
    time.sleep(1)
    tracked.log_history([dict(epoch=1, train_loss=1.0, validation_top1=0.5)])
    tracked.identify("weights_sha256", name)
for path in (f"models/{name}.safetensors", *(f"results/train/{name}/{each}" for each in FILES)):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(name)
"""


def speed(seconds: float = 15.0) -> None:
    """Print images per second of both ways to use two cores."""
    for model in ("alexnet", "depthwise", "residual"):
        one = _images_per_second(model, 1, 2, seconds)
        two = _images_per_second(model, 2, 1, seconds)
        print(f"{model}: one training of two threads {one:,.0f} images/s, two of one thread {two:,.0f} in all")
    print("their bits differ: the number of threads is part of what decides them")


def _images_per_second(model: str, trainings: int, threads: int, seconds: float) -> float:
    """Of so many trainings at once together."""
    start = time.time() + 15  # when all have imported torch
    command = [sys.executable, "-m", "benchmarks.cluster", "train", model, str(threads), str(start), str(seconds)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(trainings)]
    return sum(float(process.communicate()[0]) for process in processes)


def train(model: str, threads: int, start: float, seconds: float) -> None:
    """Train on random images from the time `start` on, and print images per second."""
    import torch

    from frugalnet import config
    from frugalnet.training.batches import Normaliser
    from frugalnet.training.trainer import Trainer

    torch.set_num_threads(threads)
    recipe = config.read_params().train
    trainer = Trainer(model, 0, 200, 100_000, Normaliser([120.0] * 3, [60.0] * 3, torch.device("cpu")), recipe)
    images = torch.randint(256, (250, 64, 64, 3), dtype=torch.uint8)
    labels = torch.randint(200, (250,))
    trainer.train_batch(images, labels)
    time.sleep(max(0.0, start - time.time()))
    began = time.monotonic()
    steps = 0
    while time.monotonic() - began < seconds:
        trainer.train_batch(images, labels)
        steps += 1
    print(250 * steps / (time.monotonic() - began))


def _task() -> int:
    return os.getpid()


def start() -> None:
    """Print what starting and ending a cluster of this machine takes."""
    from frugalnet.cluster.ray_cluster import connected, ray

    took: dict[str, list[float]] = {"start": [], "task": [], "end": []}
    for _ in range(3):
        times = [time.monotonic()]
        with connected():
            times.append(time.monotonic())
            ray.get(ray.remote(_task).remote())
            times.append(time.monotonic())
        times.append(time.monotonic())
        for name, before, after in zip(took, times, times[1:], strict=False):
            took[name].append(after - before)
    for name, seconds in took.items():
        print(f"{name}: {statistics.median(seconds):.1f} s (median of {len(seconds)})")


def items(count: int, nodes: int) -> None:
    """Run one-second trainings and print what they cost beside that."""
    import servers

    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        project = _stub_project(folder / "project", count)
        port = servers.free_port()
        server = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port)]
        server += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'runs.db'}"]
        log = folder / "server.log"
        stack.enter_context(servers.started(server, port, log, "/health", cwd=folder))
        cluster = Cluster()
        stack.callback(cluster.shutdown)
        cluster.add_node(num_cpus=0)  # the head, which is not lost
        present = [cluster.add_node(num_cpus=1) for _ in range(nodes)]
        os.environ |= {"RAY_ADDRESS": cluster.address, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
        began = time.monotonic()
        lost = 0
        with subprocess.Popen([sys.executable, "-m", "frugalnet.train_all"], cwd=project) as command:
            while command.poll() is None:
                time.sleep(10)
                cluster.remove_node(present.pop(0), allow_graceful=False)
                present.append(cluster.add_node(num_cpus=1))
                lost += 1
        took = time.monotonic() - began
        trained = len(list((project / "results/train").glob("*/run.json")))
        print(
            f"exit code {command.returncode}; {trained} of {count} on {nodes} pretend nodes in {took:.0f} s, with "
            f"{lost} nodes lost; beside its second an item took {took * nodes / count - 1:.1f} s of a node; "
            f"{_mlflow_runs()} MLflow runs, {log.read_text().count(' HTTP/1.1') / took:.1f} requests a second"
        )


def _mlflow_runs() -> int:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return len(client.search_runs(experiments, "tags.fingerprint != ''", max_results=10_000))


def _stub_project(folder: Path, count: int) -> Path:
    """A project whose trainings sleep for a second; the stages before them have run."""
    from dvc.utils.hydra import compose_and_dump
    from torture import clone

    clone(folder)
    settings = ["data=sample", "train=demo", "model=depthwise", f"seeds={list(range(count))}", "compute.threads=1"]
    settings += ["augment.views=1", "data.train_per_class=40", "robustness=none", "adapt=none"]
    compose_and_dump(folder / "params.yaml", str(ROOT / "conf"), None, "config", "", settings)
    trained = ("history.csv", "run.json", "timing.json")
    evaluated = ("predictions.npz", "per_class.csv", "layers.csv", "metrics.json")
    (folder / "pipeline/train.py").write_text(STUB.replace("FILES", repr(trained)))
    (folder / "pipeline/evaluate.py").write_text(
        "import os\nfrom pathlib import Path\nname = os.environ['DVC_STAGE'].partition('@')[2]\n"
        f"for each in {evaluated!r}:\n    path = Path('results/evaluate', name, each)\n"
        "    path.parent.mkdir(parents=True, exist_ok=True)\n    path.write_text(name)\n"
    )
    command = [sys.executable, "-m", "dvc", "repro", "--quiet", "augment", "teach", "start"]
    subprocess.run(command, cwd=folder, check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("speed")
    commands.add_parser("start")
    measured = commands.add_parser("items")
    measured.add_argument("--items", type=int, default=64)
    measured.add_argument("--nodes", type=int, default=8)
    one = commands.add_parser("train", help="one of the trainings that `speed` starts")
    one.add_argument("settings", nargs=4)
    arguments = parser.parse_args()
    if arguments.command == "items":
        items(arguments.items, arguments.nodes)
    elif arguments.command == "train":
        model, threads, began, seconds = arguments.settings
        train(model, int(threads), float(began), float(seconds))
    else:
        {"speed": speed, "start": start}[arguments.command]()


if __name__ == "__main__":
    main()
