import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest
from disks import small_disk
from mlflow import MlflowClient

from frugalnet import mlflow_store, project, runs_page, tracking
from frugalnet.errors import Interrupted, UserError
from frugalnet.mlflow_store import connect
from frugalnet.project import provenance
from frugalnet.run import Run
from frugalnet.tracking import TrackedRun, dotted_keys

RUN = {
    "model": "depthwise",
    "seed": 0,
    "num_classes": 10,
    "n_train": 1000,
    "n_validation": 200,
    "data": "sample",
    "is_sample": True,
    "validated_on": "validation split",
    "data_sha256": "d",
    "views_sha256": "v",
    "source_sha256": "s",
    "train": {"epochs": 3, "recipe": "demo"},
    "fingerprint": "f",
}
ROWS = [{"epoch": epoch, "train_loss": 1 / epoch, "validation_top1": epoch / 10} for epoch in (1, 2, 3)]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An empty tracking database: making one takes MLflow seconds."""
    folder = tmp_path_factory.mktemp("database")
    connect(folder)
    del os.environ["MLFLOW_TRACKING_URI"]  # which mlflow sets
    return folder / "mlruns"


@pytest.fixture(autouse=True)
def copied_database(request, tmp_path):
    if "processes_that_start_at_once" not in request.node.name:
        shutil.copytree(request.getfixturevalue("database"), tmp_path / "mlruns")


@pytest.fixture(autouse=True)
def trouble_forgotten(monkeypatch):
    """What a process remembers of MLflow's troubles."""
    monkeypatch.setattr(TrackedRun, "_said", set())
    monkeypatch.setattr(TrackedRun, "_retry_at", 0.0)


def training_run(root, run=RUN, **trained):
    return tracking.training_run(root, Run.model_validate(run), trained or provenance())


def end_with(error, tracked):
    """Log an epoch, then leave the run with an exception."""
    with suppress(type(error)), tracked:
        tracked.log_history(ROWS[:1])
        raise error


def all_runs(root):
    client, experiment = connect(root)
    return client, client.search_runs([experiment])


def curve(client, run):
    return [
        (metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "curves/validation_top1")
    ]


def test_a_run_names_its_commit_and_the_files_that_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("a: 1\n")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "dvc.lock").touch()  # what every first run writes
    tags = provenance()
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert "git_uncommitted_changes" not in tags
    (tmp_path / "params.yaml").write_text("a: 2\n")
    (tmp_path / "tiny.py").touch()
    assert provenance()["git_uncommitted_changes"] == "params.yaml, tiny.py"


def test_without_git_or_a_repository_a_run_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance() == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance() == {}


