"""What training a network takes beside its weights, when only some of its parameters are trained."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from frugalnet.inference_mode import evaluating
from frugalnet.metrics.counts import named_layers


def training_macs(network: nn.Module, inputs: Tensor) -> int:
    """Multiply-adds of one training step on the (n, C, H, W) inputs, for each of them.

    The forward pass; for each layer with trainable weights as many again for their gradients; and as many again for
    the gradients of the inputs of each layer that has a trainable parameter before it.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    with FlopCounterMode(display=False) as counter, evaluating(network):
        network(inputs[:1])
    flops = counter.get_flop_counts()
    root = type(network).__name__
    total = 0
    trained_before = False
    for name, module in network.named_modules():
        if list(module.children()):
            continue
        macs = sum(flops.get(f"{root}.{name}", {}).values()) // 2  # the counter counts a multiply-add as two
        trains_weights = any(p.requires_grad and p.ndim > 1 for p in module.parameters())
        total += macs * (1 + trains_weights + trained_before)
        trained_before |= any(p.requires_grad for p in module.parameters())
    return total


def saved_bytes(network: nn.Module, inputs: Tensor) -> dict[str, int]:
    """The bytes that a forward pass of (n, C, H, W) inputs keeps for the backward pass, by layer; weights left out.

    What several layers need is counted once, with the first that keeps it. The network stays in the mode that it is in;
    running statistics of batch norms that are in training mode move on.
    """
    by_layer: dict[str, int] = {}
    seen = {value.untyped_storage().data_ptr() for value in network.state_dict().values()}
    current = ""

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal current
            current = name
            by_layer.setdefault(name, 0)  # a network may use a layer several times

        return hook

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen and current:
            seen.add(storage.data_ptr())
            by_layer[current] += storage.nbytes()
        return tensor

    with ExitStack() as stack:
        for name, layer in named_layers(network):
            stack.callback(layer.register_forward_pre_hook(enter(name)).remove)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor))
        output = network(inputs)  # what it keeps lives as long as this does, so no address is used twice
    del output
    return by_layer
