"""Several workers as real processes: they agree with a single process and with themselves, and end in order.

Starting a group of workers takes seconds, so groups train for many tests: `two`, `one`, `stopped`.
"""

import contextlib
import copy
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed_worker
import numpy as np
import pytest
import torch
from distributed_worker import EVEN, UNEVEN, Fault, Training, Trainings, new_trainer, work
from dvc.utils.hydra import compose_and_dump
from ruamel.yaml import YAML
from tiny import RECIPE, TRAIN, VALIDATION, bits, images_of

from frugalnet import config
from frugalnet.distributed import launch
from frugalnet.distributed.config import Ddp, GlobalNet, LaunchConfig
from frugalnet.distributed.exchange import shard
from frugalnet.distributed.parameter_server import DONE, JOIN, STOP, GlobalNetwork
from frugalnet.distributed.replicas import synchronise_batch_norm
from frugalnet.distributed.worker import Worker
from frugalnet.errors import UserError
from frugalnet.training.batches import Examples, batch_indices
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.config import TrainConfig
from frugalnet.training.loop import fit
from frugalnet.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
LAUNCH = LaunchConfig(backend="auto", timeout_minutes=5.0, restarts=0)
COMMON = {"workers": 2, "batch": "divided", "learning_rate_scale": 1.0}
PLAIN = {"batch_norm": "averaged", "warmup": 0, "warmup_exchanges": 1, "outer_momentum": 0}  # averages
GLOBAL_NET = GlobalNet(
    kind="global_net", period=1, exchange="synchronous", optimiser_state="averaged", staleness=16, **PLAIN, **COMMON
)
DDP = Ddp(kind="ddp", sync_batch_norm=True, **COMMON)
KEPT, RESET = (GLOBAL_NET.model_copy(update={"optimiser_state": policy}) for policy in ("kept", "reset"))
BEST = GLOBAL_NET.model_copy(
    update={"batch_norm": "measured", "warmup": 0.6, "warmup_exchanges": 2, "outer_momentum": 0.6}
)
EVERY_SECOND = GLOBAL_NET.model_copy(update={"period": 2})
ASYNCHRONOUS = GLOBAL_NET.model_copy(update={"exchange": "asynchronous", "optimiser_state": "kept"})
AVERAGED = GLOBAL_NET.model_copy(update={"exchange": "asynchronous"})
ASYNCHRONOUS_MEASURED = ASYNCHRONOUS.model_copy(update={"batch_norm": "measured"})
NOT_FINITE = RECIPE.model_copy(update={"learning_rate": 1e30})
SLOWLY = Fault(seconds=[0.0125, 0.0125])  # per image: an epoch takes each of two workers a second
STOPS = Fault(signal="SIGTERM")  # worker 1 within the second epoch
KILLED = Fault(signal="SIGKILL")
WITHOUT = "without batch norm"
FAILING = {"global": GLOBAL_NET, "asynchronous": ASYNCHRONOUS, "ddp": DDP}
CPU = torch.device("cpu")


def write(folder: Path, trainings: dict[str, Training], workers: int, how: LaunchConfig = LAUNCH) -> Trainings:
    folder.mkdir(exist_ok=True)
    described = Trainings(workers=workers, launch=how, trainings=trainings)
    (folder / "trainings.json").write_text(described.model_dump_json())
    return described


def run(folder: Path, trainings: dict[str, Training], workers: int = 2, how: LaunchConfig = LAUNCH) -> dict[str, list]:
    """Run the trainings in so many processes; what each of them left in each."""
    write(folder, trainings, workers, how)
    launch.start(workers, how, work, str(folder))
    return left(folder, workers)


def left(folder: Path, workers: int = 2) -> dict[str, list[dict]]:
    """Training → what each worker left."""
    finished = [path.parent for path in folder.glob("*/0.pt")]
    return {path.name: [torch.load(path / f"{rank}.pt") for rank in range(workers)] for path in finished}


def start(folder: Path, *launcher: str) -> subprocess.Popen:
    """The workers of `folder` under a parent of their own."""
    return subprocess.Popen(
        [sys.executable, *launcher, distributed_worker.__file__, str(folder)],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        },
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_first_epoch(folder: Path, parent: subprocess.Popen) -> None:
    while not list(folder.glob("run/checkpoints/host-0/*.ckpt")):
        assert parent.poll() is None, parent.communicate()[1]
        time.sleep(0.05)


def processes_left(parent: subprocess.Popen) -> list[str]:
    """The processes of its session that have not ended within some seconds; Python's resource tracker is the last."""
    deadline = time.monotonic() + 30
    while True:
        fields = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                fields[stat.parent.name] = stat.read_text().rsplit(")", 1)[1].split()
        mine = {pid: state for pid, (state, _, _, session, *_) in fields.items() if int(session) == parent.pid}
        running = [pid for pid, state in mine.items() if state != "Z"]
        if not running or time.monotonic() > deadline:
            return running
        time.sleep(0.1)


