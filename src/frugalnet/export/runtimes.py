"""The runtimes that run a network's files, each on one thread of the CPU, and the memory of a process that runs one.

python -m frugalnet.export.runtimes onnx results/export/depthwise-0/model.onnx 64
"""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from frugalnet.errors import UserError
from frugalnet.export.formats import FILES, Format
from frugalnet.export.quiet import standard_error
from frugalnet.processes import peak_bytes

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # (N, side, side, 3) RGB → (N, classes) logits
_BATCH = 500  # images a call


def has_executorch() -> bool:
    """Whether the optional extra `device` is installed, as far as ExecuTorch needs it."""
    return find_spec("executorch") is not None


def has_tflite() -> bool:
    """Whether the optional extra `device` is installed, as far as TFLite files need it."""
    return all(find_spec(name) for name in ("litert_torch", "ai_edge_quantizer", "ai_edge_litert", "tflite_micro"))


@dataclass(frozen=True)
class Runnable:
    """A file of a network, and what runs it.

    open: gives the network, ready to run. command: of a process that runs it and ends with `print_memory`. side: of the
    square pictures that it takes, in pixels.
    """

    path: Path
    open: Callable[[], Run]
    command: list[str]
    side: int


def runnable_files(folder: Path, side: int) -> dict[Format, Runnable]:
    """The files of FILES that there are in a folder, of a network that takes pictures of that side."""
    module = [sys.executable, "-m", "frugalnet.export.runtimes"]
    paths = {kind: folder / name for kind, name in FILES.items()}
    return {
        kind: Runnable(path, partial(open_runtime, kind, path), [*module, kind, str(path), str(side)], side)
        for kind, path in paths.items()
        if path.is_file()
    }


def open_runtime(kind: Format, path: Path) -> Run:
    """The network in a file, in the runtime of its format: one of FILES."""
    runtime = {"executorch": _executorch, "tflite": _tflite}.get(kind, _onnx)
    return runtime(path)


def open_session(path: Path, model: bytes | None = None) -> Any:
    """ONNX Runtime's session of a file, or of what replaces it, on one thread. Raises UserError if it is damaged."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one small picture: more would wait for each other
    try:
        return onnxruntime.InferenceSession(model or str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base class of their own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not an ONNX file that can be run ({reason}); restore it") from error


def _onnx(path: Path) -> Run:
    session = open_session(path)

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


def _tflite(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    with standard_error():  # that it chose XNNPACK
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    (result,) = interpreter.get_output_details()
    scale, zero_point = result["quantization"]

    def logits(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter.set_tensor(given["index"], (image ^ 0x80).view(np.int8)[None])  # less 128
        interpreter.invoke()
        values: NDArray[np.int8] = interpreter.get_tensor(result["index"])
        return np.asarray((values.astype(np.float32) - zero_point) * scale, np.float32)

    return lambda images: np.concatenate([logits(image) for image in images])  # the file takes one image


class Memory(NamedTuple):
    """Resident bytes of a process. peak: the most it ever held; before: before the runtime was loaded."""

    peak: int
    before: int


def peak_memory(runnable: Runnable) -> Memory:
    """The memory of a new process that only runs a network, one image at a time.

    Raises UserError if that process fails, for example because it is killed.
    """
    done = subprocess.run(runnable.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        how = f"by signal {-done.returncode}" if done.returncode < 0 else f"with exit code {done.returncode}"
        again = " ".join(runnable.command)
        raise UserError(f"{runnable.path}: the process that measures its memory ended {how}; rerun, or try: {again}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def print_memory(opened: Callable[[], Run], side: int) -> None:
    """Open a network, run it on pictures of that side, and print this process's memory, for `peak_memory`."""
    before = peak_bytes()
    run = opened()
    image: NDArray[np.uint8] = np.zeros((1, side, side, 3), np.uint8)
    for _ in range(20):
        run(image)
    print(json.dumps({"peak": peak_bytes(), "before": before}))


if __name__ == "__main__":
    print_memory(partial(open_runtime, cast(Format, sys.argv[1]), Path(sys.argv[2])), int(sys.argv[3]))
