"""Several workers, as real processes; what they must agree on with one process, and with themselves."""

import contextlib
import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed_worker
import numpy as np
import pytest
import torch
from distributed_worker import DDP, GLOBAL_NET, new_trainer, work
from dvc.utils.hydra import compose_and_dump
from ruamel.yaml import YAML
from test_training import RECIPE, TRAIN, VALIDATION, bits, images_of

from frugalnet import config
from frugalnet.distributed import launch
from frugalnet.distributed.launch import GlobalNet, share
from frugalnet.distributed.synchronous import _ASKS, _LEAVES, _STOP, GlobalNetwork, Worker
from frugalnet.errors import UserError
from frugalnet.training.batches import batch_indices
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.loop import fit
from frugalnet.training.trainer import TrainConfig, Trainer

ROOT = Path(__file__).parents[1]
EVEN, UNEVEN = 160, 157  # images: the second leave batches, and shares of them, of unequal sizes


def write(folder: Path, trainings: dict[str, tuple[Any, TrainConfig, int]], workers: int, fault: Any = None) -> None:
    folder.mkdir(exist_ok=True)
    plain = {
        name: (config.model_copy(update={"workers": workers}).model_dump(), recipe.model_dump(), count, fault)
        for name, (config, recipe, count) in trainings.items()
    }
    (folder / "trainings.json").write_text(json.dumps(plain))


def run(
    folder: Path, trainings: dict[str, tuple[Any, TrainConfig, int]], workers: int, fault: Any = None
) -> dict[str, list[dict]]:
    """Run the trainings in so many processes; what each of them left in each."""
    write(folder, trainings, workers, fault)
    config = next(iter(trainings.values()))[0].model_copy(update={"workers": workers})
    launch.launch(config, work, str(folder))
    return {name: [torch.load(folder / name / f"{rank}.pt") for rank in range(workers)] for name in trainings}


SLOWLY = {"seconds": [0.0125, 0.0125]}  # an image: each of two workers takes a second for an epoch


def start(folder: Path, config: Any, fault: Any = None) -> subprocess.Popen:
    """Two workers under a parent of their own."""
    write(folder, {"run": (config, RECIPE, UNEVEN)}, 2, fault)
    return process(folder)


def process(folder: Path, *launcher: str) -> subprocess.Popen:
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


def assert_nothing_is_left(parent: subprocess.Popen) -> None:
    """No process of those that it started, some seconds later: Python's resource tracker goes last."""
    deadline = time.monotonic() + 30
    while True:
        fields = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                fields[stat.parent.name] = stat.read_text().rsplit(")", 1)[1].split()
        mine = {pid: state for pid, (state, _, _, session, *_) in fields.items() if int(session) == parent.pid}
        left = [pid for pid, state in mine.items() if state != "Z"]
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def alone(folder: Path, recipe: TrainConfig = RECIPE, count: int = EVEN) -> Trainer:
    trainer = new_trainer(recipe, count)
    fit(trainer, lambda epoch: images_of(epoch)[:count], TRAIN.labels[:count], VALIDATION, Checkpoints(folder))
    return trainer


def bits_of(weights: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in weights.items()}


@pytest.mark.parametrize(("count", "steps", "world"), [(160, 5, 2), (157, 5, 3), (1000, 4, 7), (10, 5, 1)])
def test_shares_are_disjoint_and_cover_the_epoch_step_by_step(count, steps, world):
    turns = batch_indices(0, 3, count, steps)
    shares = [share(turns, rank, world) for rank in range(world)]
    for step, turn in enumerate(turns):
        assert sorted(np.concatenate([mine[step] for mine in shares])) == sorted(turn)
    sizes = [sum(map(len, mine)) for mine in shares]
    assert max(sizes) - min(sizes) <= 1


