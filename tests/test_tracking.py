import subprocess
import sys

from frugalnet.tracking import connect, flatten, numbers, provenance, training_run

RUN = {
    "model": "depthwise",
    "seed": 0,
    "data": "sample",
    "is_sample": True,
    "validated_on": "validation split",
    "data_sha256": "d",
    "views_sha256": "v",
    "source_sha256": "s",
    "train": {"epochs": 3},
    "fingerprint": "f",
}
ROWS = [{"epoch": epoch, "train_loss": 1 / epoch, "validation_top1": epoch / 10} for epoch in (1, 2, 3)]


def all_runs(root):
    client, experiment = connect(root)
    return client, client.search_runs([experiment])


def curve(client, run):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "validation_top1")]


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


def test_a_training_and_its_evaluation_make_one_run_with_parameters_curves_results_and_tags(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train@depthwise-0")
    training = training_run(tmp_path, RUN)
    training.log_history(ROWS[:1])
    training.log_history(ROWS)
    training.identify("weights_sha256", "w")
    training.finish()
    (tmp_path / "picture.png").write_bytes(b"png")
    evaluation = training_run(tmp_path, {**RUN, "weights_sha256": "w"})
    evaluation.log_history(ROWS)
    evaluation.log_results({"top1": 0.5}, [tmp_path / "picture.png"])
    evaluation.finish()
    client, (run,) = all_runs(tmp_path)
    assert curve(client, run) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert run.data.params["train.epochs"] == "3"
    assert run.data.metrics["top1"] == 0.5
    assert run.data.tags["weights_sha256"] == "w"
    assert run.data.tags["data_sha256"] == "d"
    assert run.data.tags["dvc_stage"] == "train@depthwise-0"
    assert run.info.run_name == "depthwise-0 (sample data)"
    assert run.info.status == "FINISHED"
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["picture.png"]
    assert (tmp_path / "mlruns" / "mlflow.db").is_file()


def test_a_resumed_training_goes_on_in_its_own_run(tmp_path):
    killed = training_run(tmp_path, RUN)
    killed.log_history(ROWS[:2])
    resumed = training_run(tmp_path, RUN)
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
        training_run(tmp_path, RUN).log_history(ROWS)
    assert all_runs(tmp_path)[1][0].data.tags["dvc_experiment"] == "one, two"


def test_other_inputs_make_another_run(tmp_path):
    training_run(tmp_path, RUN).log_history(ROWS)
    training_run(tmp_path, {**RUN, "fingerprint": "g"}).log_history(ROWS)
    assert len(all_runs(tmp_path)[1]) == 2


def test_an_unreachable_server_is_said_and_costs_nothing_and_a_later_stage_writes_all(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port: nobody listens
    training = training_run(tmp_path, RUN)
    training.log_history(ROWS)
    training.identify("weights_sha256", "w")
    training.finish()
    said = capfd.readouterr().err
    assert "tracking: depthwise-0 (sample data): its curves could not be logged" in said
    assert "results are on disk" in said
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    training_run(tmp_path, {**RUN, "weights_sha256": "w"}).log_history(ROWS)
    client, (run,) = all_runs(tmp_path)
    assert len(curve(client, run)) == 3
    assert run.data.tags["fingerprint"] == "f"


def test_a_database_that_is_gone_in_mid_run_costs_nothing(tmp_path, capfd):
    training = training_run(tmp_path, RUN)
    training.log_history(ROWS[:1])
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"no database")
    training.log_history(ROWS)
    assert "could not be logged" in capfd.readouterr().err


def test_processes_that_start_at_once_share_one_experiment(tmp_path):
    code = "import sys; from pathlib import Path; from frugalnet.tracking import connect; connect(Path(sys.argv[1]))"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert all_runs(tmp_path)[1] == []


def test_nested_values_become_flat():
    assert flatten({"a": {"b": 1}, "c": [2]}) == {"a.b": 1, "c": [2]}


def test_only_numbers_and_medians_become_metrics():
    values = {"a": {"median": 1, "n": 3}, "b": {"conv1": 2.0}, "c": "x", "d": None, "e": True, "f": 4}
    assert numbers("cost", values) == {"cost/a": 1.0, "cost/f": 4.0}
