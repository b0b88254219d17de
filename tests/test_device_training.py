"""Training with ExecuTorch's own runtime against PyTorch's; runs where the extra `device` is installed."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from frugalnet.adaptation.finetuning import classifier, for_classes
from frugalnet.errors import UserError
from frugalnet.training.batches import batch_indices
from frugalnet.use import weights

pytest.importorskip("executorch", reason="the extra `device` is not installed")


def test_a_classifier_trained_by_executorch_has_pytorchs_losses_and_weights(tmp_path):
    from frugalnet.use import device_training

    stored = weights.choose("depthwise")
    images = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
    labels = np.arange(16) % 3
    device_training.write(stored, 3, [5, 9, 11], 8, tmp_path / "programs")
    assert sorted(path.name for path in (tmp_path / "programs").iterdir()) == ["features.pte", "train_classifier.pte"]
    found = device_training.train(tmp_path / "programs", images, labels, 8, 5, 0.01, 3)

    normalise, network = weights.load(stored)
    network = for_classes(network, "depthwise", 0, 3, [5, 9, 11]).eval()
    _, head = classifier(network)
    optimiser, losses = torch.optim.SGD(head.parameters(), lr=0.01), []
    for step in range(5):
        order = np.concatenate(batch_indices(3, step // 2, 16, 1))[8 * (step % 2) :][:8]
        loss = cross_entropy(network(normalise(torch.from_numpy(images[order]))), torch.from_numpy(labels[order]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert found[2] == pytest.approx(losses, rel=1e-4)
    assert losses[-1] != pytest.approx(losses[0], rel=1e-2)
    assert np.allclose(found[0], head.weight.detach(), atol=1e-5)
    assert np.allclose(found[1], head.bias.detach(), atol=1e-5)


def test_a_classifier_of_another_kind_is_refused(tmp_path, monkeypatch):
    from frugalnet import models
    from frugalnet.use import device_training

    network = models.build("squeezenet1_1", 5)
    stored = weights.choose("depthwise")
    stored = stored.model_copy(update={"entry": stored.entry.model_copy(update={"model": "squeezenet1_1"})})
    monkeypatch.setattr(device_training, "load", lambda _: (torch.nn.Identity(), network))
    with pytest.raises(UserError, match=r"squeezenet1_1-0: its classifier 'classifier\.1' is not fully connected"):
        device_training.write(stored, 5, None, 8, tmp_path / "programs")
    assert not (tmp_path / "programs").exists()
