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
    with suppress(RuntimeError), compute.evaluating(network):
        assert (network.training, trained.training) == (False, False)
        raise RuntimeError
    assert (network.training, frozen.training, trained.training) == (mode, False, True)
