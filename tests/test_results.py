"""What `make results` commits."""

import shutil

import fake_results
import pytest

from frugalnet.adaptation.result import write_network
from frugalnet.comparison.compare import Comparison, Evidence, compare
from frugalnet.comparison.records import read_records
from frugalnet.document.charts import colours
from frugalnet.document.wording import percent
from frugalnet.errors import UserError
from frugalnet.files import read_history, read_json, write_json
from frugalnet.paper import experiment
from frugalnet.robustness.result import write_result
from frugalnet.study.experiments import EXPERIMENTS
from tools import publish, records

SMALL = {"num_classes": 20, "n": 400}  # where the number of classes does not matter


def compared(root, data_sha256="d" * 64):
    """The networks in a folder of results, without experiments."""
    return Evidence(compare(read_records(root), data_sha256, "validation split"))


def gathered(root):
    """As `gather`, without the data."""
    comparison = compared(root).comparison
    return Evidence(comparison, tuple(result for each in EXPERIMENTS if (result := each.load(root, comparison))))


def first_run(root):
    return compared(root).comparison.first.run


def further(root):
    """What the stages robustness and adapt leave."""
    write_result(fake_results.robustness(["alexnet", "depthwise", "residual"]), root)
    for network in fake_results.adapted(["alexnet", "depthwise"]).networks:
        write_network(network, root, f"{network.model}-{network.scenario}")


def test_the_published_report_is_small_and_holds_no_photograph(tmp_path):
    root = fake_results.make(tmp_path / "results", num_classes=200, n=2000, epochs=30)
    fake_results.export(root, models=("alexnet",))
    further(root)
    timing = root / "train/alexnet-0/timing.json"  # of a network that `make train-all` placed
    write_json(timing, {**read_json(timing), "node": "a-host"})
    folder = records.publish_results(root, gathered(root), tmp_path / "docs")
    markdown = (folder / "report.md").read_text()
    for title in ("On a device", "Training on the device", "One changed pixel fools"):
        assert title in markdown
    for path in ("robustness/robustness.json", "adapt/depthwise-unseen/adapt.json"):
        assert (folder / path).read_bytes() == (root / path).read_bytes()
    for path in ("export/alexnet-0/export.json", "export_timing/alexnet-0/timing.json"):
        assert (folder / path).read_bytes() == (root / path).read_bytes()
    assert folder == tmp_path / "docs/modern"
    assert read_json(folder / "cost.json") == read_json(root / "cost.json")
    assert "data:image" not in markdown
    assert max(path.stat().st_size for path in folder.rglob("*")) <= 2 * 2**20
    assert not list(folder.rglob("*best_and_worst*"))
    for name in ("alexnet-0", "residual-1"):
        kept = {*sum(records.KEPT.values(), ()), records.PREDICTIONS}
        assert {path.name for path in (folder / name).iterdir()} == kept
    assert (folder / "alexnet-0/run.json").read_bytes() == (root / "train/alexnet-0/run.json").read_bytes()
    assert {**read_json(folder / "alexnet-0/timing.json"), "node": "a-host"} == read_json(timing)
    assert not [path for path in folder.rglob("*.*") if b"a-host" in path.read_bytes()]
    same = "residual-1/timing.json"
    assert (folder / same).read_bytes() == (root / "train" / same).read_bytes()


def test_the_papers_claims_are_judged_by_the_networks_of_the_papers_recipe(tmp_path):
    whole_split = {"num_classes": 200, "n": 2000}
    papers = {**whole_split, "epochs": 100, "recipe": {"recipe": "paper"}, "seeds": (0,)}
    paper = fake_results.make(tmp_path / "paper", models=("depthwise", "residual"), **papers)
    study = fake_results.make(tmp_path / "study", epochs=30, **whole_split)
    docs = tmp_path / "docs"

    def outcomes(root):
        folder = records.publish_results(root, compared(root), docs)
        return {claim["key"]: claim for claim in read_json(folder / "comparison.json")["claims"]}, folder

    alone, folder = outcomes(study)
    assert "experiment" not in (folder / "report.md").read_text()
    judged, _ = outcomes(paper)
    together, folder = outcomes(study)
    changed = {key for key in together if together[key] != alone[key]}
    assert changed == {"depthwise_training", "residual_training", "residual_validation"}
    for key in changed:
        assert alone[key]["outcome"] == "not tested"
        assert together[key]["outcome"] == judged[key]["outcome"] != "not tested"
        assert together[key]["measured"] == f"{judged[key]['measured']} after 100 epochs of recipe paper"
    markdown = (folder / "report.md").read_text()
    assert "## The paper’s experiment" in markdown
    assert "figures/experiment_depthwise-0.png" in markdown
    last = read_history(paper / "train/depthwise-0/history.csv")[-1]
    here, expected = (last["train_top1"], last["validation_top1"]), (percent(0.48, 0), percent(0.33, 0))
    cells = " | ".join(f"{percent(a)} | {b}" for a, b in zip(here, expected, strict=True))
    assert f"| depthwise-0 | {cells} |" in markdown
    last = read_history(paper / "train/residual-0/history.csv")[-1]
    assert f"| residual-0 | {percent(last['train_top1'])} | – | {percent(last['validation_top1'])} | – |" in markdown
    assert (folder / "figures/experiment_depthwise-0.png").stat().st_size > 5_000
    assert "experiment" not in (docs / "paper/report.md").read_text()
    assert sorted(read_json(docs / "paper/cost.json")) == ["depthwise", "residual"]
    assert not [*docs.rglob("*.html")]