def alone(folder: Path, recipe: TrainConfig = RECIPE, count: int = EVEN, network: str = "residual") -> Trainer:
    trainer = new_trainer(recipe, count, network)
    examples = Examples(lambda epoch: images_of(epoch)[:count], TRAIN.labels[:count])
    fit(trainer, examples, VALIDATION, Checkpoints(folder))
    return trainer


def bits_of(weights: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in weights.items()}


@pytest.fixture(scope="module")
def two_folder(tmp_path_factory) -> Path:
    """Two workers, one group: all that the tests compare, then runs that stop and resume, then one that fails."""
    trainings = {
        "global": Training(config=GLOBAL_NET),
        "again": Training(config=GLOBAL_NET),
        "once": Training(config=GLOBAL_NET, recipe=RECIPE.model_copy(update={"epochs": 1})),
        "kept": Training(config=KEPT),
        "reset": Training(config=RESET),
        "best": Training(config=BEST),
        "every second": Training(config=EVERY_SECOND),
        "asynchronous": Training(config=ASYNCHRONOUS),
        "asynchronous measured": Training(config=ASYNCHRONOUS_MEASURED),
        "ddp": Training(config=DDP),
        "ddp again": Training(config=DDP),
        "ddp even": Training(config=DDP, images=EVEN, network=WITHOUT),
        "ddp uneven": Training(config=DDP, network=WITHOUT),
        **{f"{name} not finite": Training(config=config, recipe=NOT_FINITE) for name, config in FAILING.items()},
    }
    trainings["one diverges"] = Training(config=GLOBAL_NET, fault=Fault(signal="diverge", step=5))
    for name, policy in {"kept": KEPT, "best": BEST, "ddp": DDP}.items():
        trainings[f"{name} stopped"] = Training(config=policy, fault=STOPS)
        trainings[f"{name} resumed"] = Training(config=policy, resumes=f"{name} stopped")
    folder = tmp_path_factory.mktemp("two")
    write(folder, trainings | {"refused": Training(config=GLOBAL_NET, recipe=NOT_FINITE)}, 2)
    with pytest.raises(UserError) as refusal:  # the last one's
        launch.start(2, LAUNCH, work, str(folder))
    (folder / "refusal.txt").write_text(str(refusal.value))
    return folder


@pytest.fixture(scope="module")
def two(two_folder) -> dict[str, list[dict]]:
    return left(two_folder)


def run_here(folder: Path, trainings: dict[str, Training]) -> dict[str, list[dict]]:
    """Run the trainings with one worker, this process."""
    with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1], "GLOO_SOCKET_IFNAME": "lo"}
        place |= {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "GROUP_RANK": 0}
        for name, value in place.items():
            patch.setenv(name, str(value))
        free.close()
        write(folder, trainings, 1)
        ctrl_c = signal.getsignal(signal.SIGINT)
        assert work(str(folder)) is None
        signal.signal(signal.SIGINT, ctrl_c)  # a training that was stopped leaves it ignored
    return left(folder, 1)


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory) -> Path:
    trainings = {
        "global": Training(config=GLOBAL_NET),
        "kept": Training(config=KEPT),
        "best": Training(config=BEST),
        "asynchronous": Training(config=ASYNCHRONOUS),
        "asynchronous averaged": Training(config=AVERAGED),
        "ddp": Training(config=DDP),
        "stopped early": Training(config=AVERAGED, fault=STOPS.model_copy(update={"ranks": [0], "epoch": 0})),
        "stopped": Training(config=AVERAGED, fault=STOPS.model_copy(update={"ranks": [0]})),
        "asynchronous resumed": Training(config=AVERAGED, resumes="stopped"),
    }
    folder = tmp_path_factory.mktemp("one")
    run_here(folder, trainings)
    return folder


@pytest.fixture(scope="module")
def one(one_folder) -> dict[str, list[dict]]:
    return left(one_folder, 1)


@pytest.mark.parametrize(("count", "steps", "world"), [(160, 5, 2), (157, 5, 3), (1000, 4, 7), (10, 5, 1)])
def test_shards_are_disjoint_and_cover_the_epoch_step_by_step(count, steps, world):
    whole = batch_indices(0, 3, count, steps)
    shards = [shard(whole, rank, world) for rank in range(world)]
    for step, indices in enumerate(whole):
        assert sorted(np.concatenate([mine[step] for mine in shards])) == sorted(indices)
    sizes = [sum(map(len, mine)) for mine in shards]
    assert max(sizes) - min(sizes) <= 1


