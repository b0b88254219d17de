"""The runtimes that run a network's files, each on one thread of the CPU, and the memory of a process that runs one.

python -m frugalnet.export.runtimes pytorch models/depthwise-0.safetensors
python -m frugalnet.export.runtimes onnx results/export/depthwise-0/model.onnx
"""

import json
import re
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalnet.errors import UserError

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # (N, 64, 64, 3) RGB → (N, classes) logits
FILES = {"onnx": "model.onnx", "int8": "model.int8.onnx", "executorch": "model.pte"}  # in results/export/<network>
FORMATS = ("pytorch", *FILES)
_BATCH = 500  # images a call


def has_executorch() -> bool:
    """Whether the optional extra `device` is installed."""
    return find_spec("executorch") is not None


def open_runtime(kind: str, path: Path) -> Run:
    """The network in a file, in the runtime of its format: one of FORMATS."""
    return {"pytorch": _pytorch, "executorch": _executorch}.get(kind, _onnx)(path)


def _pytorch(path: Path) -> Run:
    import torch

    from frugalnet.training.inference import infer
    from frugalnet.use import weights

    torch.set_num_threads(1)
    normalise, network = weights.load_network(weights.of_file(path))
    return lambda images: infer(network, images, normalise, _BATCH)


def _onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        starts = range(0, len(images), _BATCH)
        return np.concatenate([session.run(None, {"images": images[start : start + _BATCH]})[0] for start in starts])

    return run


def _executorch(path: Path) -> Run:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its Python API is experimental: the lock holds its version
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

    torch.set_num_threads(1)
    portable_lib._unsafe_reset_threadpool(1)
    program = Runtime.get().load_program(str(path))
    method = program.load_method("forward")

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:  # the program takes one image
        outputs = [method.execute([torch.from_numpy(np.array(image[None]))])[0].numpy().copy() for image in images]
        return np.concatenate(outputs)

    run.program = program  # type: ignore[attr-defined] # it must outlive its method
    return run


def peak_memory(kind: str, path: Path) -> dict[str, int]:
    """Resident bytes of a new process that only runs a network, one image at a time.

    peak: the most it ever held. before: what Python and NumPy held before the runtime was loaded.
    Raises UserError if that process fails, for example because it is killed.
    """
    command = [sys.executable, "-m", "frugalnet.export.runtimes", kind, str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        how = f"by signal {-done.returncode}" if done.returncode < 0 else f"with exit code {done.returncode}"
        raise UserError(f"{path}: the process that measures its memory ended {how}; rerun, or try: {' '.join(command)}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():  # Linux's ru_maxrss includes what the parent held when it started this process
        (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        return 1024 * int(kilobytes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main(kind: str, path: str) -> None:
    before = _peak_bytes()
    run = open_runtime(kind, Path(path))
    image: NDArray[Any] = np.zeros((1, 64, 64, 3), np.uint8)
    for _ in range(20):
        run(image)
    print(json.dumps({"peak": _peak_bytes(), "before": before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
