"""Every test works in a folder of its own, offline, and leaves no trace in the project."""

import json
import os
from pathlib import Path

import fake_results
import pytest
import torch
from archives import small_members
from hypothesis import settings
from ruamel.yaml import YAML

from frugalnet.comparison.compare import Evidence
from frugalnet.data.config import AugmentConfig, DownloadConfig
from frugalnet.data.download import fetch
from frugalnet.study.findings import Findings

torch.set_num_threads(1)  # small tensors: more threads only wait for one another, the more so on a busy machine

# A few examples, the same each time; every night many others.
settings.register_profile("default", max_examples=25, deadline=None, derandomize=True, database=None)
settings.register_profile("nightly", max_examples=500, deadline=None, database=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

ROOT = Path(__file__).parents[1]
VIEWS = (ROOT / "conf/augment/views.yaml").read_text(encoding="utf-8")
AUGMENT = YAML(typ="safe").load(VIEWS.replace('"${data.side}"', "64"))
POLICY = AUGMENT["policy"]


FIRST = (
    "test_pipeline.py",
    "test_kill.py",
    "test_distributed.py",
)  # the longest files, so that no process waits for one


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


def augmentation(**changes: object) -> AugmentConfig:
    """The default augmentation, changed."""
    return AugmentConfig.model_validate_json(json.dumps(AUGMENT | changes))


@pytest.fixture(scope="session")
def sample_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample archive; not to be changed."""
    path = tmp_path_factory.mktemp("sample") / "sample.zip"
    fetch(DownloadConfig(source="sample", url=None, size_bytes=None, md5=None), path, path.parent)
    return path


@pytest.fixture(scope="session")
def _small(sample_archive: Path) -> dict[str, bytes]:
    return small_members(sample_archive)


@pytest.fixture
def small(_small: dict[str, bytes]) -> dict[str, bytes]:
    """The members of a correct archive of three classes, with four training and two validation images each."""
    return dict(_small)


def _forget_the_callers_variables() -> None:
    for name in list(os.environ):
        if name.startswith(("MLFLOW_TRACKING", "DVC_ROOT", "DVC_STAGE", "DVC_EXP")):
            del os.environ[name]


@pytest.fixture(autouse=True, scope="module")
def _alone_as_a_module() -> None:
    """What a module's own fixtures start, too: mlflow sets its variable whenever a test connects."""
    _forget_the_callers_variables()


@pytest.fixture(autouse=True)
def _alone() -> None:
    """No variable of the caller's leads a test to his tracking server or project."""
    _forget_the_callers_variables()


@pytest.fixture(scope="session")
def sample_findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """The findings of three networks with two seeds, on sample data, with the images."""
    return fake_results.found(tmp_path_factory.mktemp("sample"), fake_results.images(), is_sample=True)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, sample_findings: Findings) -> Path:
    """The report of `sample_findings`."""
    from frugalnet.study.report import compose, write_report  # plotly takes a second, and most tests do not need it

    out = tmp_path_factory.mktemp("report") / "compare"
    write_report(compose(sample_findings), out)
    return out


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """200 classes, no sample, the paper's recipe and epochs: its claims can be judged."""
    paper = {"recipe": "paper"}
    return fake_results.compared(tmp_path_factory.mktemp("full"), num_classes=200, n=2000, epochs=100, recipe=paper)
