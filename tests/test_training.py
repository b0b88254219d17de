import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import RECIPE, TRAIN, VALIDATION, bits, coloured_noise, images_of
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from frugalnet import models
from frugalnet.compute import setup
from frugalnet.compute_config import ComputeConfig
from frugalnet.errors import UserError
from frugalnet.files import sha256
from frugalnet.metrics import counts, energy
from frugalnet.metrics.accuracy import cross_entropy, top_k
from frugalnet.metrics.counts import macs
from frugalnet.run import Run
from frugalnet.training import runs
from frugalnet.training.batches import Examples, Normaliser
from frugalnet.training.checkpoint import Checkpoints
from frugalnet.training.config import TrainConfig
from frugalnet.training.inference import infer, load_weights, save_weights
from frugalnet.training.job import Job
from frugalnet.training.loop import Interrupted, _Progress, fit
from frugalnet.training.trainer import Trainer, resolution

EXAMPLES = Examples(images_of, TRAIN.labels)


def train(
    folder: Path, recipe: TrainConfig = RECIPE, model: str = "depthwise", on_epoch=lambda history: None, *,
    examples: Examples = EXAMPLES, checkpoint_minutes: float = math.inf,
) -> Trainer:  # fmt: skip
    normalise = Normaliser([120.0] * 3, [60.0] * 3, torch.device("cpu"))
    trainer = Trainer(model, 0, 4, len(TRAIN.labels), normalise, recipe)
    fit(trainer, examples, VALIDATION, Checkpoints(folder), on_epoch, checkpoint_minutes)
    return trainer


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Trainer:
    return train(tmp_path_factory.mktemp("uninterrupted") / "run")


@pytest.mark.parametrize("model", ["alexnet", "depthwise", "residual"])
def test_each_network_learns(tmp_path, model):
    trainer = train(tmp_path / "run", RECIPE.model_copy(update={"epochs": 6}), model)
    assert trainer.history.rows[-1]["validation_top1"] > 0.9
    assert trainer.history.rows[-1]["train_loss"] < trainer.history.rows[0]["train_loss"]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "resnet18" else [])
        for name in models.available()
        if name not in ("alexnet", "depthwise", "residual")
    ],
)
def test_every_other_architecture_trains(tmp_path, model):
    recipe, few = RECIPE.model_copy(update={"epochs": 3, "batch_size": 16}), coloured_noise(64, 0)
    trainer = Trainer(model, 0, 4, 64, Normaliser([120.0] * 3, [60.0] * 3, torch.device("cpu")), recipe)
    fit(trainer, Examples(lambda _: few.images, few.labels), few, Checkpoints(tmp_path / "run"))
    assert trainer.history.rows[-1]["train_loss"] < trainer.history.rows[0]["train_loss"]


def test_the_progress_of_a_resumed_run_counts_the_images_of_its_steps():
    recipe = RECIPE.model_copy(update={"batch_size": 50})  # batches are of 40 images: 160 in equal parts
    trainer = Trainer("depthwise", 0, 4, 160, Normaliser([120.0] * 3, [60.0] * 3, torch.device("cpu")), recipe)
    trainer.epoch, trainer.step = 1, 3
    assert _Progress(trainer)._bar.n == 160 + 3 * 40


def test_the_same_inputs_give_the_same_bits(tmp_path, uninterrupted):
    again = train(tmp_path / "run")
    assert bits(again) == bits(uninterrupted)
    assert again.history.rows == uninterrupted.history.rows


def test_another_seed_gives_other_bits(tmp_path, uninterrupted):
    normalise = Normaliser([120.0] * 3, [60.0] * 3, torch.device("cpu"))
    other = Trainer("depthwise", 1, 4, len(TRAIN.labels), normalise, RECIPE)
    fit(other, EXAMPLES, VALIDATION, Checkpoints(tmp_path / "run"))
    assert bits(other) != bits(uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_epochs_leaves_a_checkpoint_that_leads_to_the_same_bits(tmp_path, uninterrupted, number):
    def stop_after_the_first(history):
        if len(history.rows) == 1:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as stop:
        train(tmp_path / "run", on_epoch=stop_after_the_first)
    assert stop.value.exit_code == 128 + number
    resumed = train(tmp_path / "run")
    assert bits(resumed) == bits(uninterrupted)
    assert resumed.history.rows == uninterrupted.history.rows


def test_a_run_stopped_within_an_epoch_resumes_at_the_very_step(tmp_path, uninterrupted, monkeypatch):
    train_batch = Trainer.train_batch

    def stop_at_the_eighth(trainer, images, labels):
        train_batch(trainer, images, labels)
        if (trainer.epoch, trainer.step) == (1, 3):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "train_batch", stop_at_the_eighth)
    with pytest.raises(Interrupted):
        train(tmp_path / "run")
    assert [path.name for path in sorted((tmp_path / "run").iterdir())][-1] == "00001-00000003.ckpt"
    monkeypatch.setattr(Trainer, "train_batch", train_batch)
    resumed = train(tmp_path / "run")
    assert bits(resumed) == bits(uninterrupted)
    assert resumed.history.rows == uninterrupted.history.rows


