"""A classifier that trains where only ExecuTorch runs: programs for the features and for a step of training.

ExecuTorch's training is experimental (1.5.1). XNNPACK computes the features, as for inference; the step itself, forward
and backward through the classifier alone, runs on ExecuTorch's portable kernels, and the optimiser is its own SGD.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from frugalnet.adaptation.finetuning import classifier, for_classes
from frugalnet.errors import UserError
from frugalnet.export.files import quiet, write_executorch
from frugalnet.export.runtimes import open_runtime
from frugalnet.files import atomic
from frugalnet.training.batches import batch_indices
from frugalnet.use.weights import Stored, load

FEATURES, STEP = "features.pte", "train_classifier.pte"


class _WithLoss(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.head(features)
        return cross_entropy(logits, labels), logits.detach()


def write(stored: Stored, count: int, kept: Sequence[int] | None, batch_size: int, folder: Path) -> None:
    """Write both programs into a new folder: for one picture's features, and for a step on `batch_size` of them.

    The classifier is the stored one's for the classes at the positions `kept`, or a new one for `count` classes.
    Raises UserError if the classifier is not a fully connected layer at the network's end.
    """
    normalise, network = load(stored)
    network = for_classes(network, stored.entry.model, 0, count, kept).eval()
    name, head = classifier(network)
    if not isinstance(head, nn.Linear):
        raise UserError(f"{stored.name}: its classifier '{name}' is not fully connected; only such layers are exported")
    backbone = copy.deepcopy(network)
    parent, _, last = name.rpartition(".")
    setattr(backbone.get_submodule(parent), last, nn.Identity())
    whole = nn.Sequential(normalise, backbone.to(memory_format=torch.contiguous_format)).eval()
    shapes = torch.zeros(batch_size, head.in_features), torch.zeros(batch_size, dtype=torch.int64)
    with atomic(folder) as partial, quiet():
        from executorch.exir import EdgeCompileConfig, to_edge
        from torch.export.experimental import _export_forward_backward

        partial.mkdir()
        write_executorch(whole, partial / FEATURES)
        step = _export_forward_backward(torch.export.export(_WithLoss(head), shapes, strict=True))
        program = to_edge(step, compile_config=EdgeCompileConfig(_check_ir_validity=False)).to_executorch()
        (partial / STEP).write_bytes(program.buffer)


@quiet()  # what is experimental says so at every call
def train(
    folder: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    batch_size: int,
    steps: int,
    rate: float,
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[float]]:
    """Train the classifier with nothing but the two programs. Returns its weights (classes, features), its biases
    (classes,) and each step's loss.

    images: (N, 64, 64, 3) uint8; labels: (N,). batch_size: as the step was written, N at least as large; what is left
    of an epoch after whole batches is left out. rate: SGD's, without momentum.
    """
    from executorch.extension.training import _load_for_executorch_for_training, get_sgd_optimizer

    features = torch.from_numpy(open_runtime("executorch", folder / FEATURES)(images))
    module, losses, optimiser, epoch = _load_for_executorch_for_training(str(folder / STEP)), list[float](), None, 0
    while len(losses) < steps:
        whole = len(labels) // batch_size
        order = np.concatenate(batch_indices(seed, epoch, len(labels), 1))[: whole * batch_size]
        for chosen in np.split(order, whole)[: steps - len(losses)]:
            loss, _ = module.forward_backward("forward", (features[chosen], torch.from_numpy(labels[chosen])))
            losses.append(float(loss))
            # The names of the parameters are known after the first pass.
            optimiser = optimiser or get_sgd_optimizer(module.named_parameters(), lr=rate)
            optimiser.step(module.named_gradients())
        epoch += 1
    weights = {name.rpartition(".")[2]: value.numpy().copy() for name, value in module.named_parameters().items()}
    return weights["weight"], weights["bias"], losses
