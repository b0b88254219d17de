"""A trained network as files for other runtimes: ONNX, ONNX and TFLite of eight-bit integers, ExecuTorch.

ONNX files and the ExecuTorch program take uint8 RGB images (N, side, side, 3) and give logits (N, classes): the
normalisation is part of them. ExecuTorch and TFLite take one image at a time, TFLite int8 pixels (`tflite.py`).
"""

import copy
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from frugalnet.errors import UserError
from frugalnet.export import onnx_files
from frugalnet.export.config import ExportConfig
from frugalnet.export.description import Micro
from frugalnet.export.formats import FILES, Format
from frugalnet.export.quiet import quiet
from frugalnet.export.runtimes import has_executorch, has_tflite, open_runtime

_CHECKED = 8  # images on which a batch is compared with its images one at a time


class Written(NamedTuple):
    """arenas: the bytes that runtimes plan for one image, as far as they say. tflite: of the TFLite file, if any."""

    arenas: dict[Format, int]
    tflite: Micro | None


def write_files(
    network: nn.Sequential,
    images: NDArray[np.uint8],
    config: ExportConfig,
    metadata: Mapping[str, str],
    folder: Path,
) -> Written:
    """Write the files of FILES into `folder`, those of the extra `device` only where it is installed.

    network: a normaliser and a network, on the CPU: (N, side, side, 3) uint8 RGB → (N, classes). images:
    (N, side, side, 3) uint8 RGB, from which the ranges of int8 are taken: training images. metadata: what the ONNX
    files say of themselves. The same network, images and metadata give the same bytes. Raises UserError if a file's
    logits for an image depend on the others in its batch.
    """
    network = folded(network)
    spaced = np.linspace(0, len(images) - 1, min(config.calibration_images, len(images)))
    images = images[spaced.astype(np.int64)]
    onnx, int8 = folder / FILES["onnx"], folder / FILES["int8"]
    arenas: dict[Format, int] = {}
    micro = None
    with quiet():
        _write_onnx(network, images.shape[1], onnx)
        _check_batches("onnx", onnx, images[:_CHECKED])
        onnx_files.quantise(onnx, int8, images)
        _check_batches("int8", int8, images[:_CHECKED])
        onnx_files.finish(onnx, metadata, keep_weights_names=True)
        onnx_files.finish(int8, metadata, keep_weights_names=False)
        if has_executorch():
            arenas["executorch"] = _write_executorch(network, images.shape[1], folder / FILES["executorch"])
        if has_tflite():
            from frugalnet.export import tflite

            tflite.write_tflite(network, images, folder / FILES["tflite"])
            micro = tflite.describe(folder / FILES["tflite"])
            arenas["tflite"] = micro.arena_bytes
    return Written(arenas, micro)


def folded(network: nn.Sequential) -> nn.Sequential:
    """A copy in evaluation mode in which the convolutions do what the batch normalisation behind them did.

    That is exact but for rounding. ONNX's own optimiser misses it where a network uses its weights twice.
    """
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for place, (first, second) in enumerate(itertools.pairwise(module)):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[place] = fuse_conv_bn_eval(first, second)
                module[place + 1] = nn.Identity()
    return network


def _check_batches(kind: Format, path: Path, images: NDArray[np.uint8]) -> None:
    if not onnx_files.takes_any_batch(path):
        raise UserError(f"{path.name}: the network takes one size of batch only; it must compute each image by itself")
    run = open_runtime(kind, path)
    together = run(images)
    alone = np.concatenate([run(image[None]) for image in images])
    largest = np.abs(together).max()
    # Rounding: of floats, and of a value between two of eight bits.
    allowed = largest * (0.05 if kind == "int8" else 1e-4)
    if (difference := np.abs(together - alone).max()) > allowed:
        raise UserError(
            f"{path.name}: an image's logits depend on the other images in its batch (by {difference:.2g}; the largest "
            f"logit is {largest:.2g}); the network must compute each image by itself"
        )


def _write_onnx(module: nn.Module, side: int, path: Path) -> None:
    images = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        module,
        (images,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("n")},),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    program.save(path)


def _write_executorch(module: nn.Module, side: int, path: Path) -> int:
    """Returns the bytes of the arena that the program plans for its activations."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(module, (torch.zeros(1, side, side, 3, dtype=torch.uint8),))
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(program.buffer)
    return sum(program.executorch_program.execution_plan[0].non_const_buffer_sizes)
