"""Fine-tuning, its costs and its figures against cases made by hand; the experiment; the section of the report."""

import shutil
from dataclasses import replace

import fake_results
import numpy as np
import pytest
import torch
from torch import nn

from frugalnet import models
from frugalnet.adaptation import finetuning, section
from frugalnet.adaptation.config import PARTS, TRAINED, AdaptConfig, TuningConfig
from frugalnet.adaptation.cost import saved_bytes, training_macs
from frugalnet.adaptation.finetuning import (
    classifier,
    fine_tune,
    for_classes,
    modules_of,
    train_only,
    trained_tensors,
)
from frugalnet.adaptation.measure import Experiment, choose_pictures, draw_classes, lacking, measure, pretrain
from frugalnet.adaptation.result import AdaptationResult, difference, read_result, write_network
from frugalnet.comparison.compare import Evidence, compare
from frugalnet.comparison.records import read_records
from frugalnet.data.arrays import Dataset, Split
from frugalnet.document.blocks import Table
from frugalnet.errors import UserError
from frugalnet.files import read_json, write_json
from frugalnet.metrics.counts import macs
from frugalnet.metrics.statistics import Interval
from frugalnet.paper import claims
from frugalnet.study.findings import conclude
from frugalnet.study.report import compose, write_report
from frugalnet.training.batches import Examples, Normaliser, PerView, Resident
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
def views(tmp_path_factory) -> PerView:
    folder = tmp_path_factory.mktemp("views")
    write_json(folder / "views.json", {"images_per_hash": 1000, "sha256": {}})
    return PerView(folder)


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
    fine_tune(network, part, Examples(lambda _: pictures(labels, 0), labels), NORMALISE, tuning, 0)
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
        fine_tune(network, part, Examples(lambda _: pictures(labels, 0), labels), NORMALISE, tuning, 0)
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
    fine_tune(network, "classifier", Examples(lambda _: images, labels), normalise, tuning, 0)
    with torch.no_grad():
        odds = (network.fc.weight[1] - network.fc.weight[0]).tolist()
    assert odds == pytest.approx([np.log(3), -np.log(3)], abs=0.02)


def test_the_learning_rate_falls_linearly_from_the_parts_own_to_zero(monkeypatch):
    rates = []
    step = finetuning.step

    def noted(network, optimiser, inputs, labels):
        rates.append(optimiser.param_groups[0]["lr"])
        return step(network, optimiser, inputs, labels)

    monkeypatch.setattr(finetuning, "step", noted)
    labels = np.arange(20) % 3
    tuning = TuningConfig.model_validate({**TUNING, "steps": 5})  # of several epochs
    fine_tune(
        models.build("depthwise", 3), "norms", Examples(lambda _: pictures(labels, 0), labels), NORMALISE, tuning, 0
    )
    assert rates == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.002])