def test_the_images_of_a_share_depend_on_seed_epoch_rank_and_world_alone():
    for steps in (1, 5, 40):  # not on the batches
        mine = np.concatenate(share(batch_indices(0, 3, 160, steps), 1, 3))
        assert (mine == np.concatenate(share(batch_indices(0, 3, 160, 1), 1, 3))).all()


KEPT, RESET = (GLOBAL_NET.model_copy(update={"momentum": policy}) for policy in ("kept", "reset"))
BEST = GLOBAL_NET.model_copy(
    update={"batch_norm": "measured", "warmup": 0.6, "warmup_exchanges": 2, "outer_momentum": 0.6}
)
EVERY_SECOND = GLOBAL_NET.model_copy(update={"period": 2})
ASYNCHRONOUS = GLOBAL_NET.model_copy(update={"exchange": "asynchronous", "momentum": "kept"})
ASYNCHRONOUS_MEASURED = ASYNCHRONOUS.model_copy(update={"batch_norm": "measured"})


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> dict[str, list[dict]]:
    trainings = {
        "global": (GLOBAL_NET, RECIPE, UNEVEN),
        "again": (GLOBAL_NET, RECIPE, UNEVEN),
        "kept": (KEPT, RECIPE, UNEVEN),
        "reset": (RESET, RECIPE, UNEVEN),
        "best": (BEST, RECIPE, UNEVEN),
        "every second": (EVERY_SECOND, RECIPE, UNEVEN),
        "asynchronous": (ASYNCHRONOUS, RECIPE, UNEVEN),
        "asynchronous measured": (ASYNCHRONOUS_MEASURED, RECIPE, UNEVEN),
        "ddp": (DDP, RECIPE, EVEN),
        "ddp again": (DDP, RECIPE, EVEN),
        "ddp uneven": (DDP, RECIPE, UNEVEN),
        "ddp own statistics": (DDP.model_copy(update={"sync_batch_norm": False}), RECIPE, EVEN),
    }
    return run(tmp_path_factory.mktemp("two"), trainings, workers=2)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> dict[str, list[dict]]:
    trainings = {
        "global": (GLOBAL_NET, RECIPE, UNEVEN),
        "kept": (KEPT, RECIPE, UNEVEN),
        "best": (BEST, RECIPE, UNEVEN),
        "asynchronous": (ASYNCHRONOUS, RECIPE, UNEVEN),
        "asynchronous averaged": (GLOBAL_NET.model_copy(update={"exchange": "asynchronous"}), RECIPE, UNEVEN),
        "ddp": (DDP, RECIPE, UNEVEN),
    }
    return run(tmp_path_factory.mktemp("one"), trainings, workers=1)


@pytest.mark.parametrize("name", ["global", "kept", "best", "asynchronous", "asynchronous averaged", "ddp"])
def test_one_worker_gives_the_bits_of_a_single_process(tmp_path, one, name):
    single = alone(tmp_path / "single", count=UNEVEN)
    assert bits_of(one[name][0]["weights"]) == bits(single)
    for row, mine in zip(single.history.rows, one[name][0]["rows"], strict=True):
        # Figures travel as 32-bit numbers to an asynchronous global network.
        assert mine | row == (pytest.approx(mine, nan_ok=True) if name.startswith("asynchronous") else mine)


def test_the_same_run_gives_the_same_bits_again(two):
    for name in ("global", "ddp"):
        assert bits_of(two[name][0]["weights"]) == bits_of(
            two[f"{name} again" if name == "ddp" else "again"][0]["weights"]
        )
    assert two["global"][0]["rows"] == two["again"][0]["rows"]


@pytest.mark.parametrize("name", ["global", "kept", "reset", "best", "every second", "ddp", "ddp own statistics"])
def test_all_workers_end_with_the_same_network(two, name):
    assert bits_of(two[name][0]["weights"]) == bits_of(two[name][1]["weights"])
    assert two[name][0]["rows"] == two[name][1]["rows"]


