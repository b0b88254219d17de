import base64
import csv
import gzip
import html
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import fake_results
import pytest
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from frugalnet.comparison.compare import Comparison, Evidence, compare
from frugalnet.comparison.records import read_records
from frugalnet.document.wording import markdown
from frugalnet.metrics import classes
from frugalnet.metrics.statistics import Interval
from frugalnet.paper.section import SAMPLE_CLAIMS, class_ranks
from frugalnet.study import accuracy, cost, summary, tables, training
from frugalnet.study.classes import confused_pairs, extremes
from frugalnet.study.experiments import EXPERIMENTS
from frugalnet.study.findings import Findings, conclude
from frugalnet.study.report import SAMPLE_BANNER, compose, write_report

MODELS = ("alexnet", "depthwise", "residual")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def texts(written) -> dict[str, str]:
    """The report's two versions, without plotly's own code."""
    return {name: without_plotly((written / name).read_text()) for name in ("report.html", "report.md")}


def concluded(comparison: Comparison) -> Findings:
    """The findings from a comparison alone, without experiments."""
    return conclude(Evidence(comparison))


def without_plotly(text: str) -> str:
    return re.sub(r'(id="plotly">)[^<]*', r"\1", text)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> tuple[Findings, dict[str, str]]:
    """One network with one seed and one epoch, nothing measured, not a sample, without images."""
    root = tmp_path_factory.mktemp("one")
    found = concluded(fake_results.comparison(root, models=("alexnet",), seeds=(0,), epochs=1, n=40, measured=False))
    write_report(compose(found), root / "out")
    written = {path.relative_to(root / "out").as_posix(): path for path in (root / "out").rglob("*.*")}
    return found, {
        name: without_plotly(path.read_text()) if path.suffix != ".png" else "" for name, path in written.items()
    }


def test_everything_is_written(written):
    found = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert found == {
        "report.html",
        "report.md",
        "comparison.json",
        "efficiency.json",
        "table.csv",
        "table.txt",
        "accuracy.csv",
        "curves.csv",
        "confusion.csv",
        "figures/one_pixel.png",
        "figures/corruptions.png",
        *(f"figures/adapt_{scenario}.png" for scenario in ("seen", "unseen")),
        *(f"figures/accuracy_{k}.png" for k in ("parameters_trainable", "macs", "latency_ms", "train_step_ms")),
        *(f"figures/curves_{name}.png" for name in (*MODELS, "together")),
        "figures/seeds.png",
        *(f"figures/confusion_{model}.png" for model in MODELS),
        *(f"figures/{m}-{s}_{kind}.png" for m in MODELS for s in (0, 1) for kind in ("confusion", "best_and_worst")),
    }


def test_the_html_is_one_file_that_loads_nothing(written, texts):
    ours = texts["report.html"]
    packed = re.search(r'id="plotly">([^<]*)', (written / "report.html").read_text())
    assert packed
    assert gzip.decompress(base64.b64decode(packed[1])).decode() == get_plotlyjs()
    for address in re.findall(r"(?:src|href)=[\"']?([^\"' >]+)", ours):
        assert address.startswith(("data:", "#")), address
    assert "http" not in ours
    assert "@import" not in ours


def test_photographs_are_explained_where_there_are_some(texts):
    for text in texts.values():
        assert "The images are the first of their class" in text


def test_the_sections_are_in_order(texts):
    titles = ["table", "cost", "curves", "classes", "confusion", "layers", "claims", "robustness", "adapt"]
    assert re.findall(r'<section id="(\w+)"', texts["report.html"]) == ["recommendation", *titles, "made"]
    assert re.findall(r'<a href="#(\w+)"', texts["report.html"]) == [*titles, "made"]
    headings = re.findall(r"^## (.*)$", texts["report.md"], re.MULTILINE)
    assert [html.escape(h) for h in headings] == re.findall(r"<h2>(.*)</h2>", texts["report.html"])


@pytest.mark.parametrize("file", ["report.html", "report.md"])
def test_sample_data_are_announced_at_the_top_and_real_data_are_not(texts, one, file):
    assert SAMPLE_BANNER in texts[file][:12_000]
    assert SAMPLE_BANNER not in one[1][file]