def test_a_training_and_its_evaluation_make_one_run_with_parameters_curves_results_and_tags(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train@depthwise-0")
    with training_run(tmp_path) as training:
        training.log_history(ROWS[:1])
        training.log_history(ROWS)
        training.identify("weights_sha256", "w")
    (tmp_path / "picture.png").write_bytes(b"png")
    with training_run(tmp_path, {**RUN, "weights_sha256": "w"}) as evaluation:
        evaluation.log_history(ROWS)
        evaluation.log_results({"top1": 0.5}, [tmp_path / "picture.png"])
    client, (run,) = all_runs(tmp_path)
    assert curve(client, run) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert run.data.params["train.epochs"] == "3"
    assert run.data.metrics["top1"] == 0.5
    assert run.data.tags["weights_sha256"] == "w"
    assert run.data.tags["data_sha256"] == "d"
    assert run.data.tags["dvc_stage"] == "train@depthwise-0"
    assert run.info.run_name == "depthwise · 3 epochs demo · seed 0 · sample data"
    assert run.info.status == "FINISHED"
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["picture.png"]
    assert (tmp_path / "mlruns" / "mlflow.db").is_file()


def test_a_run_says_in_a_sentence_and_as_a_data_set_what_it_was_trained_on_and_keeps_a_readers_own_words(tmp_path):
    rows = [{**row, "learning_rate": 0.1, "train_macs": 10**12} for row in ROWS]
    with training_run(tmp_path) as training:
        assert training.link("report.html") == ""  # MLflow has not been asked yet
        training.log_history(rows)
        training.describe("first")
        training.describe("second" + runs_page.links(report=training.link("report.html"), none=""))
    client, (run,) = all_runs(tmp_path)
    note = run.data.tags["mlflow.note.content"]
    sentence, words, links = note.split("\n\n")
    assert "10 classes, 1,000 training and 200 validation images" in sentence
    assert words == "second"
    address = f"#/experiments/1/runs/{run.info.run_id}/artifacts/report.html?workflowType=machine_learning"
    assert links == f"See: [report]({address})"
    (data,) = [found.dataset for found in run.inputs.dataset_inputs]
    assert (data.name, data.digest) == ("sample", "d")
    assert json.loads(data.profile) == {"num_classes": 10, "n_train": 1000, "n_validation": 200}
    assert run.data.params["train_macs"] == str(3 * 10**12)
    assert "curves/train_macs" not in run.data.metrics
    assert run.data.metrics["schedule/learning_rate"] == 0.1
    client.set_tag(run.info.run_id, "mlflow.note.content", "a reader's own words")
    with training_run(tmp_path) as again:
        again.log_history(rows)
        again.describe("third")
    (run,) = all_runs(tmp_path)[1]
    assert run.data.tags["mlflow.note.content"] == "a reader's own words"
    assert len(run.inputs.dataset_inputs) == 1


def test_a_comparison_does_not_stand_among_the_trainings(tmp_path):
    with tracking.comparison_run(tmp_path, ["alexnet", "residual"], "sample", "hash") as compared:
        compared.log_results({"top1/alexnet": 0.5})
    client, runs = all_runs(tmp_path)
    assert runs == []
    (run,) = client.search_runs([connect(tmp_path, mlflow_store.COMPARISONS)[1]])
    assert run.info.run_name == "alexnet, residual · sample"


def test_the_project_has_its_own_saved_view(tmp_path):
    client, experiment = connect(tmp_path)
    view = json.loads(client.get_experiment(experiment).tags["mlflow.sharedViewState.frugalnet"])
    charts = json.loads(view["state"])["compareRunCharts"]
    assert [chart["metricKey"] for chart in charts[:2]] == ["curves/validation_top1", "curves/train_top1"]
    client.set_experiment_tag(experiment, "mlflow.sharedViewState.frugalnet", "an older version's")
    connect(tmp_path)
    assert client.get_experiment(experiment).tags["mlflow.sharedViewState.frugalnet"] == json.dumps(view)


def test_a_resumed_training_goes_on_in_its_own_run(tmp_path):
    killed = training_run(tmp_path)
    killed.log_history(ROWS[:2])
    resumed = training_run(tmp_path)
    resumed.log_history(ROWS)
    client, (run,) = all_runs(tmp_path)
    assert curve(client, run) == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_an_evaluation_of_a_training_that_came_from_the_cache_writes_the_whole_run(tmp_path):
    training_run(tmp_path, {**RUN, "weights_sha256": "w"}).log_history(ROWS)
    client, (run,) = all_runs(tmp_path)
    assert len(curve(client, run)) == 3
    assert run.data.params["model"] == "depthwise"


def test_experiments_that_share_a_run_are_all_named_on_it(tmp_path, monkeypatch):
    for name in ("one", "two", "one"):
        monkeypatch.setenv("DVC_EXP_NAME", name)
        training_run(tmp_path).log_history(ROWS)
    assert all_runs(tmp_path)[1][0].data.tags["dvc_experiment"] == "one, two"


def test_a_run_leads_back_to_its_training_not_to_where_it_was_evaluated(tmp_path, monkeypatch):
    trained = {"mlflow.source.git.commit": "a" * 40, "git_uncommitted_changes": "params.yaml"}
    monkeypatch.setenv("DVC_STAGE", "train@depthwise-0")
    monkeypatch.setenv("DVC_EXP_NAME", "first")
    first = training_run(tmp_path, **trained, dvc_stage="train@depthwise-0", dvc_experiment="first")
    first.identify("weights_sha256", "w")
    monkeypatch.setenv("DVC_STAGE", "evaluate@depthwise-0")
    monkeypatch.setenv("DVC_EXP_NAME", "second")
    timing = {**trained, "dvc_stage": "train@depthwise-0", "dvc_experiment": "first", "epoch_seconds": [1.0]}
    training_run(tmp_path, {**RUN, "weights_sha256": "w"}, **timing).log_history(ROWS)
    (run,) = all_runs(tmp_path)[1]
    assert {key: run.data.tags[key] for key in project.PROVENANCE if key in run.data.tags} == {
        **trained,
        "dvc_stage": "train@depthwise-0",
        "dvc_experiment": "first, second",
    }
    # Trained again, now with everything committed: nothing of the first time is left.
    again = training_run(tmp_path, {**RUN, "weights_sha256": "w"}, **{"mlflow.source.git.commit": "b" * 40})
    again.log_history(ROWS)
    tags = all_runs(tmp_path)[1][0].data.tags
    assert tags["mlflow.source.git.commit"] == "b" * 40
    assert "git_uncommitted_changes" not in tags


def test_other_bits_of_a_like_training_make_a_run_of_their_own_and_leave_the_first_alone(tmp_path):
    with training_run(tmp_path, **{"mlflow.source.git.commit": "a" * 40}) as first:
        first.log_history(ROWS)
        first.identify("weights_sha256", "w")
    with training_run(tmp_path, **{"mlflow.source.git.commit": "b" * 40}) as again:
        again.log_history([{**row, "validation_top1": 0.9} for row in ROWS])
        again.identify("weights_sha256", "other")
    client, runs = all_runs(tmp_path)
    found = {run.data.tags["weights_sha256"]: run for run in runs}
    assert found.keys() == {"w", "other"}
    assert [value for _, value in curve(client, found["w"])] == [0.1, 0.2, 0.3]
    assert [value for _, value in curve(client, found["other"])] == [0.9, 0.9, 0.9]
    assert [found[key].data.tags["mlflow.source.git.commit"][0] for key in ("w", "other")] == ["a", "b"]
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Interrupted(2), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
        (OSError(), "FAILED"),
        (UserError("wrong"), "FAILED"),
    ],
)
def test_a_run_that_ends_with_an_exception_is_killed_or_failed_and_running_once_resumed(tmp_path, error, status):
    end_with(error, training_run(tmp_path))
    assert all_runs(tmp_path)[1][0].info.status == status
    training_run(tmp_path).log_history(ROWS)
    assert all_runs(tmp_path)[1][0].info.status == "RUNNING"


