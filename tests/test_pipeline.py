"""The real pipeline, small: real DVC and real MLflow, on the sample, in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from dvc.utils.hydra import compose_and_dump
from ruamel.yaml import YAML
from torture import STAGES, Plan, Whole, clone, hashes, play

import frugalnet
from frugalnet import mlflow_store, models, reproduce
from frugalnet.data import arrays
from frugalnet.errors import UserError
from frugalnet.files import sha256
from frugalnet.mlflow_store import connect
from frugalnet.training.batches import Normaliser, PerView
from frugalnet.training.inference import infer, load_weights

ROOT = Path(__file__).parents[1]
SMALL = [
    *("data=sample", "train=demo", "train.epochs=2", "model=depthwise", "augment.views=2"),
    *("robustness=demo", "robustness.pictures=4", "robustness.corrupted=5", "adapt=demo"),
    *("measure.rounds=2", "measure.batch_size=32", "compute.threads=1", "export.calibration_images=100"),
]


def run(project: Path, *command: str, code: int = 0) -> str:
    """Run a command in a project with the test's own Python first in PATH; all that it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's Python leaves __pycache__ beside the sources
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["COLUMNS"] = "200"  # a table in a narrow terminal hides its last columns
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def experiment(project: Path, *overrides: str, options: tuple[str, ...] = (), code: int = 0) -> str:
    sets = [word for override in (*SMALL, *overrides) for word in ("-S", override)]
    return run(project, "dvc", "exp", "run", *options, *sets, code=code)


def training_runs(project: Path) -> tuple:
    client, experiment_id = connect(project)
    return client, client.search_runs([experiment_id], "tags.fingerprint != ''")


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """A project whose whole pipeline has run in a temporary copy, as `make demo` runs it."""
    folder = clone(tmp_path_factory.mktemp("project"))
    experiment(folder, options=("--temp", "--name", "first"))
    return folder


@pytest.fixture(scope="module")
def project(copied) -> Path:
    """The same project, now with the results of the run: the test of `copied` alone has to come first."""
    run(copied, "dvc", "exp", "apply", "first")
    return copied


def test_a_run_in_a_temporary_copy_leaves_the_work_tree_alone_and_is_tracked_in_the_project(copied):
    assert run(copied, "git", "status", "--porcelain") == ""
    assert not [name for name in ("data", "models", "results") if list((copied / name).glob("*"))]
    assert not list((copied / ".checkpoints").rglob("*.ckpt"))
    assert [tracked.data.tags["dvc_experiment"] for tracked in training_runs(copied)[1]] == ["first"]


def test_every_stage_leaves_its_results(project):
    names = {path.relative_to(project).as_posix() for path in (project / "results").rglob("*") if path.is_file()}
    assert {
        "results/train/depthwise-0/history.csv",
        "results/evaluate/depthwise-0/metrics.json",
        "results/evaluate/depthwise-0/per_class.csv",
        "results/evaluate/depthwise-0/predictions.npz",
        "results/export/depthwise-0/export.json",
        "results/export/depthwise-0/model.onnx",
        "results/export/depthwise-0/model.int8.onnx",
        "results/export_timing/depthwise-0/timing.json",
        "results/adapt/depthwise-seen/adapt.json",
        "results/adapt_timing/depthwise-seen/timing.json",
        "results/robustness/robustness.json",
        "results/robustness/timing.json",
        "results/compare/report.html",
        "results/compare/report.md",
    } <= names
    metrics = json.loads((project / "results/evaluate/depthwise-0/metrics.json").read_text())
    assert metrics["n"] == 200
    assert 0.1 < metrics["top1"] <= 1
    for report in ("report.html", "report.md"):
        assert "sample data" in (project / "results/compare" / report).read_text().lower()


# The weights' SHA-256 of the run that `project` makes, by torch's version, the CPU and its instructions: a change of
# what decides the weights shows here. After an intended change, put in the hash that the failure or the skip names.
SAMPLE_WEIGHTS = {
    "2.14.1, AMD EPYC, AVX2": "b5d7bbe70bfe897befefc447a87872da6960ff8ba553011ab9183b0af5bea4ee",
    "2.14.1, AMD EPYC, AVX512": "fa672888829609c1c674d2baec3fd281663288a4a93b996dc703b703ee9f6cc4",
    "2.14.1, Intel(R) Xeon(R) Processor, AVX512": "2c1b830d8105d68fece38a976b89845d5a753d5e8b1b8a21f10d36be018281db",
}


