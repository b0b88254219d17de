from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from frugalnet.errors import UserError
from frugalnet.files import sha256_each, write_json
from frugalnet.training.batches import (
    Normaliser,
    PerView,
    Resident,
    _ahead,
    batch_indices,
    batches,
    epoch_order,
    images_of_steps,
    steps_per_epoch,
)

CPU = torch.device("cpu")


def test_order_is_a_function_of_seed_and_epoch_alone():
    first = epoch_order(0, 3, 1000)
    assert (epoch_order(0, 3, 1000) == first).all()
    assert sorted(first) == list(range(1000))
    assert not (epoch_order(0, 4, 1000) == first).all()
    assert not (epoch_order(1, 3, 1000) == first).all()


@pytest.mark.parametrize(("count", "batch_size"), [(1, 2), (2, 2), (513, 256), (1000, 256)])
def test_an_epoch_gives_every_image_once_in_batches_of_like_size(count, batch_size):
    images = np.zeros((count, 4, 4, 3), np.uint8)
    labels = np.arange(count)
    turns = batch_indices(0, 0, count, steps_per_epoch(count, batch_size))
    seen = [targets for _, targets in batches(images, labels, turns, CPU)]
    sizes = [len(targets) for targets in seen]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert sorted(torch.cat(seen).tolist()) == list(range(count))


@pytest.mark.parametrize(("count", "steps"), [(100, 4), (103, 4), (3, 2)])
def test_the_images_of_the_first_batches_are_counted(count, steps):
    sizes = [len(turn) for turn in batch_indices(0, 0, count, steps)]
    counted = [images_of_steps(done, count, steps) for done in range(steps + 1)]
    assert counted == [sum(sizes[:done]) for done in range(steps + 1)]


@pytest.mark.parametrize(
    ("count", "batch_size", "steps"),
    [
        (100_000, 256, 400),  # 250 each
        (95_000, 256, 380),
        (100_000, 128, 800),
        (1000, 32, 40),
        (1001, 32, 32),  # 1001 = 7 · 11 · 13: the next equal size, 13, is too small
        (192 * 257, 256, 257),  # three quarters of 256 is enough
        (191 * 191, 256, 143),  # a little less is not
        (997, 256, 4),
        (3, 256, 1),
    ],
)
def test_batches_are_of_one_size_if_that_takes_at_most_a_third_more_of_them(count, batch_size, steps):
    assert steps_per_epoch(count, batch_size) == steps


def test_a_teachers_logits_come_with_their_images(tmp_path):
    images, taught = np.zeros((100, 4, 4, 3), np.uint8), np.arange(200, dtype=np.float16).reshape(100, 2)
    turns = batch_indices(0, 0, 100, 4)
    seen = list(batches(images, np.arange(100), turns, CPU, taught))
    assert all(len(batch) == 3 for batch in seen)
    assert all((logits.numpy() == taught[turn]).all() for turn, (_, _, logits) in zip(turns, seen, strict=True))


class _Gpu:
    type = "cuda"


def test_a_view_is_copied_to_a_gpu_once_and_only_if_there_is_room(monkeypatch):
    free, copied = [1000], []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 10_000))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: copied.append(tensor) or tensor)
    small, large, resident = np.zeros(100, np.uint8), np.zeros(501, np.uint8), Resident(_Gpu())
    assert resident.of(large) is large
    first = resident.of(small)
    assert isinstance(first, torch.Tensor)
    free[0] = 0
    assert resident.of(small) is first
    assert len(copied) == 1
    assert Resident(CPU).of(small) is small


def test_a_batch_holds_the_images_and_labels_of_its_turn():
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4, 3), np.uint8)
    turns = batch_indices(0, 0, 100, 4)
    for turn, (pixels, targets) in zip(turns, batches(images, np.arange(100), turns, CPU), strict=True):
        assert (pixels.numpy() == images[turn]).all()
        assert (targets.numpy() == turn).all()


