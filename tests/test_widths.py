"""Networks of several widths through the stages: trained, measured and compared at equal cost."""

import json
from pathlib import Path

import pytest
from stages import PREPARED, in_turn, study

from frugalnet.mlflow_store import connect

NETWORKS = ("alexnet_x0_25", "alexnet_x0_375", "depthwise_x0_5", "depthwise")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("widths")
    stages = [*PREPARED, *in_turn(NETWORKS, "train"), ("measure",), *in_turn(NETWORKS, "evaluate")]
    stages += [("robustness",), ("compare",)]
    small = ("data=sample", "data.train_per_class=20", "train=demo", "train.epochs=1", "robustness=none", "adapt=none")
    study(folder, stages, "model=curve_small", *small)
    return folder


def test_families_are_compared_at_equal_cost(project: Path) -> None:
    compared = json.loads((project / "results/compare/comparison.json").read_text())["equal_cost"]
    ((pair, figures),) = compared.items()
    assert sorted(pair.split(" - ")) == ["alexnet", "depthwise"]
    assert [sorted(gain["pair"]) for gain in figures["at_equal_macs"] if gain["pair"]] == [
        ["alexnet_x0_375", "depthwise"]
    ]
    assert (project / "results/compare/figures/equal_macs.png").is_file()


def test_a_network_of_another_width_has_weights_and_a_run_of_its_own(project: Path) -> None:
    client, experiment = connect(project)
    runs = {run.data.params["model"]: run.data.params["fingerprint"] for run in client.search_runs([experiment])}
    assert sorted(runs) == sorted(NETWORKS)
    assert len({*runs.values()}) == len(NETWORKS)
    assert all((project / f"models/{network}-0.safetensors").is_file() for network in NETWORKS)