@pytest.mark.parametrize(
    "papers", [{"epochs": 8}, {"data_sha256": "c" * 64}, {"recipe": {"recipe": "other"}}, {"models": ()}]
)
def test_networks_that_were_not_trained_as_the_paper_says_judge_nothing(tmp_path, papers):
    asked = {"models": ("depthwise",), "epochs": 100, "recipe": {"recipe": "paper"}, **papers}
    study = fake_results.make(tmp_path / "study", epochs=30, **SMALL)
    if asked["models"]:
        paper = fake_results.make(tmp_path / "paper", **SMALL, **asked)
        folder = records.publish_results(paper, compared(paper, asked.get("data_sha256", "d" * 64)), tmp_path / "docs")
        folder.rename(tmp_path / "docs/paper") if folder.name != "paper" else None
    else:  # weights only
        (tmp_path / "docs/paper/weights").mkdir(parents=True)
    assert experiment.read_experiment(tmp_path / "docs/paper", first_run(study)) is None


def test_the_ends_of_the_papers_curves_stand_beside_those_measured():
    history = [fake_results.of_epoch(train_top1=epoch / 25, validation_top1=epoch / 50) for epoch in range(1, 11)]
    networks = [experiment.PaperNetwork("depthwise-0", "depthwise", history)]
    (chart,) = experiment.section(experiment.PaperExperiment(networks, []), {"depthwise": "#123"}).blocks[1].charts
    found = [(line.text, line.dotted, line.colour, line.x[-1], line.y[-1]) for line in chart.lines]
    assert found == [
        ("training", True, "#123", 10, pytest.approx(40)),
        ("the paper’s training", True, "@ink", 10, 48),
        ("validation", False, "#123", 10, pytest.approx(20)),
        ("the paper’s validation", False, "@ink", 10, 33),
    ]


def test_every_seed_of_the_papers_recipe_has_its_chart_and_stored_weights_stay(tmp_path):
    papers = {"models": ("depthwise",), "epochs": 100, "recipe": {"recipe": "paper"}}
    paper = fake_results.make(tmp_path / "paper", **papers, **SMALL)
    study = fake_results.make(tmp_path / "study", epochs=30, **SMALL)
    for _ in range(2):
        folder = records.publish_results(paper, compared(paper), tmp_path / "docs")
        (folder / "weights").mkdir(exist_ok=True)
        (folder / "weights/depthwise-0.safetensors").touch()
    assert (folder / "weights/depthwise-0.safetensors").is_file()
    colour_of = colours(row.model for row in compared(study).comparison.rows)
    shown = experiment.section(experiment.read_experiment(folder, first_run(study)), colour_of).blocks[1].charts
    assert [chart.name for chart in shown] == ["experiment_depthwise-0", "experiment_depthwise-1"]
    assert {line.colour for chart in shown for line in chart.lines} == {colour_of["depthwise"], "@ink"}


def test_a_network_is_added_to_those_published_whose_weights_are_gone(tmp_path):
    root = fake_results.make(tmp_path / "results", epochs=30, **SMALL)
    docs = tmp_path / "docs"
    fake_results.export(root, models=("alexnet",))
    further(root)
    published = records.publish_results(root, gathered(root), docs)
    before = {path.relative_to(published): path.read_bytes() for path in published.rglob("*") if path.is_file()}

    other = tmp_path / "other"  # without alexnet, and with a depthwise of its own
    shutil.copytree(root, other, ignore=lambda folder, names: [n for n in names if n.startswith(("alexnet", "robust"))])
    own = other / "evaluate/depthwise-0/metrics.json"
    write_json(own, {"top1": 0.5})
    assert records.add_published(published, other) == ["alexnet-0", "alexnet-1"]
    assert read_json(own) == {"top1": 0.5}
    assert not (other / "robustness").exists()  # of networks that `other` has
    for path in root.rglob("alexnet-0/*.*"):
        same = path.relative_to(root)
        assert path.name == records.PREDICTIONS or (other / same).read_bytes() == path.read_bytes()

    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(root / "cost.json", empty)
    records.add_published(published, empty)
    again = records.publish_results(empty, gathered(empty), docs)
    after = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert sorted(after) == sorted(before)
    assert [path for path in after if after[path] != before[path]] == []
    with pytest.raises(UserError, match=r"docs/nothing holds no published record \(predictions.npz\); name a recipe"):
        records.add_published(docs / "nothing", empty)


def test_sample_data_and_mixed_recipes_are_refused_and_what_is_there_is_kept(tmp_path):
    sample = fake_results.make(tmp_path / "sample", is_sample=True)
    with pytest.raises(UserError, match="holds results on sample data"):
        records.publish_results(sample, compared(sample), tmp_path / "docs")
    both = fake_results.make(tmp_path / "both", models=("alexnet",))
    paper = fake_results.make(tmp_path / "paper", models=("residual",), recipe={"recipe": "paper"})
    rows = [*compared(both).comparison.rows, *compared(paper).comparison.rows]
    mixed = Evidence(Comparison(rows, [], [], []))
    with pytest.raises(UserError, match="networks of the recipes modern, paper: evaluate those of one recipe only"):
        records.publish_results(both, mixed, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_the_help_names_the_commands_in_their_order(capsys):
    with pytest.raises(SystemExit):
        publish.main(["--help"])
    page = capsys.readouterr().out
    places = [page.index(f"\n    {command} ") for command in ("results", "weights", "cards", "readme", "verify")]
    assert places == sorted(places)
    assert len(page.splitlines()) <= 50
