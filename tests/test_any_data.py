"""The report of data that are not Tiny ImageNet: of 2 to 1,000 classes, of unequal size, with or without a start."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_results
import numpy as np
import pytest

from frugalnet.adaptation.result import read_lacking, read_result, write_network
from frugalnet.comparison.compare import Comparison, Evidence, compare
from frugalnet.comparison.networks import MILESTONES
from frugalnet.comparison.records import read_records
from frugalnet.data.arrays import Dataset, Split
from frugalnet.data.copies import NearCopies, NearCopy, read_near_copies
from frugalnet.data.sizes import unequal_sizes
from frugalnet.document.blocks import Fold, Heatmap, Pairs
from frugalnet.document.plotly_figures import plotly_figure
from frugalnet.document.png_figures import MOST_SQUARES, write_png
from frugalnet.document.write import example_url
from frugalnet.files import write_json
from frugalnet.metrics import classes, statistics
from frugalnet.metrics.accuracy import macro_accuracy
from frugalnet.robustness import section as robustness
from frugalnet.run import Start
from frugalnet.study import starts, summary
from frugalnet.study.classes import confused_pairs
from frugalnet.study.experiments import gather
from frugalnet.study.findings import conclude
from frugalnet.study.report import compose, describe, write_report

PAPERS_WORDS = re.compile(r"paper|Tong|Tiny ImageNet|claims", re.IGNORECASE)


def comparison(root: Path, sizes: tuple[int, int] | None = None, **how: Any) -> Comparison:
    made = fake_results.make(root, **({"seeds": (0,), "data": "parts"} | how))
    return compare(read_records(made), "d" * 64, "validation split", class_sizes=sizes)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two classes, of 50 and 900 images."""
    return comparison(tmp_path_factory.mktemp("two"), (50, 900), num_classes=2, n=200)


