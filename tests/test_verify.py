"""Committed weights and committed results, compared on the images."""

import shutil
from pathlib import Path

import pytest
import trained

from frugalnet.comparison import records
from frugalnet.errors import UserError
from frugalnet.files import read_json, read_table, write_json, write_table
from frugalnet.metrics import classes
from frugalnet.use import weights
from tools import networks, publish

NAME = "depthwise-0"


@pytest.fixture
def project(tmp_path, sample_archive) -> Path:
    """A project whose one network is committed: its weights, and its record."""
    folder = trained.project(tmp_path, sample_archive, (NAME,))
    weights.write_weights(folder / "weights", [weights.of_run(folder, NAME)])
    record = folder / "docs/results/modern" / NAME
    record.mkdir(parents=True)
    for path in (folder / "results/train" / NAME / "run.json", folder / "results/evaluate" / NAME / "metrics.json"):
        shutil.copy(path, record)
    labels, predicted = records.read_predictions(folder / "results/evaluate" / NAME / "predictions.npz")
    stored = weights.of_run(folder, NAME).classes
    confused = classes.confusion(predicted, labels, len(stored.ids))
    write_table(record / "per_class.csv", classes.per_class(confused, stored.ids, stored.names))
    return folder


def test_committed_weights_give_the_committed_results(project, capsys, monkeypatch):
    monkeypatch.chdir(project)
    publish.main(["verify"])
    assert capsys.readouterr().out.startswith("depthwise-0: top-1 ")


def test_weights_beside_the_results_of_a_recipe_are_evaluated_too(project, capsys):
    paper = project / "docs/results/paper"
    shutil.copytree(project / "docs/results/modern", paper)
    shutil.copytree(project / "weights", paper / "weights")
    other = project / "docs/results/modern" / NAME / "run.json"
    write_json(other, read_json(other) | {"weights_sha256": "0" * 64})  # so that only the paper's record fits
    networks.verify_weights(project)
    assert capsys.readouterr().out.count("docs/results/paper/depthwise-0") == 2
    (paper / "weights/depthwise-0.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"describes as depthwise-0 \(expected"):
        networks.verify_weights(project)


def test_another_figure_is_named(project):
    record = project / "docs/results/modern" / NAME
    metrics, table = read_json(record / "metrics.json"), read_table(record / "per_class.csv")
    write_json(record / "metrics.json", metrics | {"top5": metrics["top5"] + 0.01})
    write_table(
        record / "per_class.csv", [row | {"correct": int(row["correct"]) + (i < 2)} for i, row in enumerate(table)]
    )
    with pytest.raises(UserError, match=r"depthwise-0: top5 0\.\d+, expected 0\.\d+; 2 of \d+ classes have another"):
        networks.verify_weights(project)


def test_other_data_and_weights_without_a_record_are_refused(project):
    record = project / "docs/results/modern" / NAME / "run.json"
    description = read_json(project / "data/arrays/dataset.json")
    other = description["sha256"] | {"train_images.npy": "0" * 64}
    write_json(project / "data/arrays/dataset.json", description | {"sha256": other})
    with pytest.raises(UserError, match="data/arrays holds other images than depthwise-0 was evaluated on"):
        networks.verify_weights(project)
    write_json(project / "data/arrays/dataset.json", description)
    write_json(record, read_json(record) | {"weights_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"no record in .*depthwise-0 is of these weights"):
        networks.verify_weights(project)
