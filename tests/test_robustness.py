"""Attacks, corruptions and their figures against cases made by hand, and the section of the report."""

from dataclasses import replace

import fake_results
import numpy as np
import pytest
from frugalnet.report import claims, findings, page, robustness, robustness_section
from scipy.stats import binomtest

from frugalnet.errors import UserError
from frugalnet.files import write_json
from frugalnet.metrics import perturbation_figures as figures
from frugalnet.robustness.corruptions import KINDS, corrupt
from frugalnet.robustness.measure import RobustnessConfig, measure
from frugalnet.robustness.one_pixel import Outcome, attack

GREY = np.full((16, 16, 3), 128, np.uint8)
FEW = RobustnessConfig(seed=0, pictures=3, pixels=[1], candidates=20, generations=4, corrupted=4, int8=False)


def darkness_at(x: int, y: int, enough: float):
    """A network of two classes: the darker the pixel at (x, y), and the nearer to it a change, the less of class 0."""

    def classify(images: np.ndarray) -> np.ndarray:
        changed = np.abs(images.astype(int) - 128).sum(axis=3).reshape(len(images), -1)
        rows, columns = np.divmod(changed.argmax(axis=1), 16)
        near = 1 - (np.abs(columns - x) + np.abs(rows - y)) / 8
        dark = 1 - images[np.arange(len(images)), rows, columns].mean(axis=1) / 255
        return np.stack([np.full(len(images), enough), near + dark * (changed.max(axis=1) > 0)], axis=1)

    return classify


def test_evolution_finds_and_names_the_one_pixel_that_flips_a_network_where_chance_does_not():
    outcomes = attack(darkness_at(11, 3, 1.97), GREY, 0, 1, 50, 60, (0, 3))
    found = outcomes["evolution"]
    ((x, y, *colour),) = found.changes
    assert (x, y) == (11, 3)
    assert np.mean(colour) < 0.03 * 255 + 1e-9
    assert found.predicted == 1
    assert 50 < found.queries <= 50 * 61
    assert outcomes["random"] == Outcome(50 * 61)


def test_the_first_misclassified_candidate_is_counted_and_a_lucky_first_generation_is_chances_too():
    shown = []

    def classify(images: np.ndarray) -> np.ndarray:
        shown.append(len(images))
        changed = (images != 128).any(axis=(1, 3)).argmax(axis=1)  # column
        return np.stack([np.full(len(images), 0.5), changed >= 8], axis=1)

    outcomes = attack(classify, GREY, 0, 1, 40, 9, (0, 1))
    assert outcomes["evolution"] == outcomes["random"]
    assert 1 <= outcomes["evolution"].queries <= 10
    assert shown == [40]


def test_a_network_that_no_pixel_flips_is_asked_to_the_end_and_is_not_fooled():
    def classify(images: np.ndarray) -> np.ndarray:
        return np.tile([1.0, 0.0], (len(images), 1))

    assert set(attack(classify, GREY, 0, 3, 10, 4, (0, 1)).values()) == {Outcome(50)}


def test_as_many_pixels_are_changed_as_were_asked_for():
    def classify(images: np.ndarray) -> np.ndarray:
        return np.stack([np.full(len(images), 2.5), (images != 128).any(axis=3).sum(axis=(1, 2))], axis=1)

    assert len(attack(classify, GREY, 0, 3, 20, 5, (0, 1))["evolution"].changes) == 3
    assert attack(classify, GREY, 0, 2, 20, 5, (0, 1))["evolution"].changes is None