def test_training_from_nothing_gives_the_recorded_bits(project):
    recorded = json.loads((project / "results/train/depthwise-0/run.json").read_text())
    environment, found = recorded["environment"], recorded["weights_sha256"]
    kind = ", ".join((environment["torch"].split("+")[0], environment["cpu"], environment["cpu_capability"]))
    if kind not in SAMPLE_WEIGHTS:
        pytest.skip(f"no bits are recorded for {kind}: {found} here")
    assert found == SAMPLE_WEIGHTS[kind]


def test_nothing_to_do_is_said(project):
    run(project, sys.executable, "-m", "compileall", "-q", "src/frugalnet/models/resnet18.py")
    assert list((project / "src/frugalnet/models/__pycache__").glob("resnet18*"))
    assert "up to date" in run(project, "dvc", "repro")


def test_one_mlflow_run_holds_parameters_curves_metrics_pictures_the_model_and_tags_that_lead_back(project):
    client, (tracked,) = training_runs(project)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["train.epochs"] == "2"
    assert [m.step for m in client.get_metric_history(tracked.info.run_id, "curves/validation_top1")] == [1, 2]
    metrics = json.loads((project / "results/evaluate/depthwise-0/metrics.json").read_text())
    assert tracked.data.metrics["final/top1"] == metrics["top1"]
    assert tracked.data.metrics["final/macs"] == metrics["macs"]
    assert tracked.data.metrics["efficiency/latency_ms"] > 0
    exported = json.loads((project / "results/export/depthwise-0/export.json").read_text())
    assert tracked.data.metrics["export/int8_top1"] == exported["accuracy"]["formats"]["int8"]["top1"]
    (version,) = client.search_model_versions("name = 'frugalnet-depthwise'")
    assert version.run_id == tracked.info.run_id
    assert tracked.data.metrics["efficiency/epoch_cpu_seconds"] > 0
    trained = json.loads((project / "results/train/depthwise-0/run.json").read_text())
    for tag in ("weights_sha256", "data_sha256", "fingerprint"):
        assert tracked.data.tags[tag] == trained[tag]
    assert tracked.data.tags["mlflow.source.git.commit"] == run(project, "git", "rev-parse", "HEAD").strip()
    assert tracked.data.tags["dvc_experiment"] == "first"
    assert tracked.data.tags["dvc_stage"].endswith("train@depthwise-0")
    artifacts = {a.path for a in client.list_artifacts(tracked.info.run_id, "depthwise-0")}
    assert {"depthwise-0/per_class.csv", "depthwise-0/history.csv"} <= artifacts
    note = tracked.data.tags["mlflow.note.content"]
    assert note.startswith("The network **depthwise**, trained for 2 epochs with the recipe demo on sample: 10 classes")
    assert f"top-1 {metrics['top1']:.1%}".replace("%", "\u00a0%") in note
    _, comparisons = connect(project, mlflow_store.COMPARISONS)
    (comparison,) = client.search_runs([comparisons])
    page = f"#/experiments/{comparisons}/runs/{comparison.info.run_id}/artifacts/compare/report.html"
    assert f"[report]({page}?" in note
    assert "compare/report.html" in {a.path for a in client.list_artifacts(comparison.info.run_id, "compare")}
    pictures = {"depthwise-0_best_and_worst.png", "depthwise-0_confusion.png"}
    assert {"contact_sheet.png", *pictures} <= {a.path for a in client.list_artifacts(tracked.info.run_id)}