@pytest.mark.parametrize(("name", "count"), [("ddp", EVEN), ("ddp uneven", UNEVEN)])
def test_replicas_that_share_batch_statistics_are_one_process_within_rounding(tmp_path, two, name, count):
    single = alone(tmp_path / "single", count=count)
    for key, tensor in single.network.state_dict().items():
        torch.testing.assert_close(two[name][0]["weights"][key], tensor, rtol=2e-3, atol=2e-4)
    for row, mine in zip(single.history.rows, two[name][0]["rows"], strict=True):
        assert mine["train_loss"] == pytest.approx(row["train_loss"], rel=1e-4)


def test_replicas_that_do_not_share_them_are_not(tmp_path, two):
    single, own = alone(tmp_path / "single", count=EVEN).network.state_dict(), two["ddp own statistics"][0]["weights"]
    assert not all(torch.allclose(own[key], tensor, rtol=2e-3, atol=2e-4) for key, tensor in single.items())


def test_one_worker_follows_the_recipe_as_it_is_whatever_serves_several():
    config = YAML(typ="safe").load((ROOT / "conf/distributed/global_net.yaml").read_text(encoding="utf-8"))
    assert GlobalNet.model_validate(config | {"workers": 1}).recipe(RECIPE) == RECIPE
    together = GlobalNet.model_validate(config | {"workers": 3}).recipe(RECIPE)
    assert (together.batch_size, together.learning_rate) == (3 * 32, pytest.approx(0.6 * 0.05))


def test_an_exchange_averages_weights_statistics_and_momentum_by_the_images_of_each_share(tmp_path):
    once = RECIPE.model_copy(update={"epochs": 1})
    left = run(tmp_path, {"run": (GLOBAL_NET, once, UNEVEN)}, workers=2)["run"]
    sub_models = []
    for rank in range(2):
        worker = stub(rank, GLOBAL_NET, once)
        assert worker.train_share(rank, lambda: 0) == 0
        sub_models.append(worker.exchanged())
    weighted = [first * 79 / 157 + second * 78 / 157 for first, second in zip(*sub_models, strict=True)]
    equally = [(first + second) / 2 for first, second in zip(*sub_models, strict=True)]
    for worker_left in left:
        momentum = worker_left["optimiser"]["state"]
        got = [tensor for tensor in worker_left["weights"].values() if tensor.is_floating_point()]
        got += [momentum[key]["momentum_buffer"] for key in sorted(momentum)]
        torch.testing.assert_close(got, weighted, rtol=1e-5, atol=1e-7)
        assert not all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(got, equally, strict=True))


def stub(rank: int, config: Any, recipe: TrainConfig = RECIPE) -> Worker:
    """One of two workers, who talks to nobody."""
    trainer, peers = new_trainer(recipe, UNEVEN), SimpleNamespace(rank=rank, world=2)
    return Worker(trainer, peers, config, lambda e: images_of(e)[:UNEVEN], TRAIN.labels[:UNEVEN], VALIDATION)