def test_the_images_of_a_shard_depend_on_seed_epoch_rank_and_world_alone():
    for steps in (1, 5, 40):  # not on the batches
        mine = np.concatenate(shard(batch_indices(0, 3, 160, steps), 1, 3))
        assert (mine == np.concatenate(shard(batch_indices(0, 3, 160, 1), 1, 3))).all()


@pytest.mark.parametrize("name", ["global", "kept", "best", "asynchronous", "asynchronous averaged", "ddp"])
def test_one_worker_gives_the_bits_of_a_single_process(tmp_path, one, name):
    single = alone(tmp_path / "single", count=UNEVEN)
    assert bits_of(one[name][0]["weights"]) == bits(single)
    for row, mine in zip(single.history.rows, one[name][0]["rows"], strict=True):
        assert mine | row == mine


def test_a_signal_within_an_asynchronous_epoch_leaves_the_global_network_to_resume_from(one, one_folder):
    assert list(
        one_folder.glob("stopped early/checkpoints/host-0/00000-00000000.ckpt")
    )  # before the first epoch is finished
    assert "stopped by SIGTERM; a checkpoint is written" in one["stopped"][0]["ended"]
    resumed, undisturbed = (one[name][0]["weights"] for name in ("asynchronous resumed", "asynchronous averaged"))
    trained = {name for name in undisturbed if "num_batches" not in name}  # steps that are repeated are counted twice
    assert bits_of({name: resumed[name] for name in trained}) == bits_of({name: undisturbed[name] for name in trained})


def test_the_same_run_gives_the_same_bits_again(two):
    for name, again in (("global", "again"), ("ddp", "ddp again")):
        assert bits_of(two[name][0]["weights"]) == bits_of(two[again][0]["weights"])
    assert two["global"][0]["rows"] == two["again"][0]["rows"]


@pytest.mark.parametrize("name", ["global", "kept", "reset", "best", "every second", "ddp", "ddp uneven"])
def test_all_workers_end_with_the_same_network(two, name):
    assert bits_of(two[name][0]["weights"]) == bits_of(two[name][1]["weights"])
    assert two[name][0]["rows"] == two[name][1]["rows"]


@pytest.mark.parametrize(("name", "count"), [("ddp even", EVEN), ("ddp uneven", UNEVEN)])
def test_replicas_without_batch_norm_are_one_process_within_rounding(tmp_path, two, name, count):
    single = alone(tmp_path / "single", count=count, network=WITHOUT)
    for key, tensor in single.network.state_dict().items():
        torch.testing.assert_close(two[name][0]["weights"][key], tensor, rtol=1e-4, atol=1e-6)
    for row, mine in zip(single.history.rows, two[name][0]["rows"], strict=True):
        assert mine["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)


def test_on_cuda_batch_norm_becomes_torchs_own_over_all_workers_and_on_the_cpu_stays():
    network = new_trainer().network
    parameters, keys = list(network.parameters()), list(network.state_dict())
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    assert synchronise_batch_norm(network, CPU) is network
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in network.modules())
    converted = synchronise_batch_norm(network, torch.device("cuda"))
    assert sum(isinstance(module, torch.nn.SyncBatchNorm) for module in converted.modules()) == norms > 0
    assert all(a is b for a, b in zip(converted.parameters(), parameters, strict=True))  # which the optimiser knows
    assert list(converted.state_dict()) == keys


def test_the_energy_counter_is_read_at_checks_not_at_every_step(monkeypatch):
    worker = stub(0, GLOBAL_NET)
    laps = []
    lap = worker.trainer._stopwatch.lap
    monkeypatch.setattr(worker.trainer._stopwatch, "lap", lambda: laps.append(1) or lap())
    assert worker.train_shard(0, lambda: 0) == 0
    assert worker.trainer.step == 5
    assert len(laps) == 2  # as the shard begins and at the epoch's last step


def test_one_worker_follows_the_recipe_unchanged():
    config = YAML(typ="safe").load((ROOT / "conf/distributed/global_net.yaml").read_text(encoding="utf-8"))
    assert GlobalNet.model_validate(config | {"workers": 1}).recipe(RECIPE) == RECIPE
    together = GlobalNet.model_validate(config | {"workers": 3}).recipe(RECIPE)
    assert (together.batch_size, together.learning_rate) == (3 * 32, pytest.approx(0.6 * 0.05))