def test_the_only_logged_model_is_the_registered_one_and_holds_the_only_copy_of_the_weights(project):
    client, (tracked,) = training_runs(project)
    (version,) = client.search_model_versions("name = 'frugalnet-depthwise'")
    (model,) = client.search_logged_models([tracked.info.experiment_id])
    assert version.source == f"models:/{model.model_id}"
    (stored,) = (project / "mlruns/artifacts").rglob("*.safetensors")
    assert sha256(stored) == sha256(project / "models/depthwise-0.safetensors")
    assert frugalnet.load(weights=stored.parent).stored.name == "depthwise-0"


def test_dvc_shows_metrics_experiments_and_plots(project):
    shown = run(project, "dvc", "metrics", "show", "--json")
    for figure in ("best", "top1", "MMACs", "ms", "depthwise"):
        assert f'"{figure}":' in shown
    sharing = (ROOT / "docs/sharing.md").read_text()
    (command,) = [line.split() for line in sharing.splitlines() if line.startswith("    dvc exp show")]
    table = run(project, *(word.strip("'") for word in command), "--no-pager")
    assert "first" in table
    assert "depthwise" in table
    assert max(map(len, table.splitlines())) <= 120
    header = next(line for line in table.splitlines() if "Experiment" in line)
    assert header.split() == ["Experiment", "best", "top1", "depthwise", "train.epochs"]
    run(project, "dvc", "plots", "show", "--out", "plots")
    page = (project / "plots" / "index.html").read_text()
    assert "results_compare_curves_csv" in page
    assert '"color": {"field": "model"' in page  # each network its own curve
    assert "results_compare_confusion_csv" in page
    assert '"model": "depthwise-0"' in page  # the confusion names its network


def stages_run(said: str) -> list[str]:
    return re.findall(r"^Running stage '(.*)'", said, re.MULTILINE)


def test_an_experiment_in_the_work_tree_that_changes_the_budget_reruns_the_report_alone(project):
    said = experiment(project, "budget.macs=1M")
    assert stages_run(said) == ["compare"]
    assert "Stage 'train@depthwise-0' didn't change, skipping" in said
    assert "\nNo network fits 1 M MACs. The closest is depthwise, " in (
        project / "results/compare/report.md"
    ).read_text(encoding="utf-8")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.slow  # several runs of DVC
def test_other_words_in_the_code_rerun_nothing_and_another_operator_trains_again(project, tmp_path):
    other = shutil.copytree(project, tmp_path / "other", symlinks=True)
    for name in ("training/trainer.py", "training/optim.py", "metrics/accuracy.py", "data/arrays.py", "errors.py"):
        path = other / "src/frugalnet" / name
        path.write_text(path.read_text(encoding="utf-8").replace('"""', '"""Otherwise put. ', 1) + "\n\n# a comment\n")
    edit(other / "pipeline/train.py", "\n\ndef main(", "\n\n# a comment\ndef main(")
    assert stages_run(run(other, "dvc", "repro")) == ["sources"]
    edit(other / "src/frugalnet/training/optim.py", "(step + 1) / (peak_step + 1)", "(step + 1) / (peak_step + 2)")
    said = run(other, "dvc", "repro", "train@depthwise-0")
    assert stages_run(said) == ["sources", "train@depthwise-0"]
    again = json.loads((other / "results/train/depthwise-0/run.json").read_text())
    first = json.loads((project / "results/train/depthwise-0/run.json").read_text())
    assert {key for key in again if again[key] != first[key]} == {"source_sha256", "fingerprint", "weights_sha256"}


@pytest.mark.slow  # several runs of DVC
def test_a_run_whose_results_are_committed_is_copied_and_tracked(project, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'empty.db'}")
    other = shutil.copytree(project, tmp_path / "other", symlinks=True)
    record = other / "docs/results/demo/depthwise-0"
    shutil.copytree(other / "results/train/depthwise-0", record)
    (record.parent / "weights").mkdir()
    shutil.copy(other / "models/depthwise-0.safetensors", record.parent / "weights")
    shutil.rmtree(other / ".dvc/cache/runs")
    train = ("dvc", "repro", "--force", "--single-item")
    said = run(other, *train, "train@depthwise-0")
    assert "depthwise-0 is copied from docs/results/demo/depthwise-0 (commit " in said
    assert "epoch 1/2" not in said
    assert hashes(other) == hashes(project)
    run(other, *train, "evaluate@depthwise-0")
    (tracked,) = training_runs(other)[1]
    timing = json.loads((record / "timing.json").read_text())
    assert tracked.data.tags["mlflow.source.git.commit"] == timing["mlflow.source.git.commit"]
    edit(other / "params.yaml", "records: same", "records: none")
    assert "epoch 1/2" in run(other, "dvc", "repro", "train@depthwise-0")