def test_the_same_bits_twice_and_a_loss_that_explodes_is_told():
    labels = np.arange(20) % 3
    examples = Examples(lambda epoch: pictures(labels, epoch), labels)
    networks = []
    for _ in range(2):
        torch.manual_seed(1)
        network = models.build("depthwise", 3)
        fine_tune(network, "all", examples, NORMALISE, TuningConfig(**TUNING), 4)
        networks.append(network.state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    tuning = TuningConfig(**TUNING)
    rates = tuning.learning_rate.model_copy(update={"all": 1e30})
    explosive = tuning.model_copy(update={"learning_rate": rates})
    with pytest.raises(UserError, match=r"loss is (nan|inf) at step \d+, all trained; lower the rate \(now 1e\+30\)"):
        fine_tune(network, "all", examples, NORMALISE, explosive, 4)


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


def test_the_experiment_learns_what_can_be_learned(data, views):
    torch.manual_seed(0)
    network = models.build("depthwise", 7)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    once = FEW.model_copy(update={"draws": 1, "steps": 60, "scratch_steps": 60})
    experiment = Experiment(network, "depthwise", "seen", data, views, once)
    result = measure(experiment)
    assert not changed(before, network)
    outcomes = result.outcomes
    assert [outcome.method for outcome in outcomes] == ["general", "restricted", *TRAINED]
    assert all(len(outcome.right) == 20 for outcome in outcomes)
    assert result.accuracy("all", 8).estimate > 0.8
    assert result.accuracy("scratch", 8).estimate > 0.8
    costs = result.costs
    assert costs["classifier"].macs_per_picture < costs["norms"].macs_per_picture < costs["all"].macs_per_picture
    assert result.timing.peak_memory_bytes["classifier"] < result.timing.peak_memory_bytes["all"]
    whole = models.build("depthwise", once.classes).state_dict().values()  # with the statistics of its batch norms
    assert costs["all"].stored_bytes == sum(value.nbytes for value in whole)
    assert [training.method for training in result.timing.trainings] == [*TRAINED]


def test_the_experiment_says_the_same_twice(data, views):
    torch.manual_seed(0)
    short = FEW.model_copy(update={"draws": 1, "steps": 5, "scratch_steps": 5})
    experiment = Experiment(models.build("depthwise", 7), "depthwise", "seen", data, views, short)
    assert measure(experiment).model_dump() == measure(experiment).model_dump()


def test_outcomes_are_listed_by_draw_and_training_from_scratch_is_only_in_the_first_scenario(data, views):
    short = FEW.model_copy(update={"steps": 2, "scratch_steps": 2})
    seen = measure(Experiment(models.build("depthwise", 7), "depthwise", "seen", data, views, short))
    methods = ["general", "restricted", *TRAINED]
    assert [(o.draw, o.method) for o in seen.outcomes] == [(draw, m) for draw in range(2) for m in methods]
    unseen = measure(Experiment(models.build("depthwise", 3), "depthwise", "unseen", data, views, short))
    assert [outcome.method for outcome in unseen.outcomes] == [*PARTS] * 2


def test_a_rate_that_is_too_high_is_named(data, views):
    rates = FEW.learning_rate.model_copy(update={"all": 1e30})
    explosive = FEW.model_copy(update={"learning_rate": rates})
    with pytest.raises(UserError, match=r"adapt\.learning_rate\.all: the loss is"):
        measure(Experiment(models.build("depthwise", 7), "depthwise", "seen", data, views, explosive))


def test_a_network_that_has_never_seen_the_classes_is_trained_without_them_and_only_once(
    data, views, tmp_path, capfd, monkeypatch
):
    from frugalnet import config

    recipe = config.read_params().train.model_copy(update={"epochs": 3, "batch_size": 10})
    drawn = [c for draw in draw_classes(FEW, 7) for c in draw]
    kept: list[np.ndarray] = []
    resident = Resident.of
    monkeypatch.setattr(Resident, "of", lambda self, images: kept.append(images) or resident(self, images))
    job = Job("depthwise", 0, recipe, data, views, left_out=tuple(drawn))
    monkeypatch.setenv("FRUGALNET_CHECKPOINTS", str(tmp_path / "kept"))
    settings = config.read_params().compute.model_copy(update={"device": "cpu", "compile": "default"})
    networks = [pretrain(job, settings, tmp_path).state_dict() for _ in range(2)]
    assert networks[0]["fc.weight"].shape[0] == 3
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    assert capfd.readouterr().err.count("epoch 1/3") == 1  # the second came from the checkpoint
    assert len(kept) == 3
    assert all(images is data.train.images for images in kept)  # a GPU keeps one copy, not one of each epoch
    assert list(tmp_path.glob("kept/adapt/depthwise-0-*/*.ckpt"))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    root = fake_results.make(tmp_path_factory.mktemp("results"), num_classes=200, n=2000)
    return compare(read_records(root), "d" * 64, "validation split")


@pytest.fixture
def result(full) -> AdaptationResult:
    return fake_results.adapted(sorted(row.model for row in full.rows))


def verdict(result, comparison) -> list[str]:
    return [text.replace("\u00a0", " ") for text in section.verdict(result, comparison)]


def test_the_section_says_what_the_figures_say(full, result, tmp_path):
    said = verdict(result, full)
    assert said[0].startswith(
        "On a device that meets 4 classes, residual goes from 33.8 % (19.0 to 49.1 %) to 63.7 % ("
    )
    assert "adds 15.0 points (" in said[0]
    assert "residual reaches 78.8 % (" in said[1]
    assert "47.5 points (" in said[1]
    assert said[2].startswith("A smaller network is enough: residual, fine-tuned, is 20.0 points (")
    drawn = section.section(result, full)
    assert drawn.title == "Training on the device"
    tables = [block for block in drawn.blocks if isinstance(block, Table)]
    assert [table.title for table in tables] == [*section.SCENARIOS.values()]
    assert "Energy" not in tables[0].header
    assert len(tables[0].rows) == 3 * 7
    assert len(tables[1].rows) == 3 * 5
    write_report(compose(conclude(Evidence(full, (result,)))), tmp_path / "out")
    html, markdown = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("html", "md"))
    for text in (html, markdown):
        assert "Training on the device" in text
        assert "classifier, last two blocks" in text
    assert "adaptation" in conclude(Evidence(full, (result,))).summary()