def pictures(count: int = 8) -> np.ndarray:
    rng = np.random.default_rng(3)
    small = rng.integers(30, 220, (count, 8, 8, 3), np.uint8)
    return np.roll(small.repeat(8, axis=1).repeat(8, axis=2), 3, axis=(1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_changes_more_with_its_severity_and_nothing_at_zero(kind):
    images, indices = pictures(), np.arange(8)
    changed = [np.abs(corrupt(images, kind, s, 0, indices).astype(int) - images).mean() for s in range(6)]
    assert changed[0] == 0
    assert changed[1] > 0
    assert changed[1] < changed[3] + 2
    assert changed[1] < changed[5]


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_depends_on_the_seed_and_the_pictures_index_alone(kind):
    images, indices = pictures(), np.arange(8)
    whole = corrupt(images, kind, 3, 5, indices)
    assert whole.dtype == np.uint8
    assert np.array_equal(corrupt(images[[6, 2]], kind, 3, 5, np.array([6, 2])), whole[[6, 2]])
    if kind in (
        "Gaussian noise",
        "shot noise",
        "impulse noise",
        "fog",
        "glass blur",
        "motion blur",
        "elastic transform",
    ):
        assert not np.array_equal(corrupt(images, kind, 3, 6, indices), whole)
        assert not np.array_equal(corrupt(images, kind, 3, 5, indices + 8), whole)


def test_an_unknown_corruption_is_refused_with_the_known_ones():
    for kind, severity in (("hail", 1), ("fog", 6), ("fog", -1)):
        with pytest.raises(UserError, match=rf"'{kind}' of severity {severity}: expected 0 to 5 of Gaussian noise, "):
            corrupt(pictures(1), kind, severity, 0, np.array([0]))


def by_brightness(threshold: int):
    """A network that knows whether a picture's mean is above a threshold."""

    def classify(images: np.ndarray) -> np.ndarray:
        bright = images.reshape(len(images), -1).mean(axis=1) - threshold
        return np.stack([-bright, bright], axis=1)

    return classify


def test_all_networks_are_attacked_on_the_same_pictures_that_all_classify_correctly_and_to_the_same_bits_twice():
    images = np.repeat(np.arange(40, 240, 10, dtype=np.uint8), 64 * 64 * 3).reshape(20, 64, 64, 3)
    labels = (np.arange(20) >= 10).astype(np.int64)
    networks = {"one-0": by_brightness(139), "two-0": by_brightness(180)}
    found = measure(networks, images, labels, FEW)
    assert len(found["attacked"]) == 3
    every = measure(networks, images, labels, FEW.model_copy(update={"pictures": 20, "corrupted": 0}))["attacked"]
    assert every[:3] == found["attacked"]
    assert sorted(every) == [*range(10), *range(15, 20)]  # the second network gets the five between wrong
    assert found["labels"] == labels[found["attacked"]].tolist()
    assert found["networks"].keys() == networks.keys()
    for network in found["networks"].values():
        assert len(network["attacks"]["1"]["evolution"]) == len(network["confidence"]) == 3
        assert {len(digits) for kind in KINDS for digits in network["right"][kind]} == {4}
    assert measure(networks, images, labels, FEW) == found
    # A picture's outcome does not depend on the others.
    fewer = measure(networks, images, labels, FEW.model_copy(update={"pictures": 1, "corrupted": 0}))
    assert fewer["attacked"] == found["attacked"][:1]
    of = [one["networks"]["one-0"]["attacks"]["1"]["evolution"][0] for one in (fewer, found)]
    assert of[0] == of[1]


def test_without_pictures_nothing_is_asked_of_a_network_and_the_output_says_so(tmp_path):
    def classify(_: np.ndarray) -> np.ndarray:
        raise AssertionError

    none = measure(
        {"a-0": classify}, pictures(), np.zeros(8, int), FEW.model_copy(update={"pictures": 0, "corrupted": 0})
    )
    assert none == {"measured": False}
    write_json(tmp_path / "robustness.json", none)
    assert robustness.load(tmp_path / "robustness.json") is None
    write_json(tmp_path / "robustness.json", {})
    with pytest.raises(UserError, match="dvc repro"):
        robustness.load(tmp_path / "robustness.json")


def test_no_picture_that_all_classify_correctly_is_said(full):
    measured = fake_results.robustness(["depthwise"])
    for network in measured["networks"].values():
        network |= {"confidence": [], "attacks": {"1": {"evolution": [], "random": []}}}
    shown = robustness_section.blocks(replace(full, robustness=measured | {"attacked": [], "labels": []}), None)
    assert robustness_section.NO_PICTURE in shown
    assert shown[0].startswith("Corruptions leave depthwise ")


def test_figures_of_attacks_agree_with_scipy_and_cases_by_hand():
    found, queries = np.array([True, False, True, True]), np.array([5, 100, 9, 5])
    rate, expected = figures.success_rate(found), binomtest(3, 4).proportion_ci(method="wilson")
    assert (rate.estimate, rate.low, rate.high) == pytest.approx((0.75, expected.low, expected.high))
    assert figures.median_queries(found, queries) == 5
    assert figures.median_queries(~found & False, queries) is None
    assert figures.fooled_within(found, queries) == ([5, 9], [0.5, 0.75])


def test_the_accuracy_kept_is_the_mean_over_kinds_and_severities_relative_to_clean():
    clean = np.array([True, True, True, True, False])
    corrupted = np.zeros((2, 5, 5), bool)
    corrupted[0, :, :2] = True  # 2 of 5 under the first kind, none under the second
    assert figures.accuracy_kept(clean, corrupted).estimate == pytest.approx(0.25)
    assert figures.accuracy_kept(clean, corrupted[[0]]).estimate == pytest.approx(0.5)
    whole = figures.accuracy_kept(clean, np.tile(clean, (3, 5, 1)))
    assert (whole.estimate, whole.low, whole.high) == (1, 1, 1)
    few = figures.accuracy_kept(clean, corrupted[[0]])
    assert few.low < 0.5 < few.high
    assert figures.accuracy_kept(~clean & False, corrupted).estimate == 0


def test_the_verdict_names_a_difference_only_if_it_is_significant(full):
    said = robustness.verdict(full).replace("\u00a0", " ")
    # alexnet 10, depthwise 16, residual 22 of 40; of the two with the fewest MACs, residual is the more accurate
    assert said.startswith("One changed pixel fools residual on 55.0 % (39.8 to 69.3 %) and alexnet on 25.0 % (")
    assert "significantly different (McNemar’s exact p 0.0005); corruptions leave residual " in said
    same = full.robustness | {
        "networks": {f"{m}-0": full.robustness["networks"]["alexnet-0"] for m in ("alexnet", "residual")}
    }
    assert "not significantly different (McNemar’s exact p\u00a01.0000)" in robustness.verdict(
        replace(full, robustness=same)
    )


def test_a_quantised_network_is_a_row_of_its_own_and_compared_with_itself(full, tmp_path):
    measured = fake_results.robustness(["alexnet", "depthwise", "residual", "residual int8"])  # 22 and 28 of 40 fooled
    quantised = replace(full, robustness=measured)
    said = robustness.verdict(quantised).replace("\u00a0", " ")
    found = "the int8 file of residual on 70.0 % (54.6 to 81.9 %), significantly different from float32 (p 0.0312)"
    assert found in said
    assert robustness.verdict(full).split(";")[0] == robustness.verdict(quantised).split(";")[0]
    assert "alexnet and residual int8" in robustness.summary(quantised)["mcnemar"]
    page.write(findings.find(quantised), tmp_path / "out")
    assert "| residual (int8) | 70.0" in (tmp_path / "out/report.md").read_text()


def test_a_single_network_has_a_verdict_too(full):
    alone = replace(full, robustness=fake_results.robustness(["depthwise"]))
    said = robustness.verdict(alone).replace("\u00a0", " ")
    assert said.startswith(
        "One changed pixel fools depthwise on 25.0 % (14.2 to 40.2 %); corruptions leave depthwise 56.9 % ("
    )
    assert robustness.summary(alone)["mcnemar"] == {}


def test_the_claim_of_the_introduction_is_judged_by_the_attacks_or_is_not_measured(full):
    def claim(measured):
        return next(c for c in claims.judge(replace(full, robustness=measured)) if c.key == "one_pixel")

    assert claim(full.robustness).outcome == "agrees"
    assert "alexnet on 25.0" in claim(full.robustness).measured
    assert (claim(None).measured, claim(None).outcome) == ("not measured", "not measured")
    for network in (unfooled := fake_results.robustness(["alexnet"]))["networks"].values():
        network["attacks"]["1"]["evolution"] = [{"queries": 300, "changes": None, "predicted": None}] * 40
    assert claim(unfooled).outcome == "undecided"


def test_the_section_has_one_table_two_charts_and_the_surest_pictures_that_only_the_page_shows(written):
    html, markdown = ((written / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert html.count(robustness_section.TITLE) >= 2  # contents and heading
    section = html.split('<section id="robustness">')[1].split("</section>")[0]
    assert section.count("<table") == 1
    assert section.count("data-figure=") == 2
    assert section.count("data:image/png") == 2 * robustness_section.SHOWN * 3
    surest = fake_results.class_names(12)[9]
    assert f"alexnet: {surest} (59\u00a0% sure), after the change &lt;b&gt;bow | tie&lt;/b&gt;" in section
    assert robustness_section.TITLE in markdown
    assert "data:image" not in markdown
    assert {"one_pixel.png", "corruptions.png"} <= {path.name for path in (written / "figures").iterdir()}


def test_without_measurement_the_section_says_so(full, tmp_path):
    page.write(findings.find(replace(full, robustness=None)), tmp_path / "out")
    assert robustness_section.NOT_MEASURED.split(":")[0] in (tmp_path / "out/report.md").read_text()


def test_without_pictures_nothing_is_said(full):
    assert robustness.verdict(replace(full, robustness=full.robustness | {"attacked": [], "corrupted": []})) == ""
