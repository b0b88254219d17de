"""Fine-tuning, its costs and its figures against cases made by hand; the experiment; the section of the report."""

import shutil
from dataclasses import replace

import fake_results
import numpy as np
import pytest
import torch
from torch import nn

from frugalnet import models
from frugalnet.data.arrays import Dataset, Split
from frugalnet.errors import UserError
from frugalnet.files import write_json
from frugalnet.metrics.counts import macs
from frugalnet.metrics.draws import over_draws
from frugalnet.metrics.statistics import Interval
from frugalnet.metrics.training_cost import saved_bytes, training_macs
from frugalnet.report import adaptation, adaptation_section, claims, findings, page
from frugalnet.training.adaptation import (
    METHODS,
    AdaptConfig,
    choose_pictures,
    draw_classes,
    lacking,
    measure,
    pretrain,
)
from frugalnet.training.batches import Normaliser, Resident, Views
from frugalnet.training.finetuning import (
    PARTS,
    TuningConfig,
    classifier,
    fine_tune,
    for_classes,
    modules_of,
    train_only,
    trained_tensors,
)
from frugalnet.training.inference import infer
from frugalnet.training.job import Job

RATES = {"classifier": 0.05, "norms": 0.01, "blocks": 0.01, "all": 0.01, "scratch": 0.01}
TUNING = {"steps": 30, "batch_size": 16, "learning_rate": RATES}
EXPERIMENT = {
    "seed": 0,
    "draws": 2,
    "classes": 2,
    "pictures": [8],
    "scratch_steps": 30,
    "unseen_epochs": 1,
    **TUNING,
}
FEW = AdaptConfig.model_validate({"scenarios": ["seen", "unseen"], **EXPERIMENT})
NORMALISE = Normaliser([128.0] * 3, [64.0] * 3, torch.device("cpu"))


