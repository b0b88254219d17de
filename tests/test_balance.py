"""Classes of unequal size, and few pictures: weights of the loss, drawn epochs, committed starting weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from tiny import RECIPE, coloured_noise
from torch.nn.functional import cross_entropy

from frugalnet import models
from frugalnet.comparison.comparable import recipe
from frugalnet.comparison.records import Record
from frugalnet.data.arrays import Dataset, Split
from frugalnet.errors import UserError
from frugalnet.files import sha256, write_json
from frugalnet.run import Start
from frugalnet.training import runs
from frugalnet.training.balance import class_weights, draw_balanced
from frugalnet.training.batches import PerView
from frugalnet.training.inference import save_weights
from frugalnet.training.job import Job
from frugalnet.training.starts import read_start, start_path, write_starts

CPU = torch.device("cpu")
COUNTS = (50, 20, 5, 3)


@pytest.fixture
def unequal(tmp_path: Path) -> Job:
    """A job on four classes of 50, 20, 5 and 3 images."""
    noise = coloured_noise(4 * max(COUNTS), 0)
    chosen = np.concatenate([np.flatnonzero(noise.labels == label)[:n] for label, n in enumerate(COUNTS)])
    split = Split(noise.images[chosen], noise.labels[chosen])
    names = ["a", "b", "c", "d"]
    data = Dataset(split, split, names, names, [80.0] * 3, [50.0] * 3, "parts", False, "validation split", {})
    write_json(tmp_path / "views/views.json", {"images_per_hash": 1000, "sha256": {}})
    return Job("depthwise", 0, RECIPE, data, PerView(tmp_path / "views"))


def test_class_weights_are_scikit_learns():
    labels = np.repeat(np.arange(4), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(class_weights(labels, 4), expected, rtol=1e-6)
    assert class_weights(labels, 5)[4] == 0


def test_a_balanced_epoch_shows_each_class_as_often_and_other_images_each_time():
    labels = np.repeat(np.arange(4), COUNTS)
    epochs = [draw_balanced(labels, 0, epoch) for epoch in range(40)]
    for epoch in epochs:
        assert len(epoch) == len(labels)
        assert np.ptp(np.bincount(labels[epoch])) <= 1
        assert {*epoch} >= {*np.flatnonzero(labels >= 1)}  # no image of a rare class is left out
    assert {*np.concatenate(epochs)} == {*range(len(labels))}
    np.testing.assert_array_equal(epochs[3], draw_balanced(labels, 0, 3))
    assert not np.array_equal(epochs[3], draw_balanced(labels, 1, 3))


@pytest.mark.parametrize("left_out", [(), (1,)])
def test_a_recipe_draws_balanced_epochs_of_the_classes_that_are_learnt(unequal, left_out):
    sampled = replace(unequal, recipe=RECIPE.model_copy(update={"balance": "sampling"}), left_out=left_out)
    trainer = sampled.trainer(CPU)
    examples = sampled.examples()
    epoch = np.concatenate(examples.indices(0, 0, trainer.n_train, trainer.steps))
    shown = np.bincount(examples.labels[epoch])
    assert shown.sum() == trainer.n_train == sum(n for label, n in enumerate(COUNTS) if label not in left_out)
    assert np.ptp(shown) <= 1
    assert trainer.class_weights is None


def test_a_recipe_weighs_the_loss_by_class(unequal):
    weighted = replace(unequal, recipe=RECIPE.model_copy(update={"balance": "weights"}))
    images = torch.from_numpy(np.array(unequal.data.train.images[::5]))
    labels = torch.from_numpy(unequal.data.train.labels[::5])
    losses = {}
    for job in (unequal, weighted):
        trainer = job.trainer(CPU)
        with torch.no_grad():
            logits = trainer.network.train()(trainer.inputs(images))
        fresh = job.trainer(CPU)
        fresh.train_batch(images, labels)
        losses[job.recipe.balance] = fresh.losses[0].item() / len(labels)
        weights = torch.from_numpy(class_weights(unequal.data.train.labels, 4)) if job is weighted else None
        expected = cross_entropy(logits, labels, weights, label_smoothing=0.1).item()
        assert losses[job.recipe.balance] == pytest.approx(expected, rel=1e-5)
    assert losses["weights"] != pytest.approx(losses["none"], rel=1e-3)


def test_a_record_of_a_run_without_balance_and_start_is_what_it_was_before_there_were_any(unequal):
    assert not {"balance", "start", "side"} & runs.describe(unequal, {}).train.keys()
    chosen = replace(unequal, recipe=RECIPE.model_copy(update={"balance": "weights"}))
    described = runs.describe(chosen, {})
    assert described.train["balance"] == "weights"
    assert described.side == 32


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    """The output of the stage `start`, with random weights of depthwise for 200 classes."""
    torch.manual_seed(1)
    weights = tmp_path / "weights/depthwise-0.safetensors"
    save_weights(models.build("depthwise", 200).state_dict(), weights)
    write_starts({weights: Start(file=weights.name, sha256=sha256(weights), data="tiny-imagenet")}, tmp_path / "start")
    return tmp_path / "start"


COMMITTED = RECIPE.model_copy(update={"start": "committed"})


def test_a_network_starts_from_committed_weights_but_for_its_classifier(unequal, starts):
    path = start_path("depthwise", COMMITTED, starts)
    begun = replace(unequal, recipe=COMMITTED, start=path).trainer(CPU).network.state_dict()
    random = unequal.trainer(CPU).network.state_dict()
    torch.manual_seed(1)
    stored = models.build("depthwise", 200).state_dict()
    for name, value in begun.items():
        assert torch.equal(value, (random if name.startswith("fc.") else stored)[name]), name


def test_what_a_network_started_from_is_part_of_its_run_and_of_its_recipe_in_the_report(unequal, starts):
    begun = replace(unequal, recipe=COMMITTED, start=start_path("depthwise", COMMITTED, starts))
    without = replace(unequal, recipe=COMMITTED, model="residual", start=start_path("residual", COMMITTED, starts))
    described, other = runs.describe(begun, {}), runs.describe(without, {})
    assert described.start == read_start("depthwise", starts)
    assert other.start is None
    assert start_path("depthwise", RECIPE, starts) is None
    told = [recipe(Record("m", 0, run, {}, [], {}, {}, [], [], [], None, None))["start"] for run in (described, other)]
    assert told == ["weights trained on tiny-imagenet", "random weights"]


def test_weights_of_another_network_are_no_start(unequal, starts):
    with pytest.raises(UserError, match="not weights that this network can start from"):
        replace(unequal, model="alexnet", start=starts / "depthwise-0.safetensors").trainer(CPU)
    with pytest.raises(UserError, match="missing"):
        read_start("depthwise", starts.parent)