def test_measured_statistics_are_those_of_the_networks_own_activations():
    worker = stub(1, BEST)
    assert worker.train_share(1, lambda: 0) == 0
    trained = worker.trainer.network.state_dict()
    kept = {name: tensor.clone() for name, tensor in trained.items() if "running" not in name and "num" not in name}
    norm = next(m for m in worker.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    came_in: list[torch.Tensor] = []
    hook = norm.register_forward_pre_hook(lambda module, inputs: came_in.append(inputs[0]))
    assert worker.measure_statistics(1, 40)
    hook.remove()
    mine = share(batch_indices(0, 0, UNEVEN, 5), 1, 2)[:3]  # 16 or 15 images each: three turns for 40
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
        worker.move_on()
        for twin in twins:
            twin.grad = torch.full_like(twin, -moved)
        outer.step()
        torch.testing.assert_close(parameters, twins)


def test_whoever_joins_a_lonely_worker_begins_without_momentum():
    worker = stub(0, BEST)
    worker.peers.average = lambda tensors, weight: [tensor.add_(1) for tensor in tensors]
    for world, moved in ((1, 1.0), (1, 1.0), (2, 1.6)):
        worker.peers.world = world
        start = next(worker.network.parameters()).clone()
        worker.exchange()
        worker.move_on()
        torch.testing.assert_close(next(worker.network.parameters()) - start, torch.full_like(start, moved))


def test_what_a_worker_goes_on_from_stays_as_it_was_saved():
    worker = stub(0, BEST)
    worker.peers.average = lambda tensors, weight: [tensor.add_(1) for tensor in tensors]
    saved = copy.deepcopy(worker.state())
    before, velocity = (copy.deepcopy(saved[key]) for key in ("before", "velocity"))
    worker.restore(saved)
    worker.exchange()
    worker.move_on()
    assert all(map(torch.equal, saved["before"], before))
    assert all(map(torch.equal, saved["velocity"], velocity))
    assert not torch.equal(worker.before[0], before[0])


def test_warm_up_cuts_its_epochs_by_exchanges(two):
    worker = stub(0, BEST.model_copy(update={"warmup_exchanges": 3}))
    assert [worker.exchanges(epoch) for epoch in range(3)] == [[1, 3, 5], [1, 3, 5], [5]]
    worker.trainer.step = 3  # stopped before the exchange after it
    assert worker.exchanges(0) == [3, 5]
    assert stub(0, BEST.model_copy(update={"warmup_exchanges": 9})).exchanges(0) == [1, 2, 3, 4, 5]
    given = {name: [cost["bytes_given"] for cost in two[name][0]["costs"]] for name in ("global", "best")}
    measured = sum(4 * t.numel() for key, t in two["best"][0]["weights"].items() if "running" in key)
    exchanges = [2, 2, 1]
    assert given["best"] == [count * plain + measured for count, plain in zip(exchanges, given["global"], strict=True)]


def test_the_momentum_after_an_exchange_is_averaged_kept_or_reset(two):
    first, second = ({name: left[rank]["optimiser"]["state"] for name, left in two.items()} for rank in range(2))
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


def test_a_longer_period_exchanges_fewer_bytes_and_a_step_wise_one_more(two):
    given = {name: [cost["bytes_given"] for cost in left[0]["costs"]] for name, left in two.items()}
    floats = sum(t.numel() for t in two["kept"][0]["weights"].values() if t.is_floating_point())
    assert given["kept"] == [4 * floats] * 3
    assert given["every second"][0] == 0  # the last exchange is at the end of the run
    assert given["every second"][1] == given["every second"][2] == given["global"][0] > given["kept"][0]
    assert given["ddp"][0] > 5 * 4 * sum(p.numel() for p in new_trainer().network.parameters())  # five steps


def parameter_server(world: int, shares: int, bound: int = 16) -> tuple[GlobalNetwork, dict[str, str]]:
    store: dict[str, str] = {}
    peers = SimpleNamespace(world=world, store=SimpleNamespace(set=store.__setitem__))
    return GlobalNetwork(torch.zeros(2), shares, {}, 0, bound, peers), store


def give(network: GlobalNetwork, rank: int, share: int, value: float) -> tuple[int, float]:
    """The next share, and the global network's numbers as they are taken."""
    message = torch.tensor([share, 0.0, value, value])
    network.exchange(rank, message)
    return int(message[0]), float(message[-1])


def test_gives_of_all_that_took_the_same_make_their_average():
    network, _ = parameter_server(world=3, shares=6)
    assert [give(network, rank, _ASKS, 0.0) for rank in range(3)] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert give(network, 2, 2, 3.0) == (3, 3.0)
    assert give(network, 0, 0, 6.0) == (4, 4.5)
    assert give(network, 1, 1, 0.0)[1] == pytest.approx(3.0)
    ((average, at),) = network.snapshots
    assert average.tolist() == pytest.approx([3.0, 3.0])
    assert at <= time.monotonic()


def test_a_give_that_is_too_stale_is_thrown_away_and_its_share_handed_out_again():
    network, store = parameter_server(world=2, shares=6, bound=2)
    late = give(network, 1, _ASKS, 0.0)[0]
    share = give(network, 0, _ASKS, 0.0)[0]
    for _ in range(3):
        share = give(network, 0, share, 1.0)[0]
    assert give(network, 1, late, 9.0)[1] == 1.0
    assert late not in network.given
    handed_out = []
    while share != _LEAVES:
        handed_out.append(share)
        share = give(network, 0, share, 1.0)[0]
    assert late in handed_out
    assert sorted(network.given) == list(range(6))
    assert store == {_STOP: ""}


def test_a_share_is_counted_once_however_often_it_is_given():
    network, _ = parameter_server(world=2, shares=2)
    assert [give(network, rank, _ASKS, 0.0)[0] for rank in range(2)] == [0, 1]
    assert give(network, 0, 0, 1.0) == (1, 1.0)  # the other one's, for lack of any else
    assert give(network, 0, 1, 2.0) == (_LEAVES, 2.0)
    assert give(network, 1, 1, 9.0) == (_LEAVES, 2.0)


def compose(folder: Path, *overrides: str) -> config.Params:
    compose_and_dump(folder / "params.yaml", str(ROOT / "conf"), None, "config", "", list(overrides))
    return config.load(folder / "params.yaml")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ["distributed=global_net", "distributed.workers=0"],
            "distributed.global_net.workers: .*greater than or equal",
        ),
        (["distributed=ddp", "distributed.workers=-1"], "distributed.ddp.workers: .*greater than or equal to 1"),
        (["distributed=ddp", "distributed.backend=mpi"], "distributed.ddp.backend: .*'auto', 'gloo' or 'nccl'"),
        (["distributed.kind=horovod"], "distributed: .*horovod.*expected tags: 'none', 'ddp', 'global_net'"),
        (["distributed=global_net", "distributed.period=31"], "distributed: .*31 epochs is longer.*train.epochs=30"),
        (["distributed=global_net", "distributed.period=0"], "distributed.global_net.period: .*greater than or equal"),
        (
            [
                "distributed=global_net",
                "distributed.exchange=asynchronous",
                "distributed.staleness=2",
            ],
            "distributed.global_net: .*staleness bound of 2 .* it takes 3 or more",
        ),
        (["+launch.workers=4"], "distributed.none.workers: .*not permitted"),
    ],
)
def test_an_impossible_configuration_is_refused_in_one_line(tmp_path, overrides, reason):
    with pytest.raises(UserError, match=rf"^[^\n]*params.yaml: {reason}[^\n]*$"):
        compose(tmp_path, *overrides)


CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "device", "count", "reason"),
    [
        ({"workers": 17}, CPU, 160, "17 are more than batches of 32 images can feed: .*; 16 workers at most"),
        ({"workers": 4, "batch": "whole"}, CPU, 7, "4 are more than batches of 7 images can feed"),
        ({"backend": "nccl"}, CPU, 160, "backend: 'nccl' is not there for cpu; say auto"),
        ({}, torch.device("mps"), 160, "not on mps: compute.device=cpu"),
    ],
)
def test_what_this_machine_or_the_data_cannot_do_is_refused_in_one_line(changes, device, count, reason):
    with pytest.raises(UserError, match=rf"^distributed[^\n]*{reason}[^\n]*$"):
        launch.check(GLOBAL_NET.model_copy(update=changes), RECIPE, device, count)


def test_the_most_workers_that_can_be_fed_are_accepted():
    assert launch.check(GLOBAL_NET.model_copy(update={"workers": 16}), RECIPE, CPU, 160) == "gloo"


def test_a_checkpoint_of_more_workers_is_gone_on_from_its_last_exchange(tmp_path, capfd):
    start(tmp_path, KEPT, {"signal": "SIGTERM", "rank": 1, "epoch": 1, "step": 3}).communicate(timeout=600)
    write(tmp_path, {"run": (KEPT, RECIPE, UNEVEN)}, workers=1)
    launch.launch(KEPT.model_copy(update={"workers": 1}), work, str(tmp_path))
    assert "2 workers wrote the checkpoint, 1 go on from its last exchange" in capfd.readouterr().err
    rows = torch.load(tmp_path / "run" / "0.pt")["rows"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]


