import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import log_softmax, softmax

from frugalnet import models
from frugalnet.errors import UserError
from frugalnet.files import read_json
from frugalnet.training.batches import PerView
from frugalnet.training.config import TeacherConfig
from frugalnet.training.distillation import divergence, teacher, write_logits
from frugalnet.training.inference import save_weights


def test_divergence_is_hintons():
    generator = np.random.default_rng(0)
    logits, taught = generator.normal(0, 3, (2, 5, 7))
    p = softmax(taught / 4, 1)
    by_hand = 16 * (p * (np.log(p) - log_softmax(logits / 4, 1))).sum(1).mean()
    assert divergence(torch.tensor(logits), torch.tensor(taught), 4.0).item() == pytest.approx(by_hand, rel=1e-5)


def test_nothing_is_left_to_learn_from_a_teacher_that_says_the_same():
    logits = torch.randn(3, 7, requires_grad=True)
    loss = divergence(logits, logits.detach() + 5, 2.0)  # a constant added to all logits changes no prediction
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


def test_stored_logits_are_read_by_epoch_and_damage_is_found(tmp_path):
    stored = [np.full((4, 3), view, np.float32) for view in range(2)]
    write_logits(iter(stored), tmp_path / "teacher")
    views = PerView(tmp_path / "teacher", "teach")
    assert [float(views.of_epoch(epoch, None)[0, 0]) for epoch in range(3)] == [0, 1, 0]
    assert views.of_epoch(0, None).dtype == np.float16
    (tmp_path / "teacher/logits_1.npy").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"logits_1.npy: missing or damaged.*--single-item teach"):
        PerView(tmp_path / "teacher", "teach").of_epoch(1, None)


def test_without_a_teacher_there_are_no_logits(tmp_path):
    write_logits((), tmp_path / "teacher")
    assert read_json(tmp_path / "teacher/views.json")["sha256"] == {}
    assert PerView(tmp_path / "teacher", "teach").of_epoch(0, None) is None


@pytest.fixture
def trained(tmp_path) -> TeacherConfig:
    path = tmp_path / "residual-0.safetensors"
    save_weights(models.build("residual", 10).state_dict(), path)
    return TeacherConfig(model="residual", weights=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_teacher_is_the_network_of_its_weights(trained):
    network = teacher(trained, 10)
    again = teacher(trained, 10)
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert teacher(TeacherConfig(model=None, weights=None, sha256=None), 10) is None


def test_other_weights_than_the_configurations_are_refused(trained):
    with pytest.raises(UserError, match="not the weights of this network"):
        teacher(trained, 11)
    Path(trained.weights).write_bytes(b"other")
    with pytest.raises(UserError, match=r"teacher.weights: .*expected a file with SHA-256 .*found d9298a10"):
        teacher(trained, 10)
    Path(trained.weights).unlink()
    with pytest.raises(UserError, match="found no such file"):
        teacher(trained, 10)


def test_half_a_teacher_is_refused():
    with pytest.raises(ValidationError, match="give model, weights and sha256, or none"):
        TeacherConfig(model="residual", weights=None, sha256=None)