def test_a_failed_call_is_said_in_one_line_and_costs_no_other_call(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("DVC_STAGE", "evaluate@depthwise-0")
    with training_run(tmp_path, {**RUN, "weights_sha256": "w"}) as evaluation:
        evaluation.log_results({"top1": "no number"})
        evaluation.log_history(ROWS)
    (line,) = capfd.readouterr().err.splitlines()
    assert "its results could not be logged (could not convert" in line
    assert line.endswith("run: dvc repro --force --single-item evaluate@depthwise-0")
    client, (run,) = all_runs(tmp_path)
    assert len(curve(client, run)) == 3
    assert run.info.status == "FINISHED"


def test_each_reason_is_said_once_in_a_process(tmp_path, capfd):
    def fail(reason):
        def call(_):
            raise RuntimeError(reason)

        return call

    for number, reason in enumerate(("no server", "no server", "no disk", "no server")):
        training_run(tmp_path, {**RUN, "seed": number}).call("its curves", fail(reason))
        TrackedRun._retry_at = 0.0
    assert [line.count("no server") for line in capfd.readouterr().err.splitlines()] == [1, 0]


def test_after_a_failure_that_took_long_calls_are_left_out_for_ten_times_as_long(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(tracking.time, "monotonic", lambda: now)

    def fail_slowly(_):
        nonlocal now
        now += 30
        raise RuntimeError("no answer")

    def note(_):
        called.append(now)

    called = []
    training_run(tmp_path).call("its curves", fail_slowly)
    for seconds in (31, 329, 331):
        now = seconds
        training_run(tmp_path).call("its curves", note)
    assert called == [331]


def test_a_password_in_what_mlflow_says_is_not_shown(tmp_path, capfd):
    def fail(_: str) -> None:
        raise RuntimeError("API request to http://alice:secret@tracking.example.org failed")

    training_run(tmp_path).call("its curves", fail)
    said = capfd.readouterr().err
    assert "http://***@tracking.example.org failed" in said
    assert "secret" not in said


def test_a_training_that_is_stopped_leaves_the_run_of_a_finished_one_alone(tmp_path):
    with training_run(tmp_path) as first:
        first.log_history(ROWS)
        first.identify("weights_sha256", "w")
    end_with(Interrupted(2), training_run(tmp_path))
    assert [run.info.status for run in all_runs(tmp_path)[1]] == ["FINISHED"]


def test_other_inputs_make_another_run(tmp_path):
    training_run(tmp_path).log_history(ROWS)
    training_run(tmp_path, {**RUN, "fingerprint": "g"}).log_history(ROWS)
    assert len(all_runs(tmp_path)[1]) == 2


def test_an_unreachable_server_is_said_and_costs_nothing_and_a_later_stage_writes_all(tmp_path, monkeypatch, capfd):
    # The discard port: nobody listens.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://alice:secret@127.0.0.1:9")
    with training_run(tmp_path) as training:
        training.log_history(ROWS)
        training.identify("weights_sha256", "w")
    said = capfd.readouterr().err
    assert "tracking: depthwise · 3 epochs demo · seed 0 · sample data: its curves could not be logged" in said
    assert "Results are on disk" in said
    assert "secret" not in said
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    training_run(tmp_path, {**RUN, "weights_sha256": "w"}).log_history(ROWS)
    client, (run,) = all_runs(tmp_path)
    assert len(curve(client, run)) == 3
    assert run.data.tags["fingerprint"] == "f"


def test_a_database_that_is_gone_in_mid_run_costs_nothing(tmp_path, capfd):
    training = training_run(tmp_path)
    training.log_history(ROWS[:1])
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"no database")
    training.log_history(ROWS)
    assert "could not be logged" in capfd.readouterr().err


def test_processes_that_start_at_once_share_one_experiment(tmp_path):
    code = (
        "import sys; from pathlib import Path; from frugalnet.mlflow_store import connect; connect(Path(sys.argv[1]))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert all_runs(tmp_path)[1] == []


def test_clones_that_create_one_database_at_once_each_log_their_run(tmp_path):
    code = (
        "import sys; from pathlib import Path; from frugalnet.tracking import Description, TrackedRun\n"
        "about = Description('a run', identity={'fingerprint': sys.argv[1]}, tags={}, provenance={}, note='')\n"
        "tracked = TrackedRun(Path(sys.argv[1]), about)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "with tracked: tracked.log_results({'top1': 0.5})\n"
    )
    uri = f"sqlite:///{tmp_path / 'folder' / 'shared.db'}"
    clones = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)],
            env={**os.environ, "MLFLOW_TRACKING_URI": uri},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for clone in clones:
        assert clone.stdout.readline() == "ready\n"
    for clone in clones:
        clone.stdin.write("go\n")
        clone.stdin.flush()
    for clone in clones:
        assert "could not be logged" not in clone.communicate()[1]
    client = MlflowClient(uri)
    (experiment,) = [one for one in client.search_experiments() if one.name == "frugalnet"]
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2