def test_an_exchange_averages_weights_statistics_and_momentum_by_the_images_of_each_shard(two):
    once = RECIPE.model_copy(update={"epochs": 1})
    sub_models = []
    for rank in range(2):
        worker = stub(rank, GLOBAL_NET, once)
        assert worker.train_shard(rank, lambda: 0) == 0
        sub_models.append(worker.exchanged())
    weighted = [first * 79 / 157 + second * 78 / 157 for first, second in zip(*sub_models, strict=True)]
    equally = [(first + second) / 2 for first, second in zip(*sub_models, strict=True)]
    for worker_left in two["once"]:
        momentum = worker_left["optimiser"]["state"]
        got = [tensor for tensor in worker_left["weights"].values() if tensor.is_floating_point()]
        got += [momentum[key]["momentum_buffer"] for key in sorted(momentum)]
        torch.testing.assert_close(got, weighted, rtol=1e-5, atol=1e-7)
        assert not all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(got, equally, strict=True))


def stub(rank: int, config: Any, recipe: TrainConfig = RECIPE) -> Worker:
    """One of two workers, without the other."""
    trainer, peers = new_trainer(recipe, UNEVEN), SimpleNamespace(rank=rank, world=2)
    return Worker(trainer, peers, config, lambda e: images_of(e)[:UNEVEN], TRAIN.labels[:UNEVEN], VALIDATION)


def test_measured_statistics_are_those_of_the_networks_own_activations():
    worker = stub(1, BEST)
    assert worker.train_shard(1, lambda: 0) == 0
    trained = worker.trainer.network.state_dict()
    kept = {name: tensor.clone() for name, tensor in trained.items() if "running" not in name and "num" not in name}
    norm = next(m for m in worker.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    came_in: list[torch.Tensor] = []
    hook = norm.register_forward_pre_hook(lambda module, inputs: came_in.append(inputs[0]))
    assert worker.measure_statistics(1, 40)
    hook.remove()
    mine = shard(batch_indices(0, 0, UNEVEN, 5), 1, 2)[:3]  # 16 or 15 images each: three batches for 40
    assert [len(inputs) for inputs in came_in] == list(map(len, mine))
    means = [inputs.mean((0, 2, 3)) for inputs in came_in]
    variances = [inputs.transpose(0, 1).flatten(1).var(1) for inputs in came_in]
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0))
    images = worker.trainer.normalise(torch.from_numpy(images_of(0)[mine[0]]))
    torch.testing.assert_close(
        came_in[0], next(m for m in worker.network.modules() if isinstance(m, torch.nn.Conv2d))(images)
    )
    for name, tensor in kept.items():
        assert torch.equal(trained[name], tensor)
    assert norm.momentum == 0.1
    assert norm.training
    assert not stub(1, GLOBAL_NET).measure_statistics(1, 40)


@pytest.mark.parametrize("name", ["best", "asynchronous measured"])
def test_the_global_network_ends_with_statistics_measured_on_the_last_epoch(two, name):
    measured = []
    for rank in range(2):
        worker = stub(rank, BEST)
        worker.network.load_state_dict(two[name][0]["weights"])
        worker.trainer.epoch = RECIPE.epochs - 1
        worker.measure_statistics(rank, UNEVEN)
        measured.append(worker.statistics())
    got = [tensor for key, tensor in two[name][0]["weights"].items() if "running" in key]
    expected = measured[0] if name.startswith("asynchronous") else [(a + b) / 2 for a, b in zip(*measured, strict=True)]
    torch.testing.assert_close(got, expected)
    worker.network.load_state_dict(two[name][0]["weights"])
    written = worker.trainer.figures(VALIDATION)
    for key in ("validation_loss", "validation_top1"):
        assert two[name][0]["rows"][-1][key] == pytest.approx(written[key])


def test_outer_momentum_is_nesterovs_of_the_moves_that_averages_make():
    worker = stub(0, BEST)
    parameters = list(worker.network.parameters())
    twins = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    outer = torch.optim.SGD(twins, lr=1.0, momentum=0.6, nesterov=True)

    for moved in (1.0, -2.0, 0.5):
        worker.peers.average = lambda tensors, weight, moved=moved: [tensor.add_(moved) for tensor in tensors]
        worker.exchange()
        worker.outer_step()
        for twin in twins:
            twin.grad = torch.full_like(twin, -moved)
        outer.step()
        torch.testing.assert_close(parameters, twins)


def test_workers_that_join_a_single_one_start_without_momentum():
    worker = stub(0, BEST)
    worker.peers.average = lambda tensors, weight: [tensor.add_(1) for tensor in tensors]
    for world, moved in ((1, 1.0), (1, 1.0), (2, 1.6)):
        worker.peers.world = world
        start = next(worker.network.parameters()).clone()
        worker.exchange()
        worker.outer_step()
        torch.testing.assert_close(next(worker.network.parameters()) - start, torch.full_like(start, moved))