class Counter:
    """A counter of energy that goes up by a joule whenever it is read."""

    def __init__(self) -> None:
        self.joules = 0

    def read(self) -> int:
        self.joules += 1
        return self.joules


def test_what_an_epoch_spent_survives_a_stop_and_energy_is_none_where_a_part_was_not_counted(tmp_path, monkeypatch):
    train_batch = Trainer.train_batch

    def stop_at_the_eighth(trainer, images, labels):
        train_batch(trainer, images, labels)
        if (trainer.epoch, trainer.step) == (1, 3):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(energy, "_rapl", lambda _: [energy._Counter(Counter().read, 1.0)])
    for folder in ("counted", "uncounted"):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train_batch", stop_at_the_eighth)
            with pytest.raises(Interrupted):
                train(tmp_path / folder)
    stopped = Checkpoints(tmp_path / "counted").load()
    assert stopped is not None
    assert stopped["seconds"] > 0

    timing = train(tmp_path / "counted").history.timing()
    # One reading counts an epoch, at its end; of the stopped epoch, another at the stop.
    assert timing["epoch_joules"] == [1, 2, 1]
    assert timing["epoch_seconds"][1] > stopped["seconds"]
    assert timing["epoch_cpu_seconds"][1] > stopped["cpu_seconds"] > 0

    monkeypatch.setattr(energy, "_rapl", lambda _: [])
    assert train(tmp_path / "uncounted").history.timing()["epoch_joules"] == [1, None, None]


def test_checkpoints_within_an_epoch_change_nothing(tmp_path, uninterrupted):
    assert bits(train(tmp_path / "run", checkpoint_minutes=1e-9)) == bits(uninterrupted)


def test_the_time_between_checkpoints_is_in_minutes(tmp_path, monkeypatch):
    seconds, written = [0.0], []
    train_batch, save = Trainer.train_batch, Checkpoints.save

    def in_45_seconds(*args: Any) -> None:
        train_batch(*args)
        seconds[0] += 45

    def noted(self: Checkpoints, state: dict[str, Any], epoch: int, step: int) -> None:
        written.append((epoch, step))
        save(self, state, epoch, step)

    monkeypatch.setattr(Trainer, "train_batch", in_45_seconds)
    monkeypatch.setattr(Checkpoints, "save", noted)
    monkeypatch.setattr("frugalnet.training.loop.time", SimpleNamespace(monotonic=lambda: seconds[0]))
    train(tmp_path / "run", RECIPE.model_copy(update={"epochs": 1}), checkpoint_minutes=1.0)
    assert written == [(0, 2), (0, 4), (1, 0)]  # 90 s apart, then at the epoch's end


def test_a_finished_run_is_not_trained_again(tmp_path, uninterrupted):
    train(tmp_path / "run")
    epochs = []
    again = train(tmp_path / "run", on_epoch=lambda history: epochs.append(len(history.rows)))
    assert epochs == [3]
    assert bits(again) == bits(uninterrupted)


def test_a_loss_that_is_not_finite_stops_the_run_with_epoch_and_step(tmp_path):
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at epoch \d+, step \d+ of 5; .*train.learning_rate"):
        train(tmp_path / "run", RECIPE.model_copy(update={"learning_rate": 1e30}))


def test_the_history_holds_what_the_weights_say(tmp_path, uninterrupted):
    row = uninterrupted.history.rows[-1]
    logits = infer(uninterrupted.network, VALIDATION.images, uninterrupted.normalise)
    assert row["validation_top1"] == top_k(logits, VALIDATION.labels, 1)
    assert [r["epoch"] for r in uninterrupted.history.rows] == [1, 2, 3]
    assert [len(values) for values in uninterrupted.history.timing().values()] == [3, 3, 3]


def test_inference_restores_the_networks_mode_also_after_an_exception(uninterrupted):
    network = uninterrupted.network.train()
    with pytest.raises(RuntimeError):
        infer(network, np.zeros((2, 1, 1, 3), np.uint8), uninterrupted.normalise)  # too small for its convolutions
    assert network.training
    infer(network, VALIDATION.images[:2], uninterrupted.normalise)
    assert network.training