def test_mlflow_is_not_imported_before_something_is_logged():
    code = "import sys, frugalnet.tracking, frugalnet.reproduce, frugalnet.use.exported; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_nested_values_become_flat():
    assert dotted_keys({"a": {"b": 1}, "c": [2]}) == {"a.b": 1, "c": [2]}


def test_a_damaged_database_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # which mlflow sets
    (tmp_path / "other/mlruns").mkdir(parents=True)
    (tmp_path / "other/mlruns/mlflow.db").write_bytes(2000 * b"no database")
    with pytest.raises(UserError, match=r"MLflow does not answer: .*file is not a database"):
        mlflow_store.connect(tmp_path / "other")


@pytest.mark.parametrize(("server_user", "expected"), [("alice", "alice"), (None, "bob")])
def test_a_run_says_who_made_it(tmp_path, monkeypatch, server_user, expected):
    monkeypatch.setenv("LOGNAME", "bob")
    if server_user:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", server_user)
    with training_run(tmp_path) as tracked:
        tracked.log_history(ROWS)
    client, (run,) = all_runs(tmp_path)
    assert (run.info.user_id, run.data.tags["mlflow.user"]) == (expected, expected)
    (experiment,) = client.search_experiments(filter_string="name = 'frugalnet'")
    assert "attributes.`User`" in json.loads(json.loads(experiment.tags[runs_page.VIEW])["state"])["selectedColumns"]


