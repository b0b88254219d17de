import json
import shutil
from dataclasses import replace
from pathlib import Path

import fake_results
import pytest

from frugalnet.errors import UserError
from frugalnet.paper.claims import CLAIMS
from tools import publish, readme

ROOT = Path(__file__).parents[1]
FIGURES, *OTHERS = [readme.read_figures(path) for path in readme.published(ROOT)]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_says_what_the_committed_figures_say():
    assert readme.fill(TEXT, readme.tables(FIGURES, *OTHERS)) == TEXT, "run `make readme`"


def test_the_answer_states_the_committed_figures():
    answer = " ".join(TEXT[TEXT.index("**The answer:**") : TEXT.index("## Which network")].split())
    networks = {network.model: network for figures in (*OTHERS, FIGURES) for network in figures.networks}
    top1 = {model: f"{100 * network.top1.mean:.1f} %" for model, network in networks.items()}
    study = json.loads((ROOT / "docs/results/modern/comparison.json").read_text(encoding="utf-8"))
    equal = study["equal_cost"]["depthwise - alexnet"]
    (gain,) = [each for each in equal["at_equal_macs"] if each["pair"] == ["depthwise", "alexnet_x0_375"]]
    points, low, high = (f"{100 * gain['interval'][key]:.1f}" for key in ("estimate", "low", "high"))
    assert f"a depthwise network has {top1['depthwise']} top-1" in answer
    assert f"one {points} points less (95 % interval {low} to {high}; three seeds each)" in answer
    assert {networks[model].top1.n for model in gain["pair"]} == {3}
    (wide,) = [each for each in equal["at_equal_macs"] if each["pair"] == ["depthwise_x3", "alexnet"]]
    points, low, high = (f"{100 * wide['interval'][key]:.1f}" for key in ("estimate", "low", "high"))
    of_wide, of_alexnet = (f"{networks[model].macs / 1e6:.1f} M" for model in wide["pair"])
    lost = f"an AlexNet-like one of {of_alexnet} {points} points less ({low} to {high}; three seeds)"
    assert f"with {of_wide}, {top1['depthwise_x3']} (one seed), {lost}" in answer
    assert [networks[model].top1.n for model in wide["pair"]] == [1, 3]
    (needed,) = [each for each in equal["for_equal_top1"] if each["as"] == "alexnet"]
    assert f"For the {top1['alexnet']} of the AlexNet-like network" in answer
    assert needed["macs"] / networks["alexnet"].macs == pytest.approx(0.25, abs=0.03)  # "a quarter"
    macs = networks["depthwise"].macs / networks["alexnet"].macs
    kept = networks["depthwise"].top1.mean / networks["alexnet"].top1.mean
    cheaper = f"{100 * macs:.0f} % of the MACs of `alexnet` and, measured here, {100 * kept:.0f} % of its accuracy"
    assert cheaper in answer
    assert f"reach {top1['frugal']} with no more MACs, and {top1['frugal_wide']} with five times as many" in answer
    assert networks["frugal_wide"].macs / networks["depthwise"].macs == pytest.approx(5, abs=0.5)
    assert networks["frugal"].macs <= networks["depthwise"].macs


def test_another_figure_makes_another_readme():
    first, *others = FIGURES.networks
    better = first.model_copy(update={"top1": replace(first.top1, mean=0.999)})
    changed = FIGURES.model_copy(update={"networks": [better, *others]})
    assert readme.fill(TEXT, readme.tables(changed, *OTHERS)) != TEXT
    claims = [replace(claim, outcome="undecided") for claim in FIGURES.claims]
    judged = FIGURES.model_copy(update={"claims": claims})
    assert readme.fill(TEXT, readme.tables(judged, *OTHERS)) != TEXT


def test_networks_of_another_recipe_stand_in_the_same_table_and_charts():
    first, *_ = FIGURES.networks
    small = first.model_copy(update={"recipe": "other", "macs": 1000, "top1": replace(first.top1, mean=0.0)})
    other = FIGURES.model_copy(update={"networks": [small]})
    table = readme.tables(FIGURES, other)["results"].splitlines()
    assert table[-3].startswith(f"| `{first.model}` | other | ")  # the last of its group, by top-1
    chart = readme.chart(FIGURES, other)
    added = chart.points[-1]
    assert (added.name, added.y) == (first.model, 0)
    assert added.x == pytest.approx(1000)
    legend = {label.text: label.colour for label in chart.labels}
    assert {point.colour for point in chart.points[:-1]} == {legend["modern"]}
    assert added.colour == legend["other"] != legend["modern"]
    recipes = readme.tables(FIGURES, other)["results"].splitlines()[-1]
    assert "[other](docs/results/other/report.md#how-this-was-made)" in recipes