def test_weights_come_back_from_their_file_and_their_bytes_follow_from_them(tmp_path, uninterrupted):
    for name in ("a", "b"):
        save_weights(uninterrupted.network.state_dict(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    fresh = Trainer("depthwise", 5, 4, 160, uninterrupted.normalise, RECIPE)
    load_weights(fresh.network, tmp_path / "a")
    assert bits(fresh) == bits(uninterrupted)


def test_weights_of_another_network_or_no_weights_at_all_are_refused(tmp_path, uninterrupted):
    save_weights(uninterrupted.network.state_dict(), tmp_path / "depthwise")
    (tmp_path / "nonsense").write_bytes(b"nonsense")
    network = Trainer("alexnet", 0, 4, 160, uninterrupted.normalise, RECIPE).network
    for name in ("depthwise", "nonsense", "missing"):
        with pytest.raises(UserError, match=f"{name}: not the weights of this network"):
            load_weights(network, tmp_path / name)


def test_resolution_grows_as_the_recipe_says_and_validation_sees_whole_pictures(tmp_path):
    seen = []
    recipe = RECIPE.model_copy(update={"resolutions": [24, 32]})
    trainer = Trainer("depthwise", 0, 4, 160, Normaliser([120.0] * 3, [60.0] * 3, torch.device("cpu")), recipe)
    trainer.network.register_forward_pre_hook(
        lambda network, inputs: seen.append((trainer.epoch, network.training, *inputs[0].shape[2:]))
    )
    fit(trainer, EXAMPLES, VALIDATION, Checkpoints(tmp_path))
    assert set(seen) == {
        *((0, True, 24, 24), (1, True, 24, 24), (2, True, 32, 32)),
        *((epoch, False, 32, 32) for epoch in range(3)),
    }
    spent = [3 * 160 * macs(trainer.network, (3, size, size)) for size in (24, 24, 32)]
    assert [row["train_macs"] for row in trainer.history.rows] == spent


def test_resolutions_are_spread_evenly_over_the_epochs():
    recipe = RECIPE.model_copy(update={"resolutions": [32, 48, 64], "epochs": 7})
    assert [resolution(recipe, epoch) for epoch in range(7)] == [32, 32, 32, 48, 48, 64, 64]


TAUGHT = np.random.default_rng(2).normal(0, 3, (160, 4)).astype(np.float16)
LEVERS = {
    "moving average": ({"ema_decay": 0.9}, None),
    "muon": ({"optimiser": "muon"}, None),
    "teacher": ({"distillation": 0.5}, lambda epoch: TAUGHT),
}


@pytest.mark.parametrize(("changes", "taught"), LEVERS.values(), ids=LEVERS)
def test_a_stopped_run_with_a_moving_average_or_a_teacher_resumes_to_the_same_bits(
    tmp_path, uninterrupted, changes, taught
):
    recipe, how = RECIPE.model_copy(update=changes), {"examples": replace(EXAMPLES, taught=taught)} if taught else {}
    whole = train(tmp_path / "whole", recipe, **how)

    def stop_after_the_first(history):
        if len(history.rows) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path / "run", recipe, on_epoch=stop_after_the_first, **how)
    resumed = train(tmp_path / "run", recipe, **how)
    assert bits(resumed) == bits(whole) != bits(uninterrupted)
    assert resumed.history.rows == whole.history.rows != uninterrupted.history.rows


def test_the_moving_average_is_evaluated_and_stored_while_the_latest_weights_train_on(tmp_path, uninterrupted):
    averaged = train(tmp_path / "run", RECIPE.model_copy(update={"ema_decay": 0.9}))
    latest = {name: tensor.numpy().tobytes() for name, tensor in averaged.network.state_dict().items()}
    assert latest == bits(uninterrupted)
    assert bits(averaged) != latest
    logits = infer(averaged.result, VALIDATION.images, averaged.normalise)
    assert averaged.history.rows[-1]["validation_loss"] == cross_entropy(logits, VALIDATION.labels)


def test_what_is_written_of_a_run_is_its_moving_average(tmp_path, monkeypatch):
    averaged = train(tmp_path / "run", RECIPE.model_copy(update={"ema_decay": 0.9}))
    monkeypatch.chdir(tmp_path)
    data = {"data": "sample", "is_sample": True, "validated_on": "validation split", "data_sha256": "d"}
    run = Run(model="depthwise", seed=0, num_classes=4, n_train=160, n_validation=40, train={}, **data)
    written = runs.write_results(run, averaged, {})
    stored = load_file("models/depthwise-0.safetensors")
    assert {name: tensor.numpy().tobytes() for name, tensor in stored.items()} == bits(averaged)
    assert written == sha256(Path("models/depthwise-0.safetensors"))


def test_a_mode_of_compilation_reaches_the_network(monkeypatch):
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda network, **how: asked.append(how))
    data = SimpleNamespace(train=TRAIN, class_ids=range(4), mean=[120.0] * 3, std=[60.0] * 3)
    job = Job("depthwise", 0, RECIPE, data, views=None)
    for mode in (None, "reduce-overhead"):
        job.trainer(torch.device("cpu"), mode)
    assert asked == [{"mode": "reduce-overhead", "dynamic": False}]