@pytest.mark.slow  # by default, the recorded bits above and the data stages' own tests stand for it
def test_a_second_project_from_nothing_has_the_same_hashes(project, tmp_path):
    second = clone(tmp_path)
    experiment(second)
    assert hashes(second) == hashes(project)
    assert len(hashes(project)) > 10


@pytest.mark.slow  # by default, test_kill.py evaluates a training that no server knows
def test_an_evaluation_writes_the_run_of_a_training_that_came_from_the_cache(project, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'empty.db'}")
    run(project, sys.executable, "-m", "pipeline.evaluate", "depthwise", "0")
    client, (tracked,) = training_runs(project)
    assert len(client.get_metric_history(tracked.info.run_id, "curves/validation_top1")) == 2
    metrics = json.loads((project / "results/evaluate/depthwise-0/metrics.json").read_text())
    assert tracked.data.metrics["final/top1"] == metrics["top1"]


def test_an_archive_that_is_not_the_one_expected_ends_the_pipeline_in_words(tmp_path):
    other = clone(tmp_path)
    (other / "archive.zip").write_bytes(b"not it")
    overrides = ["data=subset", f"data.url={other}/archive.zip", "data.size_bytes=6"]
    compose_and_dump(other / "params.yaml", str(ROOT / "conf"), None, "config", "", overrides)
    said = run(other, "dvc", "repro", "download", code=255)
    assert "90528d7ca1a48142e341f4ef8d21d0de" in said
    assert "Traceback" not in said


@pytest.mark.slow  # test_kill.py kills the training by default
@pytest.mark.parametrize(
    ("plans", "last"),
    [
        ([(stage, "all") for stage in STAGES], None),
        ([(stage, "stage") for stage in STAGES], None),
        ([("normalise", "dvc")], "train@depthwise-0"),
    ],
    ids=["all at once", "the stage alone", "dvc"],
)
def test_killed_within_a_stage_nothing_lives_on_and_dvc_repro_ends_with_the_same_hashes(project, tmp_path, plans, last):
    other = shutil.copytree(project, tmp_path / "other", symlinks=True)
    shutil.rmtree(other / "mlruns")
    run_stages = STAGES[: STAGES.index(last) + 1] if last else STAGES
    expected = Whole(hashes(project, run_stages), {})
    assert len(expected.hashes) >= (7 if last else 10)
    for stage, victim in plans:
        played = play(other, Plan(stage, victim, "SIGKILL", 1.0), expected, [last] if last else [])
        assert "failure" not in played
        assert played["struck"] or stage in ("download", "measure", "compare")  # these may be faster
    (tracked,) = training_runs(other)[1]
    assert tracked.info.status == "FINISHED"


def test_no_parameter_reaches_a_shell_and_a_broken_network_is_refused_before_any_work(project, tmp_path):
    other = clone(tmp_path)
    params = (project / "params.yaml").read_text()
    (other / "params.yaml").write_text(params.replace("seeds:\n- 0\n", "seeds:\n- 0; touch struck\n"))
    shutil.copytree(project / "data", other / "data")  # so that the stage itself is reached
    said = run(other, "dvc", "repro", "--force", "--single-item", "train@depthwise-0; touch struck", code=255)
    assert "usage: python -m pipeline.train MODEL SEED" in said  # what DVC_STAGE says is no number
    assert not (other / "struck").exists()
    shutil.rmtree(other / "data")
    (other / "src/frugalnet/models/broken.py").write_text("def build(num_classes): return 1 / 0\n")
    (other / "params.yaml").write_text(params.replace("- depthwise\n", "- broken\n"))
    said = run(other, "dvc", "repro", code=255)
    assert "check: model.names: src/frugalnet/models/broken.py: build(7) failed (Zero" in said
    assert "Traceback" not in said
    assert not [name for name in ("struck", "models", "results") if list((other / name).glob("*"))]
    assert [path.name for path in (other / "data").glob("[!.]*")] == ["sources"]
    assert not (other / "struck").exists()


