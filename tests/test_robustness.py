"""Attacks, corruptions and their figures against cases made by hand, and the section of the report."""

import fake_results
import numpy as np
import pytest
from scipy.stats import binomtest

from frugalnet.comparison.compare import Evidence
from frugalnet.document.blocks import Chart, Table
from frugalnet.errors import UserError
from frugalnet.files import read_json, write_json
from frugalnet.paper import claims
from frugalnet.robustness import rates, section
from frugalnet.robustness.config import RobustnessConfig
from frugalnet.robustness.corruptions import KINDS, corrupt
from frugalnet.robustness.measure import Subject, measure
from frugalnet.robustness.one_pixel import Budget, attack
from frugalnet.robustness.result import FILE, Outcome, RobustnessResult, read_result, write_result
from frugalnet.study.findings import conclude
from frugalnet.study.report import compose, write_report

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
    outcomes = attack(darkness_at(11, 3, 1.97), GREY, 0, Budget(1, 50, 60), (0, 3))
    found = outcomes["evolution"]
    ((x, y, *colour),) = found.changes
    assert (x, y) == (11, 3)
    assert np.mean(colour) < 0.03 * 255 + 1e-9
    assert found.predicted == 1
    assert 50 < found.queries <= 50 * 61
    assert outcomes["random"] == Outcome(queries=50 * 61)


def test_the_first_misclassified_candidate_is_counted_and_a_lucky_first_generation_is_chances_too():
    shown = []

    def classify(images: np.ndarray) -> np.ndarray:
        shown.append(len(images))
        changed = (images != 128).any(axis=(1, 3)).argmax(axis=1)  # column
        return np.stack([np.full(len(images), 0.5), changed >= 8], axis=1)

    outcomes = attack(classify, GREY, 0, Budget(1, 40, 9), (0, 1))
    assert outcomes["evolution"] == outcomes["random"]
    assert 1 <= outcomes["evolution"].queries <= 10
    assert shown == [40]


def test_a_network_that_no_pixel_flips_is_asked_to_the_end_and_is_not_fooled():
    def classify(images: np.ndarray) -> np.ndarray:
        return np.tile([1.0, 0.0], (len(images), 1))

    outcomes = attack(classify, GREY, 0, Budget(3, 10, 4), (0, 1))
    assert outcomes == {"evolution": Outcome(queries=50), "random": Outcome(queries=50)}


def test_as_many_pixels_are_changed_as_were_asked_for():
    def classify(images: np.ndarray) -> np.ndarray:
        return np.stack([np.full(len(images), 2.5), (images != 128).any(axis=3).sum(axis=(1, 2))], axis=1)

    assert len(attack(classify, GREY, 0, Budget(3, 20, 5), (0, 1))["evolution"].changes) == 3
    assert attack(classify, GREY, 0, Budget(2, 20, 5), (0, 1))["evolution"].changes is None


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
    subjects = [Subject("one", 0, by_brightness(139)), Subject("two", 0, by_brightness(180), quantised=True)]
    result = measure(subjects, images, labels, FEW)
    assert len(result.attacked) == 3
    every = measure(subjects, images, labels, FEW.model_copy(update={"pictures": 20, "corrupted": 0})).attacked
    assert every[:3] == result.attacked
    assert sorted(every) == [*range(10), *range(15, 20)]  # the second network gets the five between wrong
    assert result.labels == labels[result.attacked].tolist()
    assert [(network.model, network.seed, network.format) for network in result.networks] == [
        ("one", 0, "float32"),
        ("two", 0, "int8"),
    ]
    for network in result.networks:
        assert len(network.attack(1).evolution) == len(network.confidence) == 3
        assert [corruption.kind for corruption in network.corruptions] == [*KINDS]
        assert network.corrupted_right().shape == (len(KINDS), 5, 4)
    assert measure(subjects, images, labels, FEW) == result
    # A picture's outcome does not depend on the others.
    fewer = measure(subjects, images, labels, FEW.model_copy(update={"pictures": 1, "corrupted": 0}))
    assert fewer.attacked == result.attacked[:1]
    alone, among_others = (measured.networks[0].attack(1).evolution[0] for measured in (fewer, result))
    assert alone == among_others


def test_without_pictures_nothing_is_asked_of_a_network_and_the_output_says_so(tmp_path):
    def classify(_: np.ndarray) -> np.ndarray:
        raise AssertionError

    nothing = FEW.model_copy(update={"pictures": 0, "corrupted": 0})
    none = measure([Subject("a", 0, classify)], pictures(), np.zeros(8, int), nothing)
    assert none is None
    write_result(none, tmp_path)
    assert read_json(tmp_path / FILE) is None
    assert read_result(tmp_path) is None


