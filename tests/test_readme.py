import json
from pathlib import Path

import fake_results
import pytest

from frugalnet.errors import UserError
from frugalnet.report import claims
from tools import readme

ROOT = Path(__file__).parents[1]
FIGURES = json.loads((ROOT / "docs/results/modern/comparison.json").read_text(encoding="utf-8"))
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_says_what_the_committed_figures_say():
    assert readme.fill(TEXT, readme.tables(FIGURES)) == TEXT, "run `make readme`"


def test_another_figure_makes_another_readme():
    first, *others = FIGURES["networks"]
    changed = first | {"top1": {"mean": 0.999, "deviation": None, "n": 1}}
    assert readme.fill(TEXT, readme.tables(FIGURES | {"networks": [changed, *others]})) != TEXT
    judged = [claim | {"outcome": "undecided"} for claim in FIGURES["claims"]]
    assert readme.fill(TEXT, readme.tables(FIGURES | {"claims": judged})) != TEXT


def test_a_readme_without_its_marks_is_refused():
    with pytest.raises(UserError, match="expected a line <!-- results --> and after it a line <!-- /results -->"):
        readme.fill("<!-- results -->", readme.tables(FIGURES))


def test_the_readme_has_five_claims_and_two_lines_of_facts_and_is_short():
    found = readme.tables(FIGURES)
    assert len(found["claims"].splitlines()) == 2 + 5
    assert len(found["results"].splitlines()) == 2 + len(FIGURES["networks"]) + 1 + 2
    assert len(TEXT.splitlines()) <= 130


def test_the_stored_claims_that_depend_on_the_recipe_are_not_tested():
    """The stored results were trained for 30 epochs with the recipe `modern`."""
    outcomes = {claim["key"]: claim["outcome"] for claim in FIGURES["claims"]}
    judged = [key for section in claims.SAYS.values() for key in section]
    assert list(outcomes) == judged
    assert {key for key, outcome in outcomes.items() if outcome != "not tested"} == {
        key for key in judged if not claims.JUDGES[key].depends_on_training
    }


def figures(root: Path, name: str, **how) -> str:
    path = root / f"{name}.json"
    path.write_text(json.dumps(fake_results.found(root / name, **how).summary()))
    return str(path)


def test_what_compare_writes_fills_the_readme_and_sample_data_do_not(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text(
        "a\n<!-- results -->\nold\n<!-- /results -->\nb\n<!-- claims -->\n<!-- /claims -->\n"
    )
    real = figures(tmp_path, "real", measured=False, num_classes=200)
    sample, subset = figures(tmp_path, "sample", is_sample=True), figures(tmp_path, "subset")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        readme.main(real)
        text = Path("README.md").read_text().replace("\u00a0", " ")
        assert text.startswith("a\n<!-- results -->\n| network | seeds |")
        assert "| `alexnet` | 2 | 8 | 46.2 ± 0.2 % (" in text
        assert text.count("not measured |") == 2 * 3 + 2  # latencies and steps; a claim of speed, and its outcome
        assert "\nData: tiny-imagenet, 200 classes: " in text
        assert "| Shortcuts raise validation accuracy slightly | residual higher by 1." in text
        assert "\nold\n" not in text
    with pytest.raises(UserError, match="holds results on sample data"):
        readme.main(sample)
    with pytest.raises(UserError, match="results on 12 classes and the validation split; the README's are on 200"):
        readme.main(subset)
    (tmp_path / "half.json").write_text('{"is_sample":')
    with pytest.raises(UserError, match=r"half.json cannot be read \(Expecting value"):
        readme.main("half.json")
    with pytest.raises(UserError, match=r"nothing.json is missing: run `dvc repro` first"):
        readme.main("nothing.json")
    assert Path("README.md").read_text().replace("\u00a0", " ") == text