SIGKILL = {"signal": "SIGKILL", "rank": 1, "epoch": 1, "step": 3}


@pytest.mark.parametrize(
    ("name", "config"), [("global", GLOBAL_NET), ("kept", KEPT), ("best", BEST), ("ddp uneven", DDP)]
)
def test_a_killed_worker_is_started_again_and_the_run_ends_with_the_same_bits(tmp_path, capfd, two, name, config):
    once = config.model_copy(update={"restarts": 1})
    left = run(tmp_path, {"run": (once, RECIPE, UNEVEN)}, workers=2, fault=SIGKILL)
    assert "going on from the checkpoint: epoch 2, step 1" in capfd.readouterr().err
    assert bits_of(left["run"][0]["weights"]) == bits_of(two[name][0]["weights"])
    assert left["run"][0]["rows"] == two[name][0]["rows"]


@pytest.mark.parametrize(("signal", "reason"), [("SIGKILL", ".*SIGKILL.*"), ("none", "OSError: the disk is broken")])
def test_a_worker_that_fails_once_too_often_ends_the_run_in_one_line(tmp_path, signal, reason):
    with pytest.raises(UserError, match=f"^worker 1 failed once more than launch.restarts allows: {reason}$"):
        run(tmp_path, {"run": (GLOBAL_NET, RECIPE, UNEVEN)}, workers=2, fault=SIGKILL | {"signal": signal})