def test_what_is_written_is_read_again_and_training_from_scratch_told_in_both_scenarios(tmp_path):
    seen, unseen = fake_results.adapted(["depthwise"]).networks
    outcomes = [outcome for outcome in unseen.outcomes if outcome.method != "scratch"]
    trainings = [training for training in unseen.timing.trainings if training.method != "scratch"]
    timing = unseen.timing.model_copy(update={"trainings": trainings})
    write_network(seen, tmp_path, "depthwise-seen")
    write_network(unseen.model_copy(update={"outcomes": outcomes, "timing": timing}), tmp_path, "depthwise-unseen")
    write_network(None, tmp_path, "alexnet-seen")
    assert read_json(tmp_path / "adapt/alexnet-seen/adapt.json") is None
    known, new = read_result(tmp_path).networks
    assert known == seen
    assert new.accuracy("scratch", 50) == unseen.accuracy("scratch", 50)
    assert new.seconds("scratch") == seen.seconds("scratch")
    shutil.rmtree(tmp_path / "adapt/depthwise-seen")
    with pytest.raises(UserError, match="no training from scratch of depthwise: run `dvc repro`"):
        read_result(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    (seen, _) = fake_results.adapted(["depthwise"]).networks
    write_network(seen, tmp_path, "depthwise-seen")
    path = tmp_path / "adapt/depthwise-seen/adapt.json"
    write_json(path, {"measured": True, "outcomes": []})
    with pytest.raises(UserError, match=r"depthwise-seen/adapt\.json: missing or damaged"):
        read_result(tmp_path)


def of_pictures(network, right: dict):
    """The network with these digits for each (method, draw)."""
    listed = [
        {"draw": draw, "pictures": 0 if method == "restricted" else 50, "method": method, "right": digits}
        for (method, draw), digits in right.items()
    ]
    return type(network).model_validate(
        {**network.model_dump(), "outcomes": listed, "timing": network.timing.model_dump()}
    )


def test_gains_count_pictures_that_are_paired(result):
    seen = result.network("seen", "depthwise")
    gain = difference(seen, ("all", 50), seen, ("restricted", 0))
    assert gain.estimate == pytest.approx((28 - 24 + 2) / 40)
    assert gain.excludes_zero
    assert difference(seen, ("all", 7), seen, ("restricted", 0)) is None
    elsewhere = seen.model_copy(update={"drawn": [["a"], ["c"]]})
    assert difference(seen, ("all", 50), elsewhere, ("restricted", 0)) is None

    better = {("all", 0): "1110000000" * 9, ("all", 1): "1111111110" * 9}
    worse = {("restricted", 1): "1111111100" * 9, ("restricted", 0): "1100000000" * 9}  # the later draw first
    paired = of_pictures(seen, better | worse)
    gain = difference(paired, ("all", 50), paired, ("restricted", 0))
    # A picture of ten is gained in each draw and none is lost, which only the pairs show; without them, and with the
    # draws mixed up, the interval would include zero. Half of it: 1.96 √(2 · 0.1 · 0.9 / 180), the pictures twice.
    assert gain.estimate == pytest.approx(0.1)
    assert (gain.low, gain.high) == pytest.approx((0.1 - 0.062, 0.1 + 0.062), abs=0.01)


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
def test_the_section_says_the_direction_of_each_difference(full, result, monkeypatch, low, high, known, new, smaller):
    monkeypatch.setattr(section, "difference", lambda *_: Interval((low + high) / 2, low, high))
    said = verdict(result, full)
    assert known in said[0]
    assert new in said[1]
    assert smaller in said[2]
    assert ("above alexnet" in said[2], "below alexnet" in said[2]) == (low > 0, high < 0)


def judged(comparison, *results) -> dict[str, claims.Claim]:
    return {claim.key: claim for claim in claims.judge(Evidence(comparison, results))}


def test_the_introductions_claims_are_judged_by_it(full, result):
    measured = judged(full, result)
    assert measured["device_training"].outcome == "agrees"
    assert "+15.0 points" in measured["device_training"].measured
    assert measured["smaller_is_enough"].outcome == "agrees"
    assert measured["power_and_memory"].outcome == "not judged"
    assert "alexnet" in measured["power_and_memory"].measured
    without = judged(full)
    assert without["device_training"].outcome == without["smaller_is_enough"].outcome == "not measured"


def test_networks_that_were_not_fine_tuned_change_neither_claims_nor_verdict(full, result):
    small = next(iter(full.by_macs))
    without = AdaptationResult(networks=[network for network in result.networks if network.model != small])
    measured = judged(full, without)
    for key in ("device_training", "smaller_is_enough"):
        assert measured[key].measured.split(",")[0] in without.models
        assert measured[key].outcome == "agrees"
    assert small not in " ".join(verdict(without, full))


def test_of_networks_with_equally_many_macs_the_small_one_is_compared_with_the_most_accurate(full, result):
    large = [*full.by_macs][-1]
    other = [network.model_copy(update={"model": "other"}) for network in result.networks if network.model == large]
    row = replace(full.row(large), model="other", top1=replace(full.row(large).top1, mean=0.0))
    wider = replace(full, rows=[*full.rows, row])
    both = AdaptationResult(networks=[*other, *result.networks])
    assert f"{large} as it is" in verdict(both, wider)[2]


def test_a_result_of_networks_that_are_not_compared_is_none(full, result, tmp_path):
    for network in result.networks:
        write_network(network, tmp_path, f"{network.model}-{network.scenario}")
    assert section.load(tmp_path, full).models == result.models
    assert section.load(tmp_path, replace(full, rows=full.rows[:1])).models == [full.rows[0].model]
    assert section.load(tmp_path / "empty", full) is None