@pytest.mark.parametrize("file", ["report.html", "report.md"])
def test_both_versions_show_every_cell_of_every_table(sample_findings, texts, file):
    comparison = sample_findings.comparison
    found = comparison.rows
    groups = (tables.SUMMARY, tables.ACCURACY, tables.COST, tables.TRAINING)
    all_tables = [tables.networks(found, "", columns) for columns in groups]
    all_tables += [accuracy.differences(comparison), training.training_cost(found), extremes(found)]
    all_tables += [class_ranks(comparison)]
    all_tables += [table for row in found for table in (confused_pairs(row), cost.layers(row))]
    text = html.unescape(texts[file]) if file == "report.html" else texts[file]
    shown = str if file == "report.html" else markdown
    for table in all_tables:
        for cell in (cell for row in table.rows for cell in row):
            for part in (cell.text, *cell.below):
                assert shown(part) in text
        assert shown(table.note) in text
    for sentence in (*sample_findings.recommendation, sample_findings.scope, *sample_findings.facts.values()):
        assert shown(sentence) in text


@pytest.mark.parametrize("file", ["report.html", "report.md"])
def test_claims_are_a_table_on_real_data_and_a_sentence_on_the_sample(sample_findings, texts, one, file):
    found, written = one
    shown = str if file == "report.html" else markdown
    real, sample = html.unescape(written[file]), html.unescape(texts[file])
    assert all(shown(claim.says) in real for claim in found.claims)
    assert not any(shown(claim.says) in sample for claim in sample_findings.claims)
    assert shown(SAMPLE_CLAIMS) in sample


def test_every_table_of_the_markdown_version_is_whole(written, texts):
    lines = texts["report.md"].split("\n")
    found = 0
    for before, line, after in zip(lines, lines[1:], [*lines[2:], ""], strict=False):
        if re.fullmatch(r"\|(-+:?\||---\|)+", line):
            found += 1
            columns = line.count("|")
            assert len(re.findall(r"(?<!\\)\|", before)) == columns
            assert len(re.findall(r"(?<!\\)\|", after)) == columns
    assert found == 2 + 1 + 1 + 2 + 1 + 1 + 3 + 3 + 1 + 2 + 3
    pictures = re.findall(r'src="([^"]+)"', texts["report.md"])
    assert len(pictures) == 4 + 5 + 3 + 3 + 2 + 2
    assert all((written / picture).is_file() for picture in pictures)


def test_the_page_shows_examples_of_the_easiest_and_hardest_classes(sample_findings, texts):
    expected = 0
    for row in sample_findings.comparison.rows:
        record = row.records[0]
        for chosen in classes.best_and_worst([one.accuracy for one in row.classes]):
            both = (classes.examples(record.predicted, record.labels, c) for c in chosen)
            expected += sum(len(right) + len(wrong) for right, wrong in both)
    assert texts["report.html"].count('<img src="data:image/jpeg;base64,') == expected > 100


def test_class_names_are_data_not_markup(texts):
    page, text = texts["report.html"], texts["report.md"]
    assert "&lt;b&gt;bow | tie&lt;/b&gt;" in page
    assert "<b>bow |" not in page
    assert "&lt;b&gt;bow \\| tie&lt;/b&gt;" in text
    assert "<b>" not in text
    assert "price of \\$\\\\frac\\$ \\| salt" in text
    assert "$\\frac" not in text


def test_a_class_name_cannot_end_the_script_it_is_in(tmp_path, sample_findings):
    row = sample_findings.comparison.rows[0]
    names = ["</script><script>alert(1)</script>", *row.records[0].class_names[1:]]
    renamed = replace(row, records=[replace(row.records[0], class_names=names)])
    found = replace(sample_findings.comparison, rows=[renamed], differences=[])
    write_report(compose(concluded(found)), tmp_path / "out")
    assert "<script>alert" not in (tmp_path / "out" / "report.html").read_text()


def test_figures_are_json_without_an_end_of_script():
    text = to_json_plotly({"text": "</script>"})
    assert "<" not in text
    assert json.loads(text) == {"text": "</script>"}


def test_the_bytes_are_the_same_every_time(tmp_path):
    found = fake_results.found(tmp_path, fake_results.images(), models=("alexnet",), seeds=(0,))
    for name in ("first", "second"):
        write_report(compose(found), tmp_path / name)
    written = [path for path in (tmp_path / "first").rglob("*.*") if path.is_file()]
    assert len(written) > 15
    for path in written:
        second = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert path.read_bytes() == second.read_bytes(), path.name


def test_what_was_not_measured_is_reported_as_such(one):
    _, written = one
    assert "Top-1 against latency at batch 1: not measured." in written["report.md"]
    assert '<div class="empty missing">not measured</div>' in written["report.html"]
    assert "figures/accuracy_latency_ms.png" not in written
    (row,) = csv.DictReader(written["table.csv"].splitlines())
    assert row["latency_ms"] == ""
    assert json.loads(written["efficiency.json"])["alexnet-0"].keys() == {
        "epoch_seconds",
        "epoch_cpu_seconds",
        "train_seconds",
    }


