import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from frugalnet import compute
from frugalnet.compute_config import ComputeConfig
from frugalnet.errors import UserError
from frugalnet.inference_mode import evaluating
from frugalnet.processes import cores


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc than glibc's")
def test_freed_memory_serves_the_next_step_without_page_faults():
    code = (
        "import resource, torch\n"
        "from frugalnet.compute import setup\n"
        "from frugalnet.compute_config import ComputeConfig\n"
        "how = dict(compile='off', deterministic=False, checkpoint_minutes=1, records='none')\n"
        "setup(ComputeConfig(device='cpu', threads=1, processes=1, **how))\n"
        "def step(): [torch.ones(10_000_000) for _ in range(3)]\n"
        "for _ in range(10): step()\n"  # where blocks lie is chance; in eight runs it had settled after 1 to 5
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(5): step()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(faults) < 1000  # 40 MB are 10,000 pages of 4 KB


def settings(mode: str) -> ComputeConfig:
    return ComputeConfig(
        device="auto",
        threads=1,
        processes=1,
        compile=mode,
        deterministic=False,
        checkpoint_minutes=1,
        records="none",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_a_runs_environment_tells_processors_with_amx_from_others_of_the_same_name():
    found = compute.bits_depend_on(torch.device("cpu"), settings("off"))
    assert found["amx_bf16"] == ("amx_bf16" in Path("/proc/cpuinfo").read_text().split())


@pytest.mark.parametrize(
    ("mode", "device", "expected"),
    [
        ("auto", "cpu", None),
        ("auto", "cuda", "default"),
        ("off", "cuda", None),
        ("default", "cpu", "default"),
        ("reduce-overhead", "cuda", "reduce-overhead"),
    ],
)
def test_networks_are_compiled_on_cuda_or_if_told(monkeypatch, mode, device, expected):
    monkeypatch.setattr(compute, "find_spec", lambda name: object())
    monkeypatch.setattr(compute.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert compute.compile_mode(torch.device(device), settings(mode)) == expected


def test_without_a_compiler_auto_does_not_compile_and_a_mode_is_refused(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compute.shutil, "which", lambda name: None)
    assert compute.compile_mode(torch.device("cuda"), settings("auto")) is None
    with pytest.raises(UserError, match=r"^compute.compile: 'default' needs a C compiler"):
        compute.compile_mode(torch.device("cpu"), settings("default"))


def test_on_the_cpu_a_c_compiler_alone_is_not_enough(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compute.shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    with pytest.raises(UserError, match=r"on the CPU a C\+\+ one"):
        compute.compile_mode(torch.device("cpu"), settings("default"))


@pytest.mark.parametrize("mode", [True, False])
def test_after_evaluation_each_module_has_its_own_mode_again(mode):
    frozen, trained = torch.nn.BatchNorm1d(2).eval(), torch.nn.BatchNorm1d(2)
    network = torch.nn.Sequential(frozen, trained)
    network.training = mode
    with suppress(RuntimeError), evaluating(network):
        assert (network.training, trained.training) == (False, False)
        raise RuntimeError
    assert (network.training, frozen.training, trained.training) == (mode, False, True)


def test_a_gpu_is_chosen_by_its_index_and_one_that_is_missing_is_refused(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    second = settings("off").model_copy(update={"device": "cuda:1"})
    assert compute.setup(second) == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    with pytest.raises(UserError, match=r"'cuda:2' is not available; .*: cuda, cpu, cuda:0, cuda:1$"):
        compute.setup(second.model_copy(update={"device": "cuda:2"}))


def threads_of(config: ComputeConfig) -> int:
    before = torch.get_num_threads()
    try:
        compute.setup(config)
        return torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("3,2", 3), ("0", None), ("many", None), ("", None)])
def test_omp_num_threads_decides_if_the_parameter_does_not(monkeypatch, capsys, asked, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    config = settings("off").model_copy(update={"device": "cpu", "threads": 0})
    assert threads_of(config) == (threads or cores())
    assert capsys.readouterr().err == ""


def test_an_omp_num_threads_that_is_overridden_is_said(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of(settings("off").model_copy(update={"device": "cpu", "threads": 2})) == 2
    assert capsys.readouterr().err == "2 threads (compute.threads), not the 3 of OMP_NUM_THREADS\n"


GROUPS = {  # the process's groups, the files of these groups, and the cores that it then may use
    "version 2, in a container": ("0::/", {"cpu.max": "150000 100000"}, 2),
    "version 2, no quota": ("0::/", {"cpu.max": "max 100000"}, 8),
    "version 2, the quota of a group above": (
        "0::/pod/box",
        {"pod/box/cpu.max": "max 100000", "pod/cpu.max": "300000 100000"},
        3,
    ),
    "version 1": ("4:cpu,cpuacct:/box", {"cpu,cpuacct/box/cpu.cfs_quota_us": "50000"}, 1),
    "version 1, in a container, which does not see its group's name": (
        "4:cpu,cpuacct:/docker/0a",
        {"cpu,cpuacct/cpu.cfs_quota_us": "400000"},
        4,
    ),
    "version 1, no quota": ("1:cpu:/\n0::/", {"cpu/cpu.cfs_quota_us": "-1"}, 8),
    "more than there are": ("0::/", {"cpu.max": "6400000 100000"}, 8),
    "of other groups": ("4:cpuset,memory:/box", {"cpuset,memory/box/cpu.cfs_quota_us": "50000"}, 8),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_containers_quota_limits_the_cores(tmp_path, monkeypatch, name):
    process, files, expected = GROUPS[name]
    (tmp_path / "process").write_text(process + "\n")
    for file, content in files.items():
        path = tmp_path / "groups" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
        path.with_name("cpu.cfs_period_us").write_text("100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    assert cores(tmp_path / "process", tmp_path / "groups") == expected


def test_without_control_groups_there_is_no_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    assert cores(tmp_path / "process", tmp_path / "groups") == 8