def test_a_user_without_a_name_has_a_number(monkeypatch):
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(tracking.getpass, "getuser", nameless)
    assert tracking.user() == str(os.getuid())


def test_a_relative_sqlite_address_is_one_of_the_project_with_its_files(tmp_path, monkeypatch):
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///team/runs.db?timeout=60")
    (tmp_path / "team").mkdir()
    shutil.copy(tmp_path / "mlruns/mlflow.db", tmp_path / "team/runs.db")
    assert mlflow_store.address(tmp_path) == f"sqlite:///{tmp_path}/team/runs.db?timeout=60"
    _, experiment = connect(tmp_path, "another")
    assert not list(working.iterdir())
    location = MlflowClient().get_experiment(experiment).artifact_location
    assert location == (tmp_path / "team/artifacts").as_uri()


@pytest.mark.parametrize("name", ["what?now", "100%41"])
def test_a_path_that_mlflow_would_misread_is_refused_before_anything_is_created(tmp_path, name):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=rf"{re.escape(name)}/mlruns/mlflow.db: MLflow misreads"):
        connect(tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("uri", [None, "sqlite:///team/runs.db"])
def test_reading_creates_no_database_and_names_the_one_that_is_missing(tmp_path, monkeypatch, uri):
    missing = tmp_path / "empty" / ("team/runs.db" if uri else "mlruns/mlflow.db")
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=re.escape(f"{missing}: no such file")):
        mlflow_store.artifact(tmp_path / "empty", "run", "run.json")
    assert not (tmp_path / "empty").exists()


def test_a_full_disk_is_said_in_one_line_for_each_reason(tmp_path, capfd):
    with small_disk(tmp_path / "mlruns", 3000):
        with training_run(tmp_path) as training:
            training.log_history(ROWS[:1])
            capfd.readouterr()
            with (tmp_path / "mlruns/filler").open("wb", buffering=0) as filler, suppress(OSError):
                while filler.write(bytes(4096)):
                    pass
            training.log_history(ROWS)
            training.log_results({"final/top1": 0.5})
            training.describe("best")
        said = capfd.readouterr().err.splitlines()
    assert 1 <= len(said) <= 2, said
    assert "could not be logged" in said[0]
    assert "database or disk is full" in said[0]
    assert not [line for line in said if "autoflush" in line]