@pytest.mark.parametrize("damaged", [{}, {"networks": [{"model": "a"}]}, "nu"])
def test_a_damaged_file_is_refused_with_its_remedy(tmp_path, damaged):
    write_json(tmp_path / FILE, damaged)
    with pytest.raises(UserError, match=r"robustness.json: missing or damaged .*run `dvc repro`"):
        read_result(tmp_path)


def test_what_was_measured_is_read_back_with_its_types(tmp_path):
    result = fake_results.robustness(["alexnet", "residual"], quantised=["residual"])
    write_result(result, tmp_path)
    assert read_result(tmp_path) == result
    write_json(tmp_path / FILE, read_json(tmp_path / FILE) | {"other": 1})
    with pytest.raises(UserError, match="other"):
        read_result(tmp_path)


def test_networks_are_shown_in_the_comparisons_order_and_only_those_in_it(full, tmp_path):
    write_result(fake_results.robustness(["resnet18", "residual", "depthwise", "alexnet"], ["residual"]), tmp_path)
    loaded = section.load(tmp_path, full.comparison)
    assert [network.title for network in loaded.networks] == ["alexnet", "residual", "depthwise", "residual int8"]
    write_result(fake_results.robustness(["resnet18"]), tmp_path)
    assert section.load(tmp_path, full.comparison) is None


def changed(result: RobustnessResult, **fields: object) -> RobustnessResult:
    return result.model_copy(update=fields)


@pytest.fixture
def measured(full) -> RobustnessResult:
    return full.result(RobustnessResult)


def test_no_picture_that_all_classify_correctly_is_said(full):
    result = fake_results.robustness(["depthwise"])
    (network,) = result.networks
    attacks = [network.attack(1).model_copy(update={"evolution": [], "random": []})]
    unattacked = network.model_copy(update={"confidence": [], "attacks": attacks})
    shown = section.section(changed(result, networks=[unattacked], attacked=[], labels=[]), full.comparison).blocks
    assert section.NO_PICTURE in shown
    assert shown[0].startswith("Corruptions leave depthwise ")


def test_of_a_network_that_is_never_right_no_accuracy_is_kept(full):
    result = fake_results.robustness(["alexnet", "depthwise"])
    never = result.networks[0].model_copy(update={"clean": "0" * len(result.corrupted)})
    one = section.section(changed(result, networks=[never, result.networks[1]]), full.comparison).blocks
    (table,) = (block for block in one if isinstance(block, Table))
    assert next(row[-1].text for row in table.rows) == "–"
    chart = next(block for block in one if isinstance(block, Chart) and block.name == "corruptions")
    assert [line.text for line in chart.lines] == ["depthwise"]
    assert chart.y_range[1] < 150
    assert "of its accuracy" in one[0]
    assert one[0].count("corruptions leave") == 1
    assert "corruptions leave alexnet" not in one[0]
    none = section.section(changed(result, networks=[never]), full.comparison).blocks
    assert section.BY_KIND not in none
    assert "corruptions" not in none[0]


def test_figures_of_attacks_agree_with_scipy_and_cases_by_hand():
    found, queries = np.array([True, False, True, True]), np.array([5, 100, 9, 5])
    rate, expected = rates.success_rate(found), binomtest(3, 4).proportion_ci(method="wilson")
    assert (rate.estimate, rate.low, rate.high) == pytest.approx((0.75, expected.low, expected.high))
    assert rates.median_queries(found, queries) == 5
    assert rates.median_queries(~found & False, queries) is None
    assert rates.fooled_within(found, queries) == ([5, 9], [0.5, 0.75])


def test_the_accuracy_kept_is_the_mean_over_kinds_and_severities_relative_to_clean():
    clean = np.array([True, True, True, True, False])
    corrupted = np.zeros((2, 5, 5), bool)
    corrupted[0, :, :2] = True  # 2 of 5 under the first kind, none under the second
    assert rates.accuracy_kept(clean, corrupted).estimate == pytest.approx(0.25)
    assert rates.accuracy_kept(clean, corrupted[[0]]).estimate == pytest.approx(0.5)
    whole = rates.accuracy_kept(clean, np.tile(clean, (3, 5, 1)))
    assert (whole.estimate, whole.low, whole.high) == (1, 1, 1)
    few = rates.accuracy_kept(clean, corrupted[[0]])
    assert few.low < 0.5 < few.high
    assert rates.accuracy_kept(~clean & False, corrupted).estimate == 0


def test_the_verdict_names_a_difference_only_if_it_is_significant(full, measured):
    said = section.verdict(measured, full.comparison).replace("\u00a0", " ")
    # alexnet 10, depthwise 16, residual 22 of 40; of the two with the fewest MACs, residual is the more accurate
    assert said.startswith("One changed pixel fools residual on 55.0 % (39.8 to 69.3 %) and alexnet on 25.0 % (")
    assert "significantly different (McNemar’s exact p 0.0005); corruptions leave residual " in said
    same = [measured.networks[0].model_copy(update={"model": model}) for model in ("alexnet", "residual")]
    alike = section.verdict(changed(measured, networks=same), full.comparison)
    assert "not significantly different (McNemar’s exact p\u00a01.0000)" in alike