def test_the_state_that_a_worker_resumes_from_does_not_change():
    worker = stub(0, BEST)
    worker.peers.average = lambda tensors, weight: [tensor.add_(1) for tensor in tensors]
    saved = copy.deepcopy(worker.state())
    last, velocity = (copy.deepcopy(saved[key]) for key in ("last_average", "velocity"))
    worker.restore(saved)
    worker.exchange()
    worker.outer_step()
    assert all(map(torch.equal, saved["last_average"], last))
    assert all(map(torch.equal, saved["velocity"], velocity))
    assert not torch.equal(worker.last_average[0], last[0])


def test_epochs_of_the_warm_up_have_several_exchanges(two):
    worker = stub(0, BEST.model_copy(update={"warmup_exchanges": 3}))
    assert [worker.exchanges(epoch) for epoch in range(3)] == [[1, 3, 5], [1, 3, 5], [5]]
    worker.trainer.step = 3  # stopped before the exchange after it
    assert worker.exchanges(0) == [3, 5]
    assert stub(0, BEST.model_copy(update={"warmup_exchanges": 9})).exchanges(0) == [1, 2, 3, 4, 5]
    given = {name: [cost["payload_bytes"] for cost in two[name][0]["costs"]] for name in ("global", "best")}
    measured = sum(4 * t.numel() for key, t in two["best"][0]["weights"].items() if "running" in key)
    exchanges = [2, 2, 1]
    assert given["best"] == [count * plain + measured for count, plain in zip(exchanges, given["global"], strict=True)]


def test_the_optimisers_state_after_an_exchange_is_averaged_kept_or_reset(two):
    first, second = (
        {name: left[rank]["optimiser"]["state"] for name, left in two.items() if "weights" in left[0]}
        for rank in range(2)
    )
    assert first["reset"] == second["reset"] == {}
    same = {
        name: all(
            torch.equal(first[name][key]["momentum_buffer"], second[name][key]["momentum_buffer"]) for key in keys
        )
        for name in ("global", "kept")
        if (keys := list(first[name]))
    }
    assert same == {"global": True, "kept": False}


def test_sub_models_curves_stand_beside_the_global_networks(two):
    for name in ("global", "every second", "asynchronous"):
        for row in two[name][0]["rows"]:
            own = [row[f"sub_models/train_loss_{rank}"] for rank in range(2)]
            assert row["train_loss"] == pytest.approx(np.mean(own), rel=0.02) or np.isnan(own).any()
            assert row["validation_top1"] <= 1
    assert [row["epoch"] for row in two["every second"][0]["rows"]] == [1, 2, 3]


def test_a_longer_period_exchanges_fewer_bytes_and_replicas_more(two):
    given = {
        name: [cost["payload_bytes"] for cost in left[0]["costs"]] for name, left in two.items() if "costs" in left[0]
    }
    floats = sum(t.numel() for t in two["kept"][0]["weights"].values() if t.is_floating_point())
    assert given["kept"] == [4 * floats] * 3
    assert given["every second"][0] == 0  # the last exchange is at the end of the run
    assert given["every second"][1] == given["every second"][2] == given["global"][0] > given["kept"][0]
    assert given["ddp"][0] > 5 * 4 * sum(p.numel() for p in new_trainer().network.parameters())  # five steps


def parameter_server(world: int, shards: int, bound: int = 16) -> tuple[GlobalNetwork, dict[str, str]]:
    store: dict[str, str] = {}
    peers = SimpleNamespace(world=world, store=SimpleNamespace(set=store.__setitem__))
    return GlobalNetwork(torch.zeros(2), shards, {}, 0, bound, peers), store


def push(network: GlobalNetwork, rank: int, shard: int, value: float) -> tuple[int, float]:
    """The next shard, and a value of the network that is pulled."""
    following, values = network.exchange(rank, shard, 0.0, [], torch.full((2,), value))
    return following, float(values[-1])


def test_pushes_of_all_that_pulled_the_same_make_their_average():
    network, _ = parameter_server(world=3, shards=6)
    assert [push(network, rank, JOIN, 0.0) for rank in range(3)] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert push(network, 2, 2, 3.0) == (3, 3.0)
    assert push(network, 0, 0, 6.0) == (4, 4.5)
    assert push(network, 1, 1, 0.0)[1] == pytest.approx(3.0)
    ((average, at),) = network.snapshots
    assert average.tolist() == pytest.approx([3.0, 3.0])
    assert at <= time.monotonic()


def test_a_push_that_is_too_stale_is_discarded_and_its_shard_handed_out_again():
    network, store = parameter_server(world=2, shards=6, bound=2)
    late = push(network, 1, JOIN, 0.0)[0]
    shard = push(network, 0, JOIN, 0.0)[0]
    for _ in range(3):
        shard = push(network, 0, shard, 1.0)[0]
    assert push(network, 1, late, 9.0)[1] == 1.0
    assert late not in network.pushed
    handed_out = []
    while shard != DONE:
        handed_out.append(shard)
        shard = push(network, 0, shard, 1.0)[0]
    assert late in handed_out
    assert sorted(network.pushed) == list(range(6))
    assert store == {STOP: ""}