@pytest.fixture(scope="module")
def written(two: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "compare"
    write_report(compose(conclude(Evidence(two, (), {"adaptation": "2 classes are too few"}))), out)
    return out


@pytest.fixture(scope="module")
def texts(written: Path) -> dict[str, str]:
    page = (written / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return {"report.html": page} | {
        path.name: path.read_text(encoding="utf-8")
        for path in written.iterdir()
        if path.suffix in (".md", ".json", ".csv")
    }


def test_the_data_are_named_and_nothing_speaks_of_the_paper(texts: dict[str, str]) -> None:
    for name in ("report.html", "report.md"):
        assert "3 networks on parts: 2 classes, 200 images (64×64 pixels) of the validation split." in texts[name]
    for name, text in texts.items():
        assert not PAPERS_WORDS.search(text.replace('"claims": []', "")), name


def test_top_5_of_two_classes_is_not_shown(texts: dict[str, str]) -> None:
    for name in ("report.html", "report.md", "comparison.json", "table.csv"):
        assert "top5" not in texts[name].lower().replace("-", ""), name


def test_milestones_follow_the_accuracies_reached(two: Comparison, tmp_path: Path) -> None:
    best = max(record.history[-1].validation_top1 for record in two.records)
    reached = [milestone.milestone for milestone in two.rows[0].reached]
    assert all(0.4 * best < milestone < best for milestone in reached)
    assert reached == sorted(set(reached))
    of_the_paper = comparison(tmp_path, data="tiny-imagenet-subset", models=("depthwise",))
    assert [milestone.milestone for milestone in of_the_paper.rows[0].reached] == [*MILESTONES]


def test_unequal_classes_are_said_and_macro_accuracy_leads(two: Comparison, texts: dict[str, str]) -> None:
    assert (
        "The classes differ in size, from 50 to 900 images, so networks are ranked by macro accuracy"
        in texts["report.md"]
    )
    assert "% macro accuracy (95\u00a0% interval" in " ".join(conclude(Evidence(two)).recommendation)
    assert [row.lead for row in two.rows] == [row.macro_accuracy for row in two.rows]
    table = describe(conclude(Evidence(two))).sections[0].blocks[0]
    assert table.header[1:3] == ("Macro accuracy", "Top-1")  # type: ignore[union-attr]
    figures = json.loads(texts["comparison.json"])["networks"][0]
    assert figures["macro_interval"]["estimate"] == pytest.approx(figures["macro_accuracy"]["mean"])
    assert summary.summary(two)["macro"] == round(two.rows[0].macro_accuracy.mean, 4)
    assert "macro accuracy" in summary.of_all(two)


def test_networks_are_ranked_by_the_accuracy_that_leads(two: Comparison) -> None:
    record = two.rows[0].records[0]
    labels = np.repeat([0, 1], [180, 20])
    frequent = np.where(labels == 0, 0, 0)  # 90 % top-1, 50 % macro
    fair = np.where(np.arange(200) % 10 < 8, labels, 1 - labels)  # 80 % of both

    def evaluated(name: str, predicted: np.ndarray) -> Any:
        logits = np.eye(2)[predicted]
        shares = {"top1": float((predicted == labels).mean()), "macro_accuracy": macro_accuracy(logits, labels)}
        metrics = record.metrics.model_copy(update=shares)
        return replace(
            record, model=name, run=record.run.changed(model=name), labels=labels, predicted=predicted, metrics=metrics
        )

    records = [evaluated("alexnet", frequent), evaluated("depthwise", fair)]
    by_top1 = compare(records, "d" * 64, "validation split")
    by_class = compare(records, "d" * 64, "validation split", class_sizes=(20, 180))
    assert [row.model for row in by_top1.rows] == ["alexnet", "depthwise"]
    assert [row.model for row in by_class.rows] == ["depthwise", "alexnet"]
    assert by_class.difference("depthwise", "alexnet").low > 0 > by_top1.difference("depthwise", "alexnet").high


def test_answers_that_are_all_right_or_all_wrong_leave_wilsons_interval() -> None:
    squared_z = 1.959964**2
    right = statistics.bootstrap(np.ones((2, 61), bool))
    assert (right.estimate, right.low, right.high) == (1, pytest.approx(61 / (61 + squared_z)), 1)
    wrong = statistics.bootstrap(np.zeros((1, 61), bool))
    assert (wrong.estimate, wrong.low, wrong.high) == (0, 0, pytest.approx(squared_z / (61 + squared_z)))
    of_classes = statistics.class_weights(np.repeat([0, 1], [45, 16]))
    counted = 2**2 / (1 / 45 + 1 / 16)  # images
    macro = statistics.bootstrap(np.ones((1, 61), bool), weights=of_classes)
    assert (macro.estimate, macro.low, macro.high) == (1, pytest.approx(counted / (counted + squared_z)), 1)


def test_networks_no_better_than_guessing_are_not_recommended_without_a_word(two: Comparison, tmp_path: Path) -> None:
    first = conclude(Evidence(two)).recommendation[0]
    assert first.startswith(
        "No network is significantly better than guessing: one class for every image has 50.0\u00a0% macro accuracy."
    )
    better = conclude(Evidence(comparison(tmp_path, num_classes=12))).recommendation
    assert "guessing" not in " ".join(better)


def test_classes_that_are_never_right_are_not_the_easiest() -> None:
    accuracies = [0.0, 0.5, None, 0.0, 0.0, 1.0]
    assert classes.best_and_worst(accuracies) == ([5, 1], [0, 3, 4])
    assert classes.best_and_worst([0.0, 0.0]) == ([], [0, 1])


def test_where_nothing_was_confused_there_is_no_empty_table(two: Comparison) -> None:
    row = replace(two.rows[0], confusion=np.diag([100, 100]))
    assert confused_pairs(row) == "No two classes were confused more than once."


def test_weighted_bootstrap_is_drawing_images_and_weighing_them() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (150, 30, 20))
    first, second = generator.random((2, 200)) < np.array([0.9, 0.5, 0.3])[labels]
    weights = statistics.class_weights(labels)
    drawn = generator.integers(0, 200, (20_000, 200))
    of_class = weights[drawn] / weights[drawn].sum(axis=1, keepdims=True)
    simulated = ((first[drawn].astype(float) - second[drawn]) * of_class).sum(axis=1)
    found = statistics.bootstrap(first[None], second[None], weights=weights)
    per_class = [first[labels == c].mean() - second[labels == c].mean() for c in range(3)]
    assert found.estimate == pytest.approx(np.mean(per_class))
    np.testing.assert_allclose([found.low, found.high], np.quantile(simulated, [0.025, 0.975]), atol=0.01)


@pytest.mark.parametrize(("counts", "expected"), [((30, 45), None), ((30, 46), (30, 46)), ((3, 3), None)])
def test_classes_differ_from_half_as_many_more_on(counts: tuple[int, int], expected: tuple[int, int] | None) -> None:
    def split(share: float) -> Split:
        labels = np.repeat([0, 1], [round(share * count) for count in counts])
        return Split(np.zeros((len(labels), 8, 8, 3), np.uint8), labels)

    names = ["a", "b"]
    train, validation = split(2 / 3), split(1 / 3)
    data = Dataset(train, validation, names, names, [0.0] * 3, [1.0] * 3, "parts", False, "validation split", {})
    assert unequal_sizes(data) == expected


# Confusion


def heatmap(classes: int) -> Heatmap:
    percent = np.random.default_rng(0).uniform(0, 5, (classes, classes)).astype(np.float32)
    np.fill_diagonal(percent, np.nan)
    return Heatmap("c", "Confusion", [f"class {c}" for c in range(classes)], percent, np.full(classes, 75.0))


def test_few_classes_have_their_percentages_in_the_squares_and_their_own_scale() -> None:
    drawn = plotly_figure(heatmap(2))
    assert sorted(note["text"] for note in drawn["layout"]["annotations"])[-2:] == ["75 %", "75 %"]
    assert len(drawn["layout"]["annotations"]) == 4
    (trace,) = drawn["data"]
    assert (trace["zmin"], trace["zmax"]) == (0, pytest.approx(float(np.nanmax(heatmap(2).percent))))
    assert "annotations" not in plotly_figure(heatmap(10))["layout"]


def test_names_in_any_script_are_drawn_without_a_warning(tmp_path: Path) -> None:
    names = ["部品", "деталь", "قطعة"]
    write_png(Heatmap("c", "", names, np.full((3, 3), 1, np.float32)), tmp_path / "c.png")
    assert plotly_figure(Heatmap("c", "", names, np.full((3, 3), 1, np.float32)))["data"][0]["x"] == names


def test_a_heatmap_of_very_many_classes_shows_every_mistake(tmp_path: Path) -> None:
    import cv2

    classes = 2 * MOST_SQUARES + 1
    percent = np.zeros((classes, classes), np.float32)
    percent[590, 7] = 100
    write_png(Heatmap("c", "", ["x"] * classes, percent), tmp_path / "one.png")
    write_png(Heatmap("c", "", ["x"] * classes, np.zeros_like(percent)), tmp_path / "none.png")
    one, none = (cv2.imread(str(tmp_path / f"{name}.png")).astype(int) for name in ("one", "none"))
    changed = np.argwhere(np.abs(one - none)[:, :620].max(axis=2) > 60)  # left of the colours' scale
    assert len(changed) >= 4
    assert np.ptp(changed[:, 0]) <= 4


def test_the_page_of_1000_classes_is_small_and_its_classes_are_ordered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frugalnet.metrics.classes._MOST_ORDERED", 300)  # the best order of 1,000 takes five seconds
    compared = comparison(tmp_path / "r", models=("depthwise",), num_classes=1000, n=2000, epochs=2)
    report = compose(conclude(Evidence(compared)))
    assert sorted(compared.class_order) == [*range(1000)]
    write_report(report, tmp_path / "compare")
    page = tmp_path / "compare/report.html"
    assert page.stat().st_size < 4_000_000
    assert 'id="figure-confusion_depthwise"' not in page.read_text(encoding="utf-8")
    shown = [block for section in report.document.sections for block in section.blocks if isinstance(block, Fold)]
    assert any(isinstance(inner, Heatmap) and inner.is_large for fold in shown for inner in fold.blocks)


# What the data do not allow, and what flatters


def test_why_nothing_was_measured_is_said(texts: dict[str, str], tmp_path: Path) -> None:
    assert (
        "Training on the device: not measured, as the data do not suffice: 2 classes are too few." in texts["report.md"]
    )
    assert "Robustness: not measured. Rerun with -S robustness=quick." in texts["report.md"]
    write_network(None, tmp_path, "depthwise-seen", "2 classes are too few")
    assert read_lacking(tmp_path) == "2 classes are too few"
    assert read_result(tmp_path).networks == []


def test_near_copies_are_listed(tmp_path: Path) -> None:
    fake_results.make(tmp_path, models=("depthwise",), seeds=(0,), data="parts", data_sha256=fake_results_sha256())
    pairs = [NearCopy(train="train/a/0", validation=f"val/a/{k}", difference=0.1) for k in range(12)]
    write_json(tmp_path / "near_copies.json", NearCopies(pairs=pairs).model_dump())
    write_json(tmp_path / "robustness/robustness.json", None)
    evidence = gather(tmp_path, fake_results.dataset(fake_results.images()), read_near_copies(tmp_path))
    (note,) = [note for note in evidence.comparison.notes if "look" in note]
    assert note.startswith(
        "12 validation images look like a training image, which flatters every network: val/a/0 (as train/a/0)"
    )
    assert note.endswith("and 2 more.")
    assert read_near_copies(tmp_path / "elsewhere") == []


def fake_results_sha256() -> str:
    from frugalnet.files import sha256_of

    return sha256_of(fake_results.dataset(fake_results.images()).sha256)


# Fine-tuned networks


def test_networks_that_began_alike_are_compared_with_each_other(tmp_path: Path) -> None:
    compared = comparison(
        tmp_path, models=("alexnet", "depthwise", "residual", "resnet18"), recipe={"start": "committed"}
    )
    for row in compared.rows:
        if row.model in ("depthwise", "residual"):
            start = Start(file=f"{row.model}-0.safetensors", sha256="s", data="tiny-imagenet")
            row.records[:] = [replace(record, run=record.run.changed(start=start)) for record in row.records]
    said = starts.sentences(compared)
    assert said[0] == (
        "Networks began from different weights, which alone makes a difference: random weights: resnet18 and alexnet; "
        "weights trained on tiny-imagenet: residual and depthwise."
    )
    assert said[1].startswith(
        "Of those that began from random weights, resnet18 is the most accurate, 56.0\u00a0% top-1; its lead"
    )
    assert "began from weights trained on tiny-imagenet, residual is the most accurate" in said[2]
    assert conclude(Evidence(compared)).recommendation[1 : 1 + len(said)] == said
    assert starts.sentences(comparison(tmp_path / "alike")) == []


# Large pictures


def test_of_a_large_picture_the_detail_around_the_changed_pixel_is_shown(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (600, 256, 256, 3), dtype=np.uint8)
    result = fake_results.robustness(["depthwise"])
    compared = comparison(tmp_path, models=("depthwise",), num_classes=12)
    section = robustness.section(result, replace(compared, images=images))
    (block,) = [block for block in section.blocks if isinstance(block, Pairs)]
    for pair in block.pairs:
        assert pair.before.shape == pair.after.shape == (3 * 64, 3 * 64, 3)
        assert (pair.before != pair.after).any()
    assert len(example_url(images[0])) < 40_000  # an example of a class