def test_of_recipes_beside_the_studys_a_network_has_the_one_that_serves_it_best():
    first, *_ = FIGURES.networks
    weak, strong = (
        FIGURES.model_copy(update={"networks": [first.model_copy(update={"recipe": recipe, "top1": top1})]})
        for recipe, top1 in (("weak", replace(first.top1, mean=0.1)), ("strong", replace(first.top1, mean=0.2)))
    )
    for others in ((weak, strong), (strong, weak)):
        shown = readme.tables(FIGURES, *others)["results"].partition("Data:")[0]
        assert f"| `{first.model}` | strong | " in shown
        assert "weak" not in shown


def test_a_readme_without_its_marks_is_refused():
    with pytest.raises(UserError, match="expected a line <!-- results --> and after it a line <!-- /results -->"):
        readme.fill("<!-- results -->", readme.tables(FIGURES))


def test_the_readme_has_five_claims_and_a_line_of_facts_and_is_short():
    found = readme.tables(FIGURES, *OTHERS)
    networks = readme._shown([FIGURES, *OTHERS])
    assert len(found["claims"].splitlines()) == 2 + 5
    assert len(found["results"].splitlines()) == 2 + 3 + len(networks) + 1 + 1  # in three groups
    assert len(TEXT.splitlines()) <= 150


def test_the_stored_claims_that_depend_on_the_recipe_are_tested_by_the_papers_only():
    paper = json.loads((ROOT / "docs/results/paper/comparison.json").read_text(encoding="utf-8"))
    by_paper = {claim["key"] for claim in paper["claims"] if claim["outcome"] not in ("not tested", "not measured")}
    outcomes = {claim.key: claim.outcome for claim in FIGURES.claims}
    assert [*outcomes] == [statement.key for statement in CLAIMS]
    of_accuracy = {statement.key for statement in CLAIMS if statement.section in ("4.1", "4.3")}
    tested = (outcomes.keys() - of_accuracy) | by_paper
    assert {key for key, outcome in outcomes.items() if outcome != "not tested"} == tested - {
        "epoch_seconds"
    }  # on a GPU


def figures(root: Path, name: str, **how) -> str:
    path = root / f"{name}.json"
    path.write_text(json.dumps(fake_results.found(root / name, **how).summary()))
    return str(path)


def test_what_compare_writes_fills_the_readme_and_sample_data_do_not(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text(
        "a\n<!-- results -->\nold\n<!-- /results -->\nb\n<!-- claims -->\n<!-- /claims -->\n"
        "<!-- devices -->\n<!-- /devices -->\n"
    )
    real = figures(tmp_path, "real", measured=False, num_classes=200)
    sample, subset = figures(tmp_path, "sample", is_sample=True), figures(tmp_path, "subset")
    summary = json.loads(Path(real).read_text())
    other = str(tmp_path / "other.json")
    Path(other).write_text(json.dumps(summary | {"facts": summary["facts"] | {"data hash": "c" * 64}}))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        publish.main(["readme", real])
        text = Path("README.md").read_text().replace("\u00a0", " ")
        assert text.startswith("a\n<!-- results -->\n| network | recipe |")
        assert "| `alexnet` | modern | 46.2 ± 0.2 % (" in text
        assert text.count("not measured |") == 3 + 2  # latencies; a claim of speed, and its outcome
        assert "\nData: tiny-imagenet, 200 classes: " in text
        assert "| Shortcuts raise validation accuracy slightly | residual higher by 1." in text
        assert "\nold\n" not in text
        assert Path("docs/results/accuracy_macs.png").stat().st_size > 5_000
    with pytest.raises(UserError, match="differ in “data hash”"):
        publish.main(["readme", real, other])
    with pytest.raises(UserError, match="differ in “cost measured on”"):
        publish.main(["readme", real, figures(tmp_path, "elsewhere", num_classes=200)])
    with pytest.raises(UserError, match=r"modern/comparison.json is missing or damaged .*: run `make results`"):
        publish.main(["readme"])
    Path("docs/results/modern").mkdir()
    shutil.copy(real, "docs/results/modern/comparison.json")
    publish.main(["readme"])
    with pytest.raises(UserError, match="results on 12 classes and the validation split; the README's are on 200"):
        publish.main(["readme", sample])
    with pytest.raises(UserError, match="results on 12 classes and the validation split; the README's are on 200"):
        publish.main(["readme", subset])
    (tmp_path / "half.json").write_text('{"is_sample":')
    with pytest.raises(UserError, match=r"half.json is missing or damaged \(1 validation error"):
        publish.main(["readme", "half.json"])
    with pytest.raises(UserError, match=r"nothing.json is missing or damaged .*: run `make results`"):
        publish.main(["readme", "nothing.json"])
    assert Path("README.md").read_text().replace("\u00a0", " ") == text