def test_a_shard_is_counted_once_however_often_it_is_pushed():
    network, _ = parameter_server(world=2, shards=2)
    assert [push(network, rank, JOIN, 0.0)[0] for rank in range(2)] == [0, 1]
    assert push(network, 0, 0, 1.0) == (1, 1.0)  # the other worker's, since there is no other
    assert push(network, 0, 1, 2.0) == (DONE, 2.0)
    assert push(network, 1, 1, 9.0) == (DONE, 2.0)


def test_a_worker_that_leaves_after_a_failure_does_not_hide_it():
    network, store = parameter_server(world=2, shards=1)
    assert push(network, 0, 0, 1.0)[0] == DONE
    store[STOP] = "the loss is nan"
    assert push(network, 1, DONE, 1.0)[0] == DONE
    assert store == {STOP: "the loss is nan"}


def compose(folder: Path, *overrides: str) -> config.Params:
    compose_and_dump(folder / "params.yaml", str(ROOT / "conf"), None, "config", "", list(overrides))
    return config.read_params(folder / "params.yaml")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ["distributed=global_net", "distributed.workers=0"],
            "distributed.global_net.workers: .*greater than or equal",
        ),
        (["distributed=ddp", "distributed.workers=-1"], "distributed.ddp.workers: .*greater than or equal to 1"),
        (["launch.backend=mpi"], "launch.backend: .*'auto', 'gloo' or 'nccl'"),
        (["distributed.kind=horovod"], "distributed: .*horovod.*expected tags: 'none', 'ddp', 'global_net'"),
        (["distributed=global_net", "distributed.period=31"], "distributed: .*31 epochs is longer.*train.epochs=30"),
        (["distributed=global_net", "distributed.period=0"], "distributed.global_net.period: .*greater than or equal"),
        (
            [
                "distributed=global_net",
                "distributed.exchange=asynchronous",
                "distributed.staleness=2",
            ],
            "distributed.global_net: .*staleness bound of 2 .* use 3 or more",
        ),
        (["+distributed.workers=4"], "distributed.none.workers: .*not permitted"),
    ],
)
def test_an_impossible_configuration_is_refused_in_one_line(tmp_path, overrides, reason):
    with pytest.raises(UserError, match=rf"^[^\n]*params.yaml: {reason}[^\n]*$"):
        compose(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("changes", "device", "count", "reason"),
    [
        ({"workers": 17}, CPU, 160, "17 workers are too many for batches of 32 images, .*; use at most 16 workers"),
        ({"workers": 4, "batch": "whole"}, CPU, 7, "4 workers are too many for batches of 7 images"),
        ({"backend": "nccl"}, CPU, 160, "backend: 'nccl' is not available for cpu; use auto"),
        ({}, torch.device("mps"), 160, "not on mps; set compute.device to cpu or cuda"),
        ({}, torch.device("cuda:1"), 160, "each on a GPU of its own, not on cuda:1"),
    ],
)
def test_what_this_machine_or_the_data_cannot_do_is_refused_in_one_line(changes, device, count, reason):
    how = LAUNCH.model_copy(update={key: value for key, value in changes.items() if key == "backend"})
    workers = GLOBAL_NET.model_copy(update={key: value for key, value in changes.items() if key != "backend"})
    with pytest.raises(UserError, match=rf"^(distributed|launch)[^\n]*{reason}[^\n]*$"):
        launch.check_workers(workers, how, RECIPE, device, count)


def test_the_most_workers_that_the_data_allow_are_accepted():
    assert launch.check_workers(GLOBAL_NET.model_copy(update={"workers": 16}), LAUNCH, RECIPE, CPU, 160) == "gloo"


def test_how_workers_are_started_is_no_part_of_what_decides_the_weights(tmp_path):
    distributed = compose(tmp_path, "distributed=global_net", "launch.restarts=0", "launch.timeout_minutes=1")
    assert launch.identity(distributed.distributed) == launch.identity(
        compose(tmp_path, "distributed=global_net").distributed
    )
    assert {"restarts", "backend", "timeout_minutes"}.isdisjoint(launch.identity(distributed.distributed))
    assert set(launch.identity(GLOBAL_NET)["source_sha256"]) >= {"worker.py", "synchronous.py", "asynchronous.py"}
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert not any(str(key).startswith("launch") for key in stages["train"]["params"])