def test_normalised_floats_are_channels_last_with_mean_zero_and_deviation_one():
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    normalise = Normaliser(images.mean((0, 1, 2)), images.std((0, 1, 2)), CPU)
    floats = normalise(torch.from_numpy(images))
    assert floats.shape == (50, 3, 8, 8)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(floats.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(floats.std((0, 2, 3)), torch.ones(3), atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gpu_gets_the_same_batches_resident_or_copied_ahead():
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4, 3), np.uint8)
    turns, labels, cuda = batch_indices(0, 0, 100, 4), np.arange(100), torch.device("cuda")
    expected = list(batches(images, labels, turns, CPU))
    for stored in (images, torch.from_numpy(images).to(cuda)):
        for (pixels, targets), (gpu_pixels, gpu_targets) in zip(
            expected, batches(stored, labels, turns, cuda), strict=True
        ):
            assert torch.equal(pixels, gpu_pixels.cpu())
            assert torch.equal(targets, gpu_targets.cpu())


class FakeCuda:
    """Notes what happens on which stream."""

    def __init__(self) -> None:
        self.log, self.on = [], "computing"

    def Stream(self, device):
        return "copying"

    def current_stream(self, device):
        return SimpleNamespace(wait_stream=lambda stream: self.log.append(f"computing waits for {stream}"))

    @contextmanager
    def stream(self, stream):
        self.on, before = stream, self.on
        yield
        self.on = before


def test_the_next_batch_is_copied_on_its_own_stream_before_the_current_one_is_computed_on():
    cuda, kept = FakeCuda(), []

    def copies():
        for number in range(3):
            cuda.log.append(f"copy {number} on {cuda.on}")
            yield (SimpleNamespace(record_stream=lambda stream, number=number: kept.append(number)),)

    for number, _ in enumerate(_ahead(copies(), cuda, CPU)):
        cuda.log.append(f"step {number} on {cuda.on}")
    waits = "computing waits for copying"
    assert cuda.log == [
        *("copy 0 on copying", waits),
        *("copy 1 on copying", "step 0 on computing", waits),
        *("copy 2 on copying", "step 1 on computing", waits),
        "step 2 on computing",
    ]
    assert kept == [0, 1, 2]


def test_the_normaliser_is_on_the_device_of_its_buffers():
    normalise = Normaliser([1.0] * 3, [2.0] * 3, torch.device("meta"))
    assert normalise.device.type == "meta"
    moved = normalise.to_empty(device="cpu")
    assert moved.device.type == "cpu"
    assert moved(torch.zeros(1, 2, 2, 3, dtype=torch.uint8)).device.type == "cpu"


def stored_views(folder, count):
    """View v holds nothing but v."""
    hashes = {}
    for view in range(count):
        images = np.full((5, 4, 4, 3), view, np.uint8)
        np.save(folder / f"view_{view}.npy", images)
        hashes[f"view_{view}.npy"] = sha256_each(images, 2)
    write_json(folder / "views.json", {"images_per_hash": 2, "sha256": hashes})
    return PerView(folder)


@pytest.mark.parametrize("count", [1, 4, 12])
def test_epoch_e_reads_view_e_mod_v(tmp_path, count):
    views = stored_views(tmp_path, count)
    read = [int(views.of_epoch(epoch, np.full((5, 4, 4, 3), 255, np.uint8))[0, 0, 0, 0]) for epoch in range(15)]
    assert read == [epoch % count for epoch in range(15)]


def test_without_views_every_epoch_reads_the_pictures_as_they_are(tmp_path):
    unaugmented = np.zeros((5, 4, 4, 3), np.uint8)
    assert stored_views(tmp_path, 0).of_epoch(7, unaugmented) is unaugmented


def test_a_damaged_view_and_a_damaged_list_of_views_are_refused_by_name(tmp_path):
    views = stored_views(tmp_path, 2)
    damaged = np.load(tmp_path / "view_1.npy")
    damaged[4, 3, 3, 2] = 0
    np.save(tmp_path / "view_1.npy", damaged)
    views.of_epoch(0, damaged)
    with pytest.raises(UserError, match=r"view_1\.npy: missing or damaged"):
        views.of_epoch(1, damaged)
    (tmp_path / "views.json").write_text("{")
    with pytest.raises(UserError, match=r"views\.json: missing or damaged"):
        PerView(tmp_path)