@pytest.mark.parametrize("config", [GLOBAL_NET, ASYNCHRONOUS, DDP])
def test_a_loss_that_is_not_finite_ends_all_workers_without_another_start(tmp_path, capfd, config):
    with pytest.raises(UserError, match=r"^the loss is (nan|inf) at epoch \d, step \d of 5; [^\n]*$"):
        run(tmp_path, {"run": (config, RECIPE.model_copy(update={"learning_rate": 1e30}), UNEVEN)}, workers=2)
    assert "going on" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("kept", signal.SIGTERM),
        ("best", signal.SIGINT),
        ("asynchronous", signal.SIGTERM),
        ("ddp", signal.SIGINT),
        pytest.param("kept", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("best", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("asynchronous", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("ddp", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_all_in_ten_seconds_with_a_checkpoint(tmp_path, two, name, number):
    config = {"kept": KEPT, "best": BEST, "asynchronous": ASYNCHRONOUS, "ddp": DDP}[name]
    parent = start(tmp_path, config, SLOWLY)
    while not list(tmp_path.glob("run/checkpoints/host-0/*.ckpt")):  # of the first epoch
        assert parent.poll() is None
        time.sleep(0.05)
    sent = time.monotonic()
    parent.send_signal(number)
    said = parent.communicate(timeout=60)[1]
    assert time.monotonic() - sent < 10
    assert parent.returncode == 128 + number
    assert f"stopped by {signal.Signals(number).name}; a checkpoint is written" in said
    assert_nothing_is_left(parent)
    again = start(tmp_path, config)
    assert "going on from the checkpoint" in again.communicate(timeout=600)[1]
    assert again.returncode == 0
    if name in ("kept", "best"):
        assert bits_of(torch.load(tmp_path / "run" / "0.pt")["weights"]) == bits_of(two[name][0]["weights"])


def test_two_runs_at_once_on_one_machine_do_not_meet(tmp_path, two):
    both = [start(tmp_path / name, GLOBAL_NET, SLOWLY) for name in "ab"]
    for parent in both:
        parent.communicate(timeout=600)
    for name, parent in zip("ab", both, strict=True):
        assert parent.returncode == 0
        assert bits_of(torch.load(tmp_path / name / "run" / "0.pt")["weights"]) == bits_of(two["global"][0]["weights"])
        assert_nothing_is_left(parent)


@pytest.mark.slow
def test_a_host_that_is_lost_leaves_the_others_to_finish(tmp_path):
    write(tmp_path, {"run": (GLOBAL_NET, RECIPE, UNEVEN)}, 2, SLOWLY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = "-m torch.distributed.run --nnodes=1:2 --nproc-per-node=1 --max-restarts=3 --rdzv-id=hosts"
    words += f" --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:{port} --local-addr=127.0.0.1 --rdzv-conf=is_host="
    stays, goes = (process(tmp_path, *f"{words}{is_host}".split()) for is_host in (1, 0))
    while not list(tmp_path.glob("run/checkpoints/host-0/*.ckpt")):  # of the first epoch
        assert stays.poll() is None
        time.sleep(0.05)
    workers = Path(f"/proc/{goes.pid}/task/{goes.pid}/children").read_text().split()
    for pid in (goes.pid, *map(int, workers)):
        os.kill(pid, signal.SIGKILL)
    goes.communicate()
    said = stays.communicate(timeout=600)[1]
    assert stays.returncode == 0, said
    assert "2 workers wrote the checkpoint, 1 go on from its last exchange" in said
    left = torch.load(tmp_path / "run" / "0.pt")
    assert [row["epoch"] for row in left["rows"]] == [1, 2, 3]
    assert [cost["workers"] for cost in left["costs"]] == [2, 1, 1]
    assert_nothing_is_left(stays)


def test_workers_end_with_their_parent(tmp_path):
    parent = start(tmp_path, GLOBAL_NET, SLOWLY)
    while not list(tmp_path.glob("run/checkpoints/host-0/*.ckpt")):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.communicate()
    assert_nothing_is_left(parent)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])  # worker 0 keeps the store by which the others find out who is behind
@pytest.mark.parametrize("config", [GLOBAL_NET, ASYNCHRONOUS, DDP])
def test_a_worker_that_hangs_is_named_and_the_run_goes_on_without_waiting_for_it(tmp_path, capfd, config, rank):
    impatient = config.model_copy(update={"restarts": 1, "timeout_minutes": 0.5})
    run(tmp_path, {"run": (impatient, RECIPE, UNEVEN)}, workers=2, fault=SIGKILL | {"signal": "SIGSTOP", "rank": rank})
    said = capfd.readouterr().err
    assert f"worker {1 - rank}: no word from worker {rank} of 2" in said
    assert "going on from the checkpoint" in said


@pytest.mark.slow
def test_nobody_waits_for_a_straggler_in_an_asynchronous_run(tmp_path):
    fast, slow, recipe = 0.0125, 0.05, RECIPE.model_copy(update={"epochs": 12})
    four = {"seconds": [fast, fast, fast, slow]}
    asynchronous = run(tmp_path / "four", {"run": (ASYNCHRONOUS, recipe, EVEN)}, workers=4, fault=four)["run"]
    synchronous = run(tmp_path / "in step", {"run": (GLOBAL_NET, recipe, EVEN)}, workers=4, fault=four)["run"]
    others = run(tmp_path / "three", {"run": (ASYNCHRONOUS, recipe, EVEN)}, workers=3, fault=four)["run"]
    seconds = [left[0]["seconds"] for left in (asynchronous, synchronous, others)]
    print("asynchronous {:.1f} s, synchronous {:.1f} s, the others alone {:.1f} s".format(*seconds))
    assert seconds[0] <= 1.3 * seconds[2]
    assert seconds[1] > 2 * seconds[0]