def pictures(labels: np.ndarray, seed: int) -> np.ndarray:
    """Grey pictures whose brightness tells the class, with noise."""
    noise = np.random.default_rng(seed).integers(0, 20, (len(labels), 64, 64, 3))
    return (30 * labels[:, None, None, None] + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def data() -> Dataset:
    labels = np.repeat(np.arange(7), 10)
    split = {name: Split(pictures(labels, i), labels) for i, name in enumerate(("train", "validation"))}
    names = [f"class {c}" for c in range(7)]
    hashes = {"train": "0", "validation": "1"}
    return Dataset(**split, class_ids=names, class_names=names, mean=[128.0] * 3, std=[64.0] * 3, name="grey",
                   is_sample=True, validated_on="validation split", sha256=hashes)  # fmt: skip


@pytest.fixture(scope="module")
def views(tmp_path_factory) -> Views:
    folder = tmp_path_factory.mktemp("views")
    write_json(folder / "views.json", {"images_per_hash": 1000, "sha256": {}})
    return Views(folder)


def changed(before: dict, network: nn.Module) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("model", ["residual", "squeezenet1_1"])
def test_exactly_the_part_that_is_named_changes_and_that_is_what_a_device_stores(model, part):
    torch.manual_seed(0)
    network = models.build(model, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    labels = np.arange(16) % 3
    tuning = TuningConfig.model_validate({**TUNING, "steps": 2})
    fine_tune(network, part, lambda _: pictures(labels, 0), labels, NORMALISE, tuning, 0)
    found, head = changed(before, network), classifier(network)[0]
    train_only(network, part)
    assert found <= set(trained_tensors(network)) | {
        f"{name}.num_batches_tracked" for name, _ in network.named_modules()
    }
    assert {f"{head}.weight", f"{head}.bias"} <= found
    if part == "classifier":
        assert found == {f"{head}.weight", f"{head}.bias"}
    if (model, part) == ("residual", "norms"):
        assert {name for name in found if "weight" in name and name != "fc.weight"} == {
            f"{layer}.weight" for layer in ("conv1.1", "conv2.2", "conv3.2", "conv4.block.2", "conv5.block.2")
        }
    if (model, part) == ("residual", "blocks"):
        assert {name.split(".")[0] for name in found} == {"conv4", "conv5", "fc"}
    if part == "all":
        assert {name for name, _ in network.named_parameters()} <= found


def test_a_network_that_averages_over_the_mirror_image_is_fine_tuned_on_the_image_alone():
    torch.manual_seed(0)
    network = models.build("frugal_wide", 3)
    labels = np.arange(16) % 3
    shown: list[int] = []
    network.network.register_forward_pre_hook(lambda module, inputs: shown.append(len(inputs[0])))
    tuning = TuningConfig.model_validate({**TUNING, "steps": 2})
    for part in PARTS:
        fine_tune(network, part, lambda _: pictures(labels, 0), labels, NORMALISE, tuning, 0)
    assert shown == [16] * 2 * len(PARTS)  # once a step
    assert int(network.network.stem[1].num_batches_tracked) == 2 * 2  # for the parts "norms" and "all"
    shown.clear()
    infer(network, pictures(labels, 0), NORMALISE)
    assert shown == [16, 16]


def test_a_restricted_network_gives_the_logits_of_the_kept_classes():
    network = models.build("depthwise", 7).eval()
    images = pictures(np.arange(7), 0)
    logits = infer(network, images, NORMALISE)
    kept = infer(for_classes(network, "depthwise", 0, 3, [5, 0, 2]), images, NORMALISE)
    assert np.allclose(kept, logits[:, [5, 0, 2]], atol=1e-6)
    new = for_classes(network, "depthwise", 0, 3)
    assert torch.equal(new.state_dict()["conv1.0.weight"], network.state_dict()["conv1.0.weight"])
    assert new.fc.weight.shape == (3, 128)


def test_a_linear_classifier_reaches_its_known_optimum():
    """Two one-hot features, one of which class 1 has in three of four pictures: the optimum is the log odds."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2, bias=False)

        def forward(self, inputs):
            return self.fc(inputs[:, :2, 0, 0])

    network, normalise = Linear(), Normaliser([0.0] * 3, [1.0] * 3, torch.device("cpu"))
    images = np.zeros((8, 1, 1, 3), np.uint8)
    images[:4, ..., 0], images[4:, ..., 1] = 1, 1
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    tuning = TuningConfig.model_validate({"steps": 2000, "batch_size": 8, "learning_rate": RATES})
    fine_tune(network, "classifier", lambda _: images, labels, normalise, tuning, 0)
    with torch.no_grad():
        odds = (network.fc.weight[1] - network.fc.weight[0]).tolist()
    assert odds == pytest.approx([np.log(3), -np.log(3)], abs=0.02)


def test_the_same_bits_twice_and_a_loss_that_explodes_is_told():
    labels = np.arange(20) % 3
    networks = []
    for _ in range(2):
        torch.manual_seed(1)
        network = models.build("depthwise", 3)
        fine_tune(network, "all", lambda e: pictures(labels, e), labels, NORMALISE, TuningConfig(**TUNING), 4)
        networks.append(network.state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    with pytest.raises(UserError, match=r"loss is (nan|inf) at step \d+, all trained; lower the rate \(now 1e\+30\)"):
        fine_tune(network, "all", lambda e: pictures(labels, e), labels, NORMALISE, TuningConfig(**TUNING), 4,
                  learning_rate=1e30)  # fmt: skip


class Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.layer(x + 1)


def test_macs_and_memory_of_training_follow_from_what_is_trained():
    network, inputs = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1, bias=False), nn.Flatten(),
        nn.Linear(5 * 64, 2),
    ), torch.zeros(6, 3, 8, 8)  # fmt: skip
    first, second, last = 64 * 27 * 4, 64 * 20, 640
    assert macs(network, (3, 8, 8)) == first + second + last
    expected = {
        "classifier": first + second + 2 * last,  # the gradient of its weights
        "norms": first + 2 * second + 3 * last,  # and the inputs' gradients back to the batch norm
        "all": 2 * first + 3 * second + 3 * last,  # all but the pictures' gradient
    }
    for part, count in expected.items():
        train_only(network, part)
        assert training_macs(network, inputs) == count, part
    float_bytes = 4 * 6 * 64
    train_only(network, "classifier")
    assert saved_bytes(network, inputs) == {"0": 0, "1": 0, "2": 0, "3": 0, "4": 5 * float_bytes}
    train_only(network, "all")
    kept = saved_bytes(network, inputs)
    assert kept["0"] == 3 * float_bytes  # its input
    assert kept["2"] == 4 * float_bytes
    assert kept["1"] == 4 * float_bytes + 2 * 4 * 4  # its input, and the batch's mean and deviation
    assert saved_bytes(Twice(nn.Linear(8, 8, bias=False)), torch.zeros(6, 8)) == {"layer": 2 * 4 * 6 * 8}


def test_modules_of_blocks_are_the_last_two_before_the_classifier():
    network = models.build("mobilenet_v3_small", 5)
    names = {id(module): name for name, module in network.named_modules()}
    parts = {names[id(module)].rpartition(".")[0] for module in modules_of(network, "blocks")}
    assert any(part.startswith("features.12") for part in parts)
    assert not any(part.startswith(("features.10", "features.0")) for part in parts)


def test_intervals_over_draws_cover_draws_and_pictures():
    one = over_draws([np.array([1.0] * 30 + [0.0] * 70)])
    assert one.estimate == 0.3
    assert (one.low, one.high) == pytest.approx((0.21, 0.39), abs=0.015)  # the binomial's
    apart = over_draws([np.ones(100), np.zeros(100)])
    assert apart.estimate == 0.5
    assert apart.low < 0 < 1 < apart.high  # two draws that differ so tell little
    same = over_draws([np.array([1.0] * 30 + [0.0] * 70)] * 3)
    assert (same.low, same.high) == pytest.approx((0.3 - 0.073, 0.3 + 0.073), abs=0.01)  # √2 times the binomial's
    paired = over_draws([np.array([1.0, 0, 0, -1.0])])
    assert paired.estimate == 0
    assert paired.low == pytest.approx(-paired.high, abs=0.3)


def test_draws_share_no_class_and_a_larger_choice_holds_the_smaller_one():
    drawn = draw_classes(FEW, 7)
    assert len({c for draw in drawn for c in draw}) == 4
    labels = np.repeat(np.arange(3), 10)
    few, more = (choose_pictures(labels, [2, 0], n, 5) for n in (3, 6))
    assert set(few) < set(more)
    assert labels[few].tolist() == [2] * 3 + [0] * 3


def test_what_small_data_lack_is_said(data):
    assert lacking(FEW, data) is None
    assert "2 draws of 3 classes each are too many for 7 classes" in lacking(
        FEW.model_copy(update={"classes": 3}), data
    )
    assert "11 pictures of each class to train on, but one has only 10" in lacking(
        FEW.model_copy(update={"pictures": [4, 11]}), data
    )


def test_the_experiment_learns_what_can_be_learned_and_says_the_same_twice(data, views):
    torch.manual_seed(0)
    network = models.build("depthwise", 7)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    once = FEW.model_copy(update={"draws": 1, "steps": 60, "scratch_steps": 60})
    found, timing = measure(network, "depthwise", "seen", data, views, once)
    assert not changed(before, network)
    again, _ = measure(network, "depthwise", "seen", data, views, once)
    assert found == again
    outcomes = found["outcomes"]
    assert len(outcomes) == 2 + len(METHODS)
    assert all(len(one["right"]) == 20 for one in outcomes)
    share = {m: np.mean([np.mean([*map(int, o["right"])]) for o in outcomes if o["method"] == m]) for m in METHODS}
    assert share["all"] > 0.8
    assert share["scratch"] > 0.8
    assert [one["method"] for one in outcomes[:3]] == ["general", "restricted", "classifier"]
    costs = found["costs"]
    assert (
        costs["classifier"]["macs_per_picture"] < costs["norms"]["macs_per_picture"] < costs["all"]["macs_per_picture"]
    )
    assert timing["peak_memory_bytes"]["classifier"] < timing["peak_memory_bytes"]["all"]
    whole = models.build("depthwise", once.classes).state_dict().values()  # with the statistics of its batch norms
    assert costs["all"]["stored_bytes"] == sum(value.nbytes for value in whole)
    assert len(timing["trainings"]) == len(METHODS)
    unseen, _ = measure(
        models.build("depthwise", 3),
        "depthwise",
        "unseen",
        data,
        views,
        FEW.model_copy(update={"steps": 2, "scratch_steps": 2}),
    )
    assert {one["method"] for one in unseen["outcomes"]} == set(PARTS)  # scratch is in the first scenario, "seen"
    rates = FEW.learning_rate.model_copy(update={"all": 1e30})
    explosive = FEW.model_copy(update={"learning_rate": rates})
    with pytest.raises(UserError, match=r"adapt\.learning_rate\.all: the loss is"):
        measure(network, "depthwise", "seen", data, views, explosive)


def test_a_network_that_has_never_seen_the_classes_is_trained_without_them_and_only_once(
    data, views, tmp_path, capfd, monkeypatch
):
    from frugalnet import config

    recipe = config.load().train.model_copy(update={"epochs": 3, "batch_size": 10})
    drawn = [c for draw in draw_classes(FEW, 7) for c in draw]
    kept: list[np.ndarray] = []
    resident = Resident.of
    monkeypatch.setattr(Resident, "of", lambda self, images: kept.append(images) or resident(self, images))
    job = Job("depthwise", 0, recipe, data, views, left_out=tuple(drawn))
    networks = [pretrain(job, torch.device("cpu"), {}, tmp_path).state_dict() for _ in range(2)]
    assert networks[0]["fc.weight"].shape[0] == 3
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    assert capfd.readouterr().err.count("epoch 1/3") == 1  # the second came from the checkpoint
    assert len(kept) == 3
    assert all(images is data.train.images for images in kept)  # a GPU keeps one copy, not one of each epoch
    assert list(tmp_path.glob(".checkpoints/adapt/depthwise-0-*/*.ckpt"))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return fake_results.compared(tmp_path_factory.mktemp("results"), num_classes=200, n=2000)


def test_the_section_says_what_the_figures_say(full, tmp_path):
    said = [text.replace("\u00a0", " ") for text in adaptation.verdict(full.adaptation, full.by_macs)]
    assert said[0].startswith(
        "On a device that meets 4 classes, residual goes from 33.8 % (19.0 to 49.1 %) to 63.7 % ("
    )
    assert "adds 15.0 points (" in said[0]
    assert "residual reaches 78.8 % (" in said[1]
    assert "47.5 points (" in said[1]
    assert said[2].startswith("A smaller network is enough: residual, fine-tuned, is 20.0 points (")
    (section,) = adaptation_section.sections(full)
    assert section.title == "Training on the device"
    tables = [block for block in section.blocks if isinstance(block, adaptation_section.Table)]
    assert [table.title for table in tables] == [*adaptation_section.SCENARIOS.values()]
    assert "Energy" not in tables[0].header
    assert len(tables[0].rows) == 3 * 7
    assert len(tables[1].rows) == 3 * 5
    page.write(findings.find(full), tmp_path / "out", None, [section])
    html, markdown = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("html", "md"))
    for text in (html, markdown):
        assert "Training on the device" in text
        assert "classifier, last two blocks" in text
    assert adaptation_section.sections(replace(full, adaptation=())) == []
    assert findings.find(replace(full, adaptation=())).summary()["adaptation"] is None


def test_training_from_scratch_is_told_of_the_scenario_that_does_not_hold_it(tmp_path):
    whole = fake_results.adapted(["depthwise"])
    for one in whole:
        found, timing = dict(one.found), dict(one.timing)
        if one.scenario == "unseen":
            found["outcomes"] = [o for o in found["outcomes"] if o["method"] != "scratch"]
            timing["trainings"] = [t for t in timing["trainings"] if t["method"] != "scratch"]
        write_json(tmp_path / "adapt" / one.scenario / "adapt.json", found)
        write_json(tmp_path / "adapt_timing" / one.scenario / "timing.json", timing)
    seen, unseen = adaptation.load(tmp_path)
    assert unseen.accuracy("scratch", 50) == seen.accuracy("scratch", 50) == whole[1].accuracy("scratch", 50)
    assert unseen.seconds("scratch") == seen.seconds("scratch")
    shutil.rmtree(tmp_path / "adapt/seen")
    with pytest.raises(UserError, match="no training from scratch of depthwise: run `dvc repro`"):
        adaptation.load(tmp_path)


def test_gains_count_pictures_that_are_paired(full):
    seen = adaptation.of(full.adaptation, "seen", "depthwise")
    gain = adaptation.difference(seen, ("all", 50), seen, ("restricted", 0))
    assert gain.estimate == pytest.approx((28 - 24 + 2) / 40)
    assert gain.excludes_zero
    assert adaptation.difference(seen, ("all", 7), seen, ("restricted", 0)) is None


@pytest.mark.parametrize(
    ("low", "high", "known", "new", "smaller"),
    [
        (0.01, 0.03, "adds 2.0 points", "more than from scratch.", "is enough: residual, fine-tuned, is 2.0 points"),
        (
            -0.03,
            -0.01,
            "costs 2.0 points",
            "less than from scratch.",
            "falls short: residual, fine-tuned, is 2.0 points",
        ),
        (-0.03, 0.01, "(95 % interval −1.0 to 3.0) less.", "less than from scratch, which is not", "may be enough"),
        (-0.01, 0.03, "(95 % interval −1.0 to 3.0) more.", "more than from scratch, which is not", "may be enough"),
    ],
)
def test_the_section_says_the_direction_of_each_difference(full, monkeypatch, low, high, known, new, smaller):
    monkeypatch.setattr(adaptation, "difference", lambda *_: Interval((low + high) / 2, low, high))
    said = [text.replace("\u00a0", " ") for text in adaptation.verdict(full.adaptation, full.by_macs)]
    assert known in said[0]
    assert new in said[1]
    assert smaller in said[2]
    assert ("above alexnet" in said[2], "below alexnet" in said[2]) == (low > 0, high < 0)


def test_the_introductions_claims_are_judged_by_it(full):
    def judged(comparison):
        return {claim.key: claim for claim in claims.judge(comparison)}

    found = judged(full)
    assert found["device_training"].outcome == "agrees"
    assert "+15.0 points" in found["device_training"].measured
    assert found["smaller_is_enough"].outcome == "agrees"
    assert found["power_and_memory"].outcome == "not judged"
    assert "alexnet" in found["power_and_memory"].measured
    without = judged(replace(full, adaptation=()))
    assert without["device_training"].outcome == without["smaller_is_enough"].outcome == "not measured"


def test_networks_that_were_not_fine_tuned_change_neither_claims_nor_verdict(full):
    small = next(iter(full.by_macs))
    without = replace(full, adaptation=[one for one in full.adaptation if one.model != small])
    models = {one.model for one in without.adaptation}
    found = {claim.key: claim for claim in claims.judge(without)}
    for key in ("device_training", "smaller_is_enough"):
        assert found[key].measured.split(",")[0] in models
        assert found[key].outcome == "agrees"


def test_of_networks_with_equally_many_macs_the_small_one_is_compared_with_the_most_accurate(full):
    large = [*full.by_macs][-1]
    other = [replace(one, found=one.found | {"model": "other"}) for one in full.adaptation if one.model == large]
    said = adaptation.verdict([*full.adaptation, *other], full.by_macs | {"other": full.by_macs[large]})
    assert f"{large} as it is" in said[2]