def test_an_experiment_that_was_not_measured_has_no_section_but_a_line_that_says_how_to_measure_it(one):
    _, written = one
    for experiment in EXPERIMENTS:
        assert f"## {experiment.title}" not in written["report.md"]
        line = f"{experiment.title}: not measured. Rerun with -S {experiment.choice}."
        assert f"\n- {markdown(line)}\n" in written["report.md"] + "\n"
        assert line in html.unescape(written["report.html"])
        assert experiment.id not in json.loads(written["comparison.json"])


def test_one_network_of_one_seed_and_one_epoch_without_images_is_enough(one):
    found, written = one
    (only,) = found.recommendation
    assert only.startswith("alexnet reaches 45.0\u00a0% top-1 (95\u00a0% interval ")
    assert only.endswith(") with 28 M MACs per image. No other network is evaluated.")
    assert markdown(only) in written["report.md"]
    assert found.scope.startswith("1 network on tiny-imagenet: 12 classes, 40 images of the validation split. ")
    assert found.scope.endswith(" Trained for 1 epoch of recipe modern, with 1 seed.")
    assert "Final top-1 of each seed" not in written["report.html"]  # an empty chart
    assert "figures/alexnet-0_confusion.png" in written
    assert not [name for name in written if "best_and_worst" in name]
    assert "Differences of top-1" not in written["report.md"]
    assert "The images are the first of their class" not in written["report.md"]


def test_measured_costs_come_with_the_machine_and_energy_is_never_invented(texts):
    text = texts["report.md"]
    assert "cpu A processor; threads 2" in text
    assert "480 MB" in text
    assert "| 33.3 % |" in text.replace("\u00a0", " ")  # of conv1's time
    assert "Not measured on this machine: Energy per image, Energy per training image." in text
    assert "Not measured on this machine: Energy per epoch." in text
    assert "(6.87 to 8.86 ms, n\u00a0100)" in text


def test_efficiency_json_holds_one_number_per_cost_of_each_network(written, sample_findings):
    found = json.loads((written / "efficiency.json").read_text())
    assert list(found) == [record.name for record in sample_findings.comparison.records]
    alexnet = sample_findings.comparison.first
    assert found["alexnet-0"]["latency_ms"] == alexnet.cost["latency_ms"]["median"]
    assert found["alexnet-0"]["train_seconds"] == sum(alexnet.timing["epoch_seconds"])
    assert "energy_joules_per_image" not in found["alexnet-0"]


def test_comparison_json_holds_the_findings(written, sample_findings):
    found = json.loads((written / "comparison.json").read_text())
    assert found["recommendation"] == sample_findings.recommendation
    assert [claim["key"] for claim in found["claims"]] == [claim.key for claim in sample_findings.claims]
    assert len({claim["key"] for claim in found["claims"]}) == 21
    assert [one["top1"]["mean"] for one in found["networks"]] == [
        row.top1.mean for row in sample_findings.comparison.rows
    ]
    assert found["training_cost"].keys() == set(MODELS)


def with_interval(sample_findings: Findings, low: float, high: float) -> Findings:
    interval = Interval((low + high) / 2, low, high)
    changed = [replace(one, interval=interval) for one in sample_findings.comparison.differences]
    return concluded(replace(sample_findings.comparison, differences=changed))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.03, "alexnet is better than depthwise: 2.0 points (95 % interval 1.0 to 3.0)"),
        (-0.03, -0.01, "alexnet is worse than depthwise: 2.0 points (95 % interval 1.0 to 3.0)"),
        (
            -0.03,
            0.01,
            "alexnet and depthwise are not significantly different: 1.0 points (95 % interval −1.0 to 3.0) less",
        ),
    ],
)
def test_mlflows_summary_says_which_of_two_networks_is_ahead(sample_findings, low, high, said):
    changed = with_interval(sample_findings, low, high).comparison
    changed = replace(
        changed, differences=[replace(one, first="alexnet", second="depthwise") for one in changed.differences]
    )
    lines = summary.of_all(changed).replace("\u00a0", " ").splitlines()
    assert f"- {said}{' for alexnet' if said.endswith('less') else ''}" in lines
    assert lines[-1] in summary.of_one(changed, changed.row("depthwise")).replace("\u00a0", " ")