def test_a_quantised_network_is_a_row_of_its_own_and_compared_with_itself(full, measured, tmp_path):
    result = fake_results.robustness(["alexnet", "depthwise", "residual"], ["residual"])  # 22 and 28 of 40 fooled
    said = section.verdict(result, full.comparison).replace("\u00a0", " ")
    found = "the int8 file of residual on 70.0 % (54.6 to 81.9 %), significantly different from float32 (p 0.0312)"
    assert found in said
    assert said.split(";")[0] == section.verdict(measured, full.comparison).replace("\u00a0", " ").split(";")[0]
    assert "alexnet and residual int8" in section.summary(result, full.comparison)["mcnemar"]
    write_report(compose(conclude(Evidence(full.comparison, (result,)))), tmp_path / "out")
    assert "| residual (int8) | 70.0" in (tmp_path / "out/report.md").read_text()


def test_a_single_network_has_a_verdict_too(full):
    alone = fake_results.robustness(["depthwise"])
    said = section.verdict(alone, full.comparison).replace("\u00a0", " ")
    assert said.startswith(
        "One changed pixel fools depthwise on 25.0 % (14.2 to 40.2 %); corruptions leave depthwise 56.9 % ("
    )
    assert section.summary(alone, full.comparison)["mcnemar"] == {}


def test_the_claim_of_the_introduction_is_judged_by_the_attacks_or_is_not_measured(full, measured):
    def claim(*results: RobustnessResult):
        judged = claims.judge(Evidence(full.comparison, results))
        return next(claim for claim in judged if claim.key == "one_pixel")

    assert claim(measured).outcome == "agrees"
    assert "alexnet on 25.0" in claim(measured).measured
    assert (claim().measured, claim().outcome) == ("not measured", "not measured")
    (network,) = fake_results.robustness(["alexnet"]).networks
    attacks = [network.attack(1).model_copy(update={"evolution": [fake_results.UNFOOLED] * 40})]
    unfooled = network.model_copy(update={"attacks": attacks})
    assert claim(changed(measured, networks=[unfooled])).outcome == "undecided"


def test_the_section_has_one_table_two_charts_and_the_surest_pictures_that_only_the_page_shows(written):
    html, markdown = ((written / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert html.count(section.TITLE) >= 2  # contents and heading
    shown = html.split('<section id="robustness">')[1].split("</section>")[0]
    assert shown.count("<table") == 1
    assert shown.count("data-figure=") == 2
    assert shown.count("data:image/png") == 2 * section.SHOWN * 3
    surest = fake_results.class_names(12)[9]
    assert f"alexnet: {surest} (59\u00a0% sure), after the change &lt;b&gt;bow | tie&lt;/b&gt;" in shown
    assert section.TITLE in markdown
    assert "data:image" not in markdown
    assert {"one_pixel.png", "corruptions.png"} <= {path.name for path in (written / "figures").iterdir()}


def test_without_measurement_the_report_says_so(full):
    document = compose(conclude(Evidence(full.comparison))).document
    assert "Robustness: not measured. Rerun with -S robustness=quick." in document.notes
    assert section.EXPERIMENT.id not in {part.id for part in document.sections}


def test_where_no_picture_could_be_attacked_that_is_said_once_and_where_several_pixels_were_changed_not_at_all(
    full, measured
):
    none = section.section(changed(measured, attacked=[], labels=[], corrupted=[]), full.comparison).blocks
    assert none.count(section.NO_PICTURE) == 1
    attacks = [attacks.model_copy(update={"pixels": 3}) for attacks in measured.networks[0].attacks]
    networks = [network.model_copy(update={"attacks": attacks}) for network in measured.networks]
    three = section.section(changed(measured, pixels=[3], networks=networks, corrupted=[]), full.comparison).blocks
    assert [type(block) for block in three] == [Table]


def test_attacks_or_corruptions_alone_have_the_verdict_and_the_chart_of_theirs(full, measured):
    attacked = section.section(changed(measured, corrupted=[]), full.comparison).blocks
    corrupted = section.section(changed(measured, attacked=[], pictures=0), full.comparison).blocks
    assert "orruptions" not in attacked[0]
    assert corrupted[0].startswith("Corruptions leave ")
    assert [block.name for block in attacked if isinstance(block, Chart)] == ["one_pixel"]
    assert [block.name for block in corrupted if isinstance(block, Chart)] == ["corruptions"]