def test_a_network_that_learns_from_its_teacher_alone_says_what_that_says(tmp_path):
    wrong = (np.arange(160) + 1) % 4  # the teacher takes every class for the next one
    logits = np.where(np.arange(4) == wrong[:, None], 8, 0).astype(np.float16)
    recipe = RECIPE.model_copy(update={"epochs": 6, "distillation": 1.0})
    trainer = train(tmp_path / "run", recipe, examples=replace(EXAMPLES, taught=lambda epoch: logits))
    assert trainer.history.rows[-1]["validation_top1"] < 0.1
    predicted = infer(trainer.result, VALIDATION.images, trainer.normalise).argmax(1)
    assert (predicted == (VALIDATION.labels + 1) % 4).mean() > 0.9


@pytest.mark.parametrize("changes", [{}, {"distillation": 0.5}], ids=["labels", "teacher"])
def test_the_step_of_a_gpu_is_traced_without_one(monkeypatch, changes):
    """On tensors without contents: what is on the wrong device, or impossible in bfloat16, raises. The backward pass
    and the fused SGD, which need a driver, are left out."""
    gpu, build = torch.device("cuda:0"), models.build

    def build_there(*arguments: Any) -> nn.Module:
        with gpu:
            return build(*arguments)

    monkeypatch.setattr(models, "build", build_there)
    monkeypatch.setattr(nn.Module, "to", lambda network, *_, **__: network)  # which fails on tensors of this kind
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(counts, "macs", lambda network, shape: 1)
    with FakeTensorMode():
        normalise = Normaliser([120.0] * 3, [60.0] * 3, gpu)
        recipe = RECIPE.model_copy(update={"optimiser": "adamw", "resolutions": [24], **changes})
        trainer = Trainer("residual", 0, 4, 160, normalise, recipe)
        for parameter in trainer.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
        monkeypatch.setattr(trainer.optimiser, "zero_grad", lambda set_to_none: None)
        images, labels = torch.zeros(32, 32, 32, 3, dtype=torch.uint8), torch.zeros(32, dtype=torch.int64, device=gpu)
        trainer.train_batch(images, labels, torch.zeros(32, 4, device=gpu) if "distillation" in changes else None)
        seen = [*trainer.network.parameters(), trainer.losses, trainer.correct]
        seen += [value for state in trainer.optimiser.state.values() for value in state.values() if value is not None]
    assert {tensor.device for tensor in seen} == {gpu}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_on_a_gpu_a_network_learns_and_deterministic_algorithms_give_the_same_bits(tmp_path):
    settings = ComputeConfig(
        device="cuda", threads=1, processes=1, compile="off", deterministic=True, checkpoint_minutes=1, records="none"
    )
    normalise = Normaliser([120.0] * 3, [60.0] * 3, setup(settings))
    recipe = RECIPE.model_copy(update={"epochs": 6})
    try:
        trainers = [Trainer("depthwise", 0, 4, len(TRAIN.labels), normalise, recipe) for _ in range(2)]
        for number, trainer in enumerate(trainers):
            fit(trainer, EXAMPLES, VALIDATION, Checkpoints(tmp_path / str(number)))
    finally:
        torch.use_deterministic_algorithms(False)
    first, second = (trainer.network.cpu() for trainer in trainers)
    assert trainers[0].history.rows[-1]["validation_top1"] > 0.9
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_weights_that_diverge_in_an_epochs_last_step_stop_the_run(tmp_path):
    one_step = RECIPE.model_copy(update={"batch_size": 160, "learning_rate": 1e30, "epochs": 1, "warmup": 0.0})
    with pytest.raises(UserError, match=r"after epoch 1 .* not all finite; lower train\.learning_rate"):
        train(tmp_path / "run", one_step)
