"""What `make results` commits."""

import fake_results
import pytest

from frugalnet.errors import UserError
from frugalnet.report import comparison
from frugalnet.report import results as stored
from tools import results


def compared(root):
    return comparison.compare(stored.load(root), "d" * 64, "validation split")


def test_the_published_report_is_small_and_holds_no_photograph(tmp_path):
    root = fake_results.make(tmp_path / "results", num_classes=200, n=2000, epochs=30)
    fake_results.export(root, models=("alexnet",))
    folder = results.publish(root, compared(root), tmp_path / "docs")
    assert "On a device" in (folder / "report.md").read_text()
    for path in ("export/alexnet-0/export.json", "export_timing/alexnet-0/timing.json"):
        assert (folder / path).read_bytes() == (root / path).read_bytes()
    assert folder == tmp_path / "docs/modern"
    report = folder / "report.html"
    assert report.stat().st_size <= 3_000_000
    assert "data:image" not in report.read_text()
    assert not list(folder.rglob("*best_and_worst*"))
    for name in ("alexnet-0", "residual-1"):
        assert {path.name for path in (folder / name).iterdir()} == set(sum(results.KEPT.values(), ()))
    assert (folder / "alexnet-0/run.json").read_bytes() == (root / "train/alexnet-0/run.json").read_bytes()


def test_sample_data_and_mixed_recipes_are_refused_and_what_is_there_is_kept(tmp_path):
    sample = fake_results.make(tmp_path / "sample", is_sample=True)
    with pytest.raises(UserError, match="holds results on sample data"):
        results.publish(sample, compared(sample), tmp_path / "docs")
    both = fake_results.make(tmp_path / "both", models=("alexnet",))
    paper = fake_results.make(tmp_path / "paper", models=("residual",), recipe={"recipe": "paper"})
    rows = [*compared(both).rows, *compared(paper).rows]
    mixed = comparison.Comparison(rows, [], [], [])
    with pytest.raises(UserError, match="networks of the recipes modern, paper: evaluate those of one recipe only"):
        results.publish(both, mixed, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()