def test_a_checkpoint_of_two_workers_is_resumed_by_one_from_the_last_exchange(tmp_path, capfd, two_folder):
    shutil.copytree(two_folder / "kept stopped", tmp_path / "stopped")
    rows = run_here(tmp_path, {"run": Training(config=KEPT, resumes="stopped")})["run"][0]["rows"]
    assert "the checkpoint is from 2 workers; resuming with 1 from its last exchange" in capfd.readouterr().err
    assert [row["epoch"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize("name", ["kept", "best", "ddp"])
def test_workers_that_stop_within_an_epoch_resume_with_the_same_bits(two, name):
    assert all("stopped by SIGTERM; a checkpoint is written" in each["ended"] for each in two[f"{name} stopped"])
    for mine, undisturbed in zip(two[f"{name} resumed"], two[name], strict=True):
        assert bits_of(mine["weights"]) == bits_of(undisturbed["weights"])
        assert mine["rows"] == undisturbed["rows"]
        sent, whole = ([cost["payload_bytes"] for cost in each["costs"]] for each in (mine, undisturbed))
        assert sent == whole


@pytest.mark.parametrize("name", list(FAILING))
def test_a_loss_that_is_not_finite_ends_all_workers(two, name):
    for each in two[f"{name} not finite"]:
        assert re.fullmatch(r"the loss is (nan|inf) at epoch \d, step \d of 5; [^\n]*", each["ended"])


def test_logits_of_one_worker_that_are_not_finite_end_all_of_them(two):
    for each in two["one diverges"]:
        assert re.fullmatch(r"after epoch 2 the logits [^\n]* are not all finite; [^\n]*", each["ended"])


def test_what_only_the_user_can_mend_ends_the_run_in_one_line_without_another_start(two_folder):
    assert re.fullmatch(r"the loss is (nan|inf) [^\n]*", (two_folder / "refusal.txt").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "policy"), [("global", GLOBAL_NET), ("kept", KEPT), ("ddp", DDP)])
def test_other_workers_restart_with_the_same_bits(tmp_path, capfd, two, name, policy):
    again = run(tmp_path, {"run": Training(config=policy, fault=KILLED)}, how=LAUNCH.model_copy(update={"restarts": 1}))
    assert "resuming from the checkpoint: epoch 2, step 1" in capfd.readouterr().err
    assert bits_of(again["run"][0]["weights"]) == bits_of(two[name][0]["weights"])


@pytest.mark.slow
def test_an_asynchronous_worker_that_is_killed_costs_no_epoch(tmp_path, capfd):
    how = LAUNCH.model_copy(update={"restarts": 1})
    again = run(tmp_path, {"run": Training(config=ASYNCHRONOUS, fault=KILLED)}, how=how)
    assert "resuming from the checkpoint" in capfd.readouterr().err
    assert [row["epoch"] for row in again["run"][0]["rows"]] == [1, 2, 3]


@pytest.mark.slow
def test_a_worker_that_is_killed_once_too_often_ends_the_run_in_one_line(tmp_path):
    with pytest.raises(UserError, match=rf"^{FAILED}.*SIGKILL.*$"):
        run(tmp_path, {"run": Training(config=GLOBAL_NET, fault=KILLED)})


FAILED = "worker 1 failed, and launch.restarts allows no further restart: "
ENDS = {"kept": (KEPT, signal.SIGTERM), "best": (BEST, signal.SIGKILL)}


def stop(folder: Path, parent: subprocess.Popen, number: int) -> dict[str, Any]:
    """Send a signal to a parent whose workers have finished an epoch; how all then ended."""
    wait_for_first_epoch(folder, parent)
    sent = time.monotonic()
    parent.send_signal(number)
    said = parent.communicate(timeout=60)[1]
    took = time.monotonic() - sent
    return {"code": parent.returncode, "said": said, "seconds": took, "left": processes_left(parent)}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> dict[str, Any]:
    """Two runs at once on this machine, whose parents then get a signal; then both resume, in one group of workers
    of which one is then killed in a training, and fails in the next."""
    folder = tmp_path_factory.mktemp("stopped")
    parents = {}
    for name, (policy, _) in ENDS.items():
        write(folder / name, {"run": Training(config=policy, fault=SLOWLY)}, 2)
        parents[name] = start(folder / name)
    with ThreadPoolExecutor() as threads:
        ends = {name: threads.submit(stop, folder / name, parents[name], ENDS[name][1]) for name in ENDS}
    ended = {name: end.result() for name, end in ends.items()}
    resumed = {name: Training(config=policy, resumes=f"{name}/run") for name, (policy, _) in ENDS.items()}
    killed = {"killed": Training(config=BEST, fault=KILLED)}
    fails = {"fails": Training(config=GLOBAL_NET, fault=Fault(signal="raise"))}
    with pytest.raises(UserError) as failure:
        run(folder, resumed | killed | fails, how=LAUNCH.model_copy(update={"restarts": 1}))
    return {"ended": ended, "resumed": left(folder), "refusal": str(failure.value)}


def test_a_signal_ends_all_in_ten_seconds_with_a_checkpoint(stopped):
    ended = stopped["ended"]["kept"]
    assert ended["seconds"] < 10
    assert ended["code"] == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; a checkpoint is written" in ended["said"]
    assert ended["left"] == []


def test_workers_end_with_their_parent(stopped):
    assert stopped["ended"]["best"]["left"] == []


def test_workers_restart_after_one_is_killed_and_end_with_the_same_bits(stopped, two):
    assert bits_of(stopped["resumed"]["killed"][0]["weights"]) == bits_of(two["best"][0]["weights"])
    assert stopped["resumed"]["killed"][0]["rows"] == two["best"][0]["rows"]


def test_a_worker_that_fails_once_too_often_ends_the_run_in_one_line(stopped):
    assert stopped["refusal"] == f"{FAILED}OSError: the disk is broken"


@pytest.mark.parametrize("name", ["kept", "best"])
def test_runs_at_once_on_one_machine_do_not_meet(stopped, two, name):
    assert bits_of(stopped["resumed"][name][0]["weights"]) == bits_of(two[name][0]["weights"])
    assert stopped["resumed"][name][0]["rows"] == two[name][0]["rows"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("policy", [KEPT, BEST, ASYNCHRONOUS, DDP])
def test_every_signal_ends_every_kind_of_run(tmp_path, policy, number):
    write(tmp_path, {"run": Training(config=policy, fault=SLOWLY)}, 2)
    ended = stop(tmp_path, start(tmp_path), number)
    assert (ended["code"], ended["left"]) == (128 + number, [])
    assert ended["seconds"] < 10
    again = start(tmp_path)
    assert "resuming from the checkpoint" in again.communicate(timeout=600)[1]
    assert again.returncode == 0


@pytest.mark.slow
def test_a_host_that_is_lost_leaves_the_others_to_finish(tmp_path):
    write(tmp_path, {"run": Training(config=GLOBAL_NET, fault=SLOWLY)}, 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = "-m torch.distributed.run --nnodes=1:2 --nproc-per-node=1 --max-restarts=3 --rdzv-id=hosts"
    words += f" --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:{port} --local-addr=127.0.0.1 --rdzv-conf=is_host="
    stays, goes = (start(tmp_path, *f"{words}{is_host}".split()) for is_host in (1, 0))
    wait_for_first_epoch(tmp_path, stays)
    workers = Path(f"/proc/{goes.pid}/task/{goes.pid}/children").read_text().split()
    for pid in (goes.pid, *map(int, workers)):
        os.kill(pid, signal.SIGKILL)
    goes.communicate()
    said = stays.communicate(timeout=600)[1]
    assert stays.returncode == 0, said
    assert "the checkpoint is from 2 workers; resuming with 1 from its last exchange" in said
    finished = torch.load(tmp_path / "run" / "0.pt")
    assert [row["epoch"] for row in finished["rows"]] == [1, 2, 3]
    assert [cost["workers"] for cost in finished["costs"]] == [2, 1, 1]
    assert processes_left(stays) == []


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])  # worker 0 holds the store by which the others find out who is behind
@pytest.mark.parametrize("policy", [GLOBAL_NET, ASYNCHRONOUS, DDP])
def test_a_worker_that_hangs_is_named_and_the_run_restarts(tmp_path, capfd, policy, rank):
    impatient = LAUNCH.model_copy(update={"restarts": 1, "timeout_minutes": 0.5})
    hangs = Fault(signal="SIGSTOP", ranks=[rank])
    run(tmp_path, {"run": Training(config=policy, fault=hangs)}, how=impatient)
    said = capfd.readouterr().err
    assert f"worker {1 - rank}: no answer from worker {rank} of 2" in said
    assert "resuming from the checkpoint" in said


@pytest.mark.slow
def test_nobody_waits_for_a_straggler_in_an_asynchronous_run(tmp_path):
    recipe, fast, slow = RECIPE.model_copy(update={"epochs": 12}), 0.0125, 0.05
    how = {"recipe": recipe, "images": EVEN, "fault": Fault(seconds=[fast, fast, fast, slow])}
    four = run(tmp_path / "4", {str(p.exchange): Training(config=p, **how) for p in (ASYNCHRONOUS, GLOBAL_NET)}, 4)
    others = run(tmp_path / "3", {"others": Training(config=ASYNCHRONOUS, **how)}, 3)["others"]
    seconds = [each[0]["seconds"] for each in (four["asynchronous"], four["synchronous"], others)]
    print("asynchronous {:.1f} s, synchronous {:.1f} s, the others alone {:.1f} s".format(*seconds))
    assert seconds[0] <= 1.3 * seconds[2]
    assert seconds[1] > 2 * seconds[0]
