"""What can be known before any data is fetched is checked by the stage `check`, and by `frugalnet check`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.utils.hydra import compose_and_dump
from ruamel.yaml import YAML

from frugalnet import config
from frugalnet.check import check
from frugalnet.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["compute.device=mps"], r"compute\.device: 'mps' is not available"),
        (["augment.policy=[{name: Rotated, p: 1}]"], r"augment\.policy\.0\.name: .* no transform 'Rotated'"),
        (
            ["teacher=alexnet", "train=distilled", "teacher.weights=nowhere"],
            r"teacher\.weights: nowhere: .* no such file",
        ),
        (
            [
                *("teacher=alexnet", "train=distilled", f"teacher.weights={ROOT / 'weights/alexnet-0.safetensors'}"),
                "teacher.others=[{model:residual,weights:gone,sha256:'0'}]",
            ],
            r"teacher\.weights: gone: .* no such file",
        ),
        (["distributed=ddp", "launch.backend=nccl"], r"launch\.backend: 'nccl' is not available for cpu"),
        (
            ["distributed=ddp", "distributed.workers=2", "train.batch_size=3"],
            r"distributed\.workers: 2 workers are too",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_key(tmp_path, monkeypatch, overrides, reason):
    monkeypatch.chdir(tmp_path)
    compose_and_dump("params.yaml", str(ROOT / "conf"), None, "config", "", ["model=depthwise", *overrides])
    with pytest.raises(UserError, match=f"^{reason}"):
        check(config.read_params())


def test_the_stage_refuses_too_and_writes_the_same_for_all_that_can_be_used(tmp_path):
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-m", "pipeline.check"]
    written = set()
    for override in ("train.batch_size=8", "train.batch_size=16"):
        compose_and_dump(
            tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", ["model=depthwise", override]
        )
        subprocess.run(words, cwd=tmp_path, env=environment, check=True)
        written.add((tmp_path / "data/checked.json").read_bytes())
    assert len(written) == 1, "so that no other stage runs again"
    (tmp_path / "data/checked.json").unlink()
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", ["compute.device=mps"])
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("check: compute.device: 'mps' is not available"), done.stderr
    assert not list((tmp_path / "data").iterdir())


def test_nothing_is_fetched_before_the_check():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert set(stages["check"]["outs"]) <= set(stages["download"]["deps"])


def test_the_command_says_that_nothing_is_wrong(tmp_path):
    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", [])
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "frugalnet.use.cli", "check"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "params.yaml: nothing wrong; networks: alexnet, depthwise, residual\n"