def test_the_recommendation_names_the_frugal_and_the_accurate_network(sample_findings):
    first, second, third = with_interval(sample_findings, 0.01, 0.03).recommendation
    assert first == (
        "If computation matters, use residual: it keeps 91\u00a0% of alexnet’s accuracy with 15\u00a0% of its MACs "
        "(4.2 M instead of 28 M) and takes 2.37 ms instead of 7.38 ms per image."
    )
    assert second.startswith("If only accuracy counts, use alexnet: 46.2\u00a0% top-1, mean of 2 seeds (95\u00a0% ")
    assert second.endswith("2.0 points (95\u00a0% interval 1.0 to 3.0) more than residual.")
    assert third == "Pareto-optimal in accuracy and MACs: alexnet and residual. Dominated: depthwise by residual."


def test_nothing_is_called_better_worse_or_dominated_if_every_interval_includes_zero(sample_findings):
    found = with_interval(sample_findings, -0.01, 0.03)
    cells = [cell.text for row in accuracy.differences(found.comparison).rows for cell in row]
    text = " ".join([*found.recommendation, *cells])
    assert not re.findall("better|worse|Dominated|only accuracy", text)
    assert "which is not significantly different from residual’s: 1.0 points" in found.recommendation[1]
    assert "depthwise is not significantly different from residual, which has as many MACs." in found.recommendation[2]


def test_one_network_that_is_best_and_cheapest_is_recommended_alone(sample_findings):
    compared = sample_findings.comparison
    rows = [row for row in compared.rows if row.model != "alexnet"]
    first, lead, _ = concluded(replace(compared, rows=rows)).recommendation
    assert first.startswith("Use residual: it has the highest accuracy, 42.")
    assert first.endswith(" with 4.2 M MACs per image.")
    assert lead.startswith("Its lead over the second, depthwise, is not significant: 1.")


def test_a_network_that_gets_nothing_right_can_be_compared(sample_findings):
    by_model = {row.model: row.records for row in sample_findings.comparison.rows}
    nothing = [replace(r, predicted=(r.labels + 1) % 12) for r in by_model["alexnet"]]
    nothing = [replace(r, metrics=r.metrics.model_copy(update={"top1": 0.0})) for r in nothing]
    found = compare([*nothing, *by_model["residual"]], "d" * 64, "validation split")
    assert found.rows[1].top1.mean == 0
    _, easiest, hardest = extremes(found.rows).rows[1]
    assert easiest.text == "none"
    assert hardest.text.startswith("dugong 0\u00a0%")


def test_accuracy_csv_holds_each_evaluation_and_no_time(written):
    found = rows(written / "accuracy.csv")
    assert [(row["model"], row["seed"]) for row in found][:2] == [("alexnet", "0"), ("alexnet", "1")]
    assert len(found) == 6
    assert not [key for key in found[0] if "second" in key or "latency" in key]


def test_curves_csv_holds_every_epoch(written, sample_findings):
    found = rows(written / "curves.csv")
    assert list(found[0]) == [
        "model", "seed", "epoch", "train_top1", "validation_top1", "train_loss", "validation_loss",
    ]  # fmt: skip
    assert len(found) == 6 * 8
    assert float(found[0]["train_top1"]) == sample_findings.comparison.first.history[0].train_top1


def test_confusion_csv_holds_every_prediction_of_the_best_network(written, sample_findings):
    first = sample_findings.comparison.first
    found = rows(written / "confusion.csv")
    assert len(found) == 600
    assert {row["model"] for row in found} == {first.name}
    assert sum(row["actual"] == row["predicted"] for row in found) == first.correct.sum()


@pytest.mark.slow
def test_seven_networks_of_three_seeds_are_reported_within_half_a_minute(tmp_path):
    root = fake_results.make(
        tmp_path, tuple(fake_results.NETWORKS), seeds=(0, 1, 2), num_classes=200, n=10_000, epochs=30
    )
    images = fake_results.images(10_000)
    start = time.perf_counter()
    found = compare(read_records(root), "d" * 64, "validation split", images)
    write_report(compose(concluded(found)), tmp_path / "out")
    assert time.perf_counter() - start < 30


def test_each_commit_is_named_once_with_all_files_that_differed_from_it(tmp_path):
    root = fake_results.make(tmp_path, models=("alexnet", "depthwise", "residual"), seeds=(0,))
    for name, commit, changed in (("alexnet-0", "b", ""), ("depthwise-0", "a", "x, y"), ("residual-0", "a", "y, z")):
        path = root / "train" / name / "timing.json"
        provenance = {"mlflow.source.git.commit": commit, "git_uncommitted_changes": changed}
        path.write_text(json.dumps(json.loads(path.read_text()) | provenance))
    records = read_records(root)
    run = records[0].run
    facts = concluded(compare(records, run.data_sha256, run.validated_on)).facts
    assert facts["commit"] == "a with uncommitted changes: x, y, z; b"