def test_dvc_has_stages_for_every_width_of_the_quick_study(tmp_path):
    other = clone(tmp_path)
    choices = ["data=sample", "train=demo", "model=curve_small"]
    compose_and_dump(other / "params.yaml", str(ROOT / "conf"), None, "config", "", choices)
    stages = run(other, "dvc", "stage", "list", "--name-only").split()
    for stage in ("train", "evaluate", "export"):
        assert {f"{stage}@{name}-0" for name in ("alexnet_x0_25", "alexnet_x0_375", "depthwise_x0_5")} <= {*stages}


@pytest.mark.slow  # two minutes; by default, test_widths.py runs the same stages without DVC
def test_networks_of_several_widths_are_trained_and_compared_at_equal_cost(project, tmp_path):
    shape = ("model=curve_small", "robustness=none", "adapt=none")
    said = experiment(project, *shape, options=("--temp", "--name", "curve"))
    assert "train@alexnet_x0_375-0" in said
    assert "Stage 'train@depthwise-0' is cached" in said  # width 1 is the network that the project has trained
    revision = run(project, "git", "for-each-ref", "--format=%(objectname)", "refs/exps/*/*/curve").strip()
    run(project, "dvc", "get", "--quiet", ".", "results/compare", "--out", str(tmp_path / "report"), "--rev", revision)
    compared = json.loads((tmp_path / "report/comparison.json").read_text())["equal_cost"]
    ((pair, figures),) = compared.items()
    assert sorted(pair.split(" - ")) == ["alexnet", "depthwise"]
    assert [sorted(gain["pair"]) for gain in figures["at_equal_macs"] if gain["pair"]] == [
        ["alexnet_x0_375", "depthwise"]
    ]
    assert (tmp_path / "report/figures/equal_macs.png").is_file()
    runs = {run.data.params["model"]: run.data.tags["fingerprint"] for run in training_runs(project)[1]}
    names = YAML(typ="safe").load((ROOT / "conf/model/curve_small.yaml").read_text(encoding="utf-8"))["names"]
    assert len({runs[name] for name in names}) == len(names) == 4


@pytest.mark.slow
def test_a_queue_trains_the_grid(project):
    experiment(project, "model=alexnet,depthwise", "train.epochs=1,2", options=("--queue",))
    run(project, "dvc", "queue", "start")
    deadline = time.monotonic() + 1800
    while any(word in (status := run(project, "dvc", "queue", "status")) for word in ("Queued", "Running")):
        assert time.monotonic() < deadline, status
        time.sleep(5)
    assert status.count("Success") == 4, status
    trained = {(r.data.params["model"], r.data.params["train.epochs"]) for r in training_runs(project)[1]}
    assert {(model, epochs) for model in ("alexnet", "depthwise") for epochs in ("1", "2")} <= trained


