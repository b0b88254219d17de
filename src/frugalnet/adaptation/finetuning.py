"""Fine-tuning: which parts of a trained network go on learning, on a few pictures of a few classes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from frugalnet import models
from frugalnet.adaptation.config import Part, TuningConfig
from frugalnet.errors import UserError
from frugalnet.metrics.counts import named_layers
from frugalnet.training.batches import Examples, Normaliser, batch_indices, steps_per_epoch
from frugalnet.training.start import classifier

BLOCKS = 2  # before the classifier, of the part "blocks"


def for_classes(network: nn.Module, model: str, seed: int, count: int, kept: Sequence[int] | None = None) -> nn.Module:
    """A copy of the network that tells `count` classes.

    kept: the positions of these classes in the old network's answers, whose weights the new classifier takes. None:
    the classifier starts from random weights, which `seed` decides.
    """
    torch.manual_seed(seed)
    copy = models.build(model, count)
    state = network.state_dict()
    name, _ = classifier(network)
    for key in (key for key in state if key.rpartition(".")[0] == name):
        state[key] = copy.state_dict()[key] if kept is None else state[key][list(kept)]
    copy.load_state_dict(state)
    return copy.to(memory_format=torch.channels_last)


def modules_of(network: nn.Module, part: Part) -> list[nn.Module]:
    """The modules, without children, whose parameters are trained with a part of the network.

    classifier: the last layer. norms: that and every batch norm's scale and shift. blocks: that and the two blocks
    before it. all: everything.
    """
    last = classifier(network)[1]
    leaves = [module for module in network.modules() if not list(module.children())]
    if part == "classifier":
        return [last]
    if part == "norms":
        return [module for module in leaves if isinstance(module, _BatchNorm) or module is last]
    if part == "all":
        return leaves
    layers = [layer for _, layer in named_layers(network) if list(layer.parameters())]
    within = {id(module) for layer in layers[-1 - BLOCKS :] for module in layer.modules()}
    return [module for module in leaves if id(module) in within]


def train_only(network: nn.Module, part: Part) -> None:
    """Let the part's parameters have gradients, and its batch norms follow the batches; all else stays as it is."""
    network.eval().requires_grad_(False)
    network.training = True  # the network itself, not what it holds: one that averages answers in evaluation does not
    for module in modules_of(network, part):
        module.train().requires_grad_(True)


def trained_tensors(network: nn.Module) -> dict[str, Tensor]:
    """What training changes, so what a device has to store: the trainable parameters, their norms' statistics."""
    tensors: dict[str, Tensor] = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            tensors |= {f"{name}.{key}": value for key, value in module.named_buffers(recurse=False)}
    return tensors


def step(network: nn.Module, optimiser: torch.optim.Optimizer, inputs: Tensor, labels: Tensor) -> float:
    """One optimiser step on (n, 3, H, W) normalised inputs and (n,) labels; returns the loss."""
    optimiser.zero_grad(set_to_none=True)
    loss = cross_entropy(network(inputs), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def build_optimiser(network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=learning_rate, weight_decay=0.0)


def fine_tune(
    network: nn.Module,
    part: Part,
    examples: Examples,
    normalise: Normaliser,
    config: TuningConfig,
    seed: int,
) -> None:
    """Train a part of the network, which is changed, for `config.steps` steps.

    examples: all of their images are used, augmented as one likes. Epochs follow each other as long as there are steps;
    their order is a function of (seed, epoch). Raises UserError if a loss is not finite.
    """
    train_only(network, part)
    labels = examples.labels
    rate = getattr(config.learning_rate, part)
    optimiser = build_optimiser(network, rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda done: max(1 - done / config.steps, 0.0))
    per_epoch = steps_per_epoch(len(labels), config.batch_size)
    done = 0
    epoch = 0
    while done < config.steps:
        images = examples.images_of(epoch)
        for chosen in batch_indices(seed, epoch, len(labels), per_epoch)[: config.steps - done]:
            inputs = normalise(torch.from_numpy(np.array(images[chosen])))
            loss = step(network, optimiser, inputs, torch.from_numpy(labels[chosen]).to(normalise.device))
            if not np.isfinite(loss):
                raise UserError(f"the loss is {loss} at step {done + 1}, {part} trained; lower the rate (now {rate:g})")
            schedule.step()
            done += 1
        epoch += 1
    network.eval()
