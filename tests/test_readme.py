import json
from pathlib import Path

import fake_results
import pytest

from frugalnet.errors import UserError
from frugalnet.report import page
from tools import readme

ROOT = Path(__file__).parents[1]
FIGURES = json.loads((ROOT / "docs" / "results" / "comparison.json").read_text(encoding="utf-8"))
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_says_what_the_committed_figures_say():
    assert readme.fill(TEXT, readme.tables(FIGURES)) == TEXT, "run `make readme`"


def test_another_figure_makes_another_readme():
    first, *others = FIGURES["networks"]
    changed = first | {"top1": {"mean": 0.999, "deviation": None, "n": 1}}
    assert readme.fill(TEXT, readme.tables(FIGURES | {"networks": [changed, *others]})) != TEXT
    judged = FIGURES["claims"][0] | {"outcome": "undecided"}
    assert readme.fill(TEXT, readme.tables(FIGURES | {"claims": [judged]})) != TEXT


def test_a_readme_without_its_marks_is_refused():
    with pytest.raises(UserError, match="a line <!-- results --> and one <!-- /results --> after it"):
        readme.fill("<!-- results -->", readme.tables(FIGURES))


def write(root: Path, **how) -> str:
    page.write(fake_results.compared(root, **how), root / "compare")
    return str(root / "compare" / "comparison.json")


def test_what_compare_writes_becomes_the_tables_and_sample_data_do_not(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text(
        "a\n<!-- results -->\nold\n<!-- /results -->\nb\n<!-- claims -->\n<!-- /claims -->\n"
    )
    real = write(tmp_path / "real", measured=False, num_classes=200)
    sample, subset = write(tmp_path / "sample", is_sample=True), write(tmp_path / "subset")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        readme.main(real)
        text = Path("README.md").read_text().replace("\u00a0", " ")
        assert text.startswith("a\n<!-- results -->\n| network | seeds |")
        assert "| `alexnet` | 2 | 8 | 46.2 ± 0.2 % (" in text
        assert text.count("not measured |") > 3
        assert "- Of the 600 images of the validation split, alexnet gets the largest share right" in text
        assert "- By their means, " in text
        assert "\nold\n" not in text
    with pytest.raises(UserError, match="is of sample data"):
        readme.main(sample)
    with pytest.raises(UserError, match="is of 12 classes and the validation split; README has 200"):
        readme.main(subset)
    (tmp_path / "half.json").write_text('{"is_sample":')
    with pytest.raises(UserError, match=r"half.json cannot be read \(Expecting value"):
        readme.main("half.json")
    with pytest.raises(UserError, match=r"nothing.json is missing: run `dvc repro` first"):
        readme.main("nothing.json")
    assert Path("README.md").read_text().replace("\u00a0", " ") == text