@pytest.mark.slow
def test_a_network_learns_from_the_teacher_that_the_configuration_names_by_its_hash(project):
    weights = project / "models/depthwise-0.safetensors"
    teacher = ("train.distillation=0.5", "teacher.model=depthwise", f"teacher.weights={weights.relative_to(project)}")
    stages, shape = ("teach", "train@residual-0"), ("model=residual", *teacher)
    refused = experiment(project, *shape, "teacher.sha256=0123", options=stages, code=255)
    assert f"expected a file with SHA-256 0123, found {sha256(weights)}" in refused
    experiment(project, *shape, f"teacher.sha256={sha256(weights)}", options=stages)
    described = json.loads((project / "results/train/residual-0/run.json").read_text())["teacher"]
    assert described["model"] == "depthwise"
    logits = np.load(project / "data/teacher/logits_1.npy")
    labels = np.load(project / "data/arrays/train_labels.npy")
    assert (logits.argmax(1) == labels).mean() > 0.3  # what the teacher has learnt of the second view's images

    # Two teachers: the mean of their logits.
    other = project / "data/residual.safetensors"
    shutil.copy(project / "models/residual-0.safetensors", other)
    added = f"teacher.others=[{{model: residual, weights: data/residual.safetensors, sha256: '{sha256(other)}'}}]"
    experiment(project, *shape, f"teacher.sha256={sha256(weights)}", added, options=stages)
    described = json.loads((project / "results/train/residual-0/run.json").read_text())["teacher"]
    assert [each["model"] for each in described["others"]] == ["residual"]
    data = arrays.read_dataset(project / "data/arrays")
    view = PerView(project / "data/views").of_epoch(1, data.train.images)[:500]
    residual = load_weights(models.build("residual", len(data.class_ids)), other)
    own = infer(residual, view, Normaliser(data.mean, data.std, torch.device("cpu")))
    assert np.load(project / "data/teacher/logits_1.npy")[:500] == pytest.approx((logits[:500] + own) / 2, abs=0.02)

    # Trained again, too, and not resumed from the run's own last checkpoint, which waits for its evaluation.
    assert list(project.glob(".checkpoints/train/residual-0-*/*.ckpt"))
    said = run(project, sys.executable, "-m", "frugalnet.reproduce", "results/train/residual-0/run.json")
    assert "epoch 1/2: " in said
    assert "residual-0: trained again to the same weights" in said


def test_a_run_is_trained_again_from_its_record_to_the_same_bits(project, tmp_path, monkeypatch):
    recorded = json.loads((project / "results/train/depthwise-0/run.json").read_text())
    _, tracked = training_runs(project)
    weights = recorded["weights_sha256"]
    (run_id,) = [found.info.run_id for found in tracked if found.data.tags.get("weights_sha256") == weights]
    again = [sys.executable, "-m", "frugalnet.reproduce"]
    said = run(project, *again, run_id)
    assert f"{run_id}: trained at commit {run(project, 'git', 'rev-parse', 'HEAD').strip()}" in said
    assert f"epoch 1/{recorded['train']['epochs']}: " in said
    assert "trained again to the same weights" in said

    said = run(project, sys.executable, "-m", "pipeline.adapt", "depthwise", "sene", code=1)
    assert "adapt: scenario 'sene': expected one of seen (adapt.scenarios)" in said
    assert not (project / "results/adapt/depthwise-sene").exists()

    monkeypatch.chdir(project)
    with pytest.raises(UserError, match="run '0123'"):
        reproduce.main("0123")
    with pytest.raises(
        UserError,
        match=r"metrics\.json: not the record of a run \(model, seed, data, .* missing or wrong\); give a run.json",
    ):
        reproduce.main("results/evaluate/depthwise-0/metrics.json")
    with pytest.raises(
        UserError, match=r"nowhere\.json: there is no such file; give a run.json or the id of an MLflow"
    ):
        reproduce.main("nowhere.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UserError, match=r"list\.json: not the record of a run"):
        reproduce.main(str(tmp_path / "list.json"))
    other = recorded | {"source_sha256": "0" * 64, "views_sha256": "1" * 64}
    (tmp_path / "inputs.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"training code: SHA-256 0+ in the run.*data/views: SHA-256 1+ in the run"):
        reproduce.main(str(tmp_path / "inputs.json"))


@pytest.mark.slow
def test_what_is_trained_again_to_other_weights_is_said_with_what_may_be_the_cause(project, tmp_path):
    recorded = json.loads((project / "results/train/depthwise-0/run.json").read_text())
    other = recorded | {"environment": recorded["environment"] | {"torch": "1.0"}, "weights_sha256": "2" * 64}
    (tmp_path / "environment.json").write_text(json.dumps(other))
    again = [sys.executable, "-m", "frugalnet.reproduce", str(tmp_path / "environment.json")]
    for _ in range(2):
        differs = run(project, *again, code=1)
        assert f"epoch 1/{recorded['train']['epochs']}: " in differs  # the second time, too, from nothing
        assert "the bits may differ: torch: 1.0 in the run" in differs
        assert f"expected weights with SHA-256 {'2' * 64}, trained {recorded['weights_sha256']}" in differs
