"""The device that computes, and what a run's bits depend on besides its inputs."""

import ctypes
import os
import platform
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from frugalnet.compute_config import ComputeConfig
from frugalnet.errors import UserError
from frugalnet.processes import asked_threads, cores, cpu_model_name

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # as malloc.h numbers them


def setup(config: ComputeConfig) -> torch.device:
    """Set threads and determinism for this process and return the device.

    Raises UserError if the device asked for is not there.
    """
    torch.set_num_threads(_threads(config))
    _keep_freed_memory()
    device = _device(config.device)
    if device != torch.device(device.type):
        torch.cuda.set_device(device)  # so that nothing is put on the first GPU
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it before its first call
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    return device


def _threads(config: ComputeConfig) -> int:
    """The number of threads: `compute.threads`, else OMP_NUM_THREADS, else one per core."""
    asked = asked_threads()
    if config.threads and asked and config.threads != asked and os.environ.get("LOCAL_RANK", "0") == "0":
        decides = "a host's cores divided among its workers" if "LOCAL_RANK" in os.environ else "compute.threads"
        print(f"{config.threads} threads ({decides}), not the {asked} of OMP_NUM_THREADS", file=sys.stderr)
    return config.threads or asked or cores()


def _device(name: str) -> torch.device:
    """The device that `compute.device` names. Raises UserError if it is not there."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    device = torch.device(next(kind for kind in present if present[kind]) if name == "auto" else name)
    gpus = torch.cuda.device_count() if present["cuda"] else 0
    if not present[device.type] or (device.index or 0) >= max(gpus, 1):
        here = [kind for kind in present if present[kind]] + [f"cuda:{index}" for index in range(gpus)]
        raise UserError(f"compute.device: '{name}' is not available; use auto or one of: {', '.join(here)}")
    return device


def compile_mode(device: torch.device, config: ComputeConfig) -> str | None:
    """The mode of torch.compile that training uses on this device, or None: networks are not compiled.

    `auto` compiles on CUDA if Triton finds the C compiler and Python header it needs. Raises UserError if another mode
    asks for them and they are missing. "reduce-overhead" records CUDA graphs: one launch for a whole pass.
    """
    if config.compile == "off" or (config.compile == "auto" and device.type != "cuda"):
        return None
    if device.type == "cuda":  # what Triton looks for, and else what inductor does
        compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    else:
        compiler = os.environ.get("CXX") or shutil.which("clang++" if sys.platform == "darwin" else "g++")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    able = bool(compiler) and header.is_file() and (device.type != "cuda" or bool(find_spec("triton")))
    if config.compile == "auto":
        return "default" if able else None
    if not able:
        raise UserError(
            f"compute.compile: '{config.compile}' needs a C compiler, on the CPU a C++ one, {header} and, on CUDA, "
            "Triton: install them or use off"
        )
    return config.compile


def _keep_freed_memory() -> None:
    """Let glibc's malloc keep freed memory for the next tensor instead of returning it to the system.

    Otherwise each step requests its activations again: 10,000 page faults a step at batch 256, up to a fifth of the
    time (docs/performance.md). Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if mallopt:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_TOP_PAD, 2**26)


def bits_depend_on(device: torch.device, config: ComputeConfig) -> dict[str, Any]:
    """What decides a run's bits besides parameters, data and code. A run prints and logs it."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "deterministic": config.deterministic or device.type == "cpu",
        "compiled": compile_mode(device, config) or False,
        "cpu": cpu_model_name(),  # two models with the same instructions gave other bits (docs/log.md)
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "amx_bf16": bool(torch.cpu.get_capabilities().get("amx_bf16")),  # torch's Muon multiplies bfloat16 matrices
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def synchronize(device: torch.device) -> None:
    """Wait for queued work: a GPU's calls return before they are done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """What a measurement depends on: device, processor, cores, threads, versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": cpu_model_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
