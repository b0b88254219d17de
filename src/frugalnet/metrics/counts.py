"""Parameters, multiply-adds (MACs) and bytes of weights: what follows from a network alone, whole or by layer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from frugalnet.inference_mode import evaluating


def parameters_trainable(network: nn.Module) -> int:
    """The parameters that gradient descent changes: PyTorch's usual count."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def parameters_keras(network: nn.Module) -> int:
    """Keras's count, which the paper uses: a batch norm has four per channel, running mean and variance included."""
    values = [*network.parameters(), *network.buffers()]
    return sum(value.numel() for value in values if value.is_floating_point())  # without the batch counters


def weights_bytes(network: nn.Module) -> int:
    """Bytes of all stored values, parameters and buffers."""
    return sum(value.nbytes for value in network.state_dict().values())


def macs(network: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-adds of convolutions and matrix products for one (C, H, W) input."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    with FlopCounterMode(display=False) as counter, evaluating(network):
        network(_one(network, input_shape))
    return int(counter.get_total_flops()) // 2  # the counter counts a multiply-add as two


def counts(network: nn.Module, input_shape: Sequence[int]) -> dict[str, int]:
    """parameters_trainable, parameters_keras, macs for one (C, H, W) input, weights_bytes."""
    return {
        "parameters_trainable": parameters_trainable(network),
        "parameters_keras": parameters_keras(network),
        "macs": macs(network, input_shape),
        "weights_bytes": weights_bytes(network),
    }


def layers(network: nn.Module, input_shape: Sequence[int]) -> list[dict[str, Any]]:
    """One row per layer: layer, kind, output_shape (H×W×C, as in the paper), parameters_*, macs.

    For one (C, H, W) input. The network is not changed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    shapes: dict[str, str] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            channels, *size = output.shape[1:]
            shapes[name] = "×".join(map(str, [*size, channels]))

        return hook

    with ExitStack() as stack:
        for name, layer in named_layers(network):
            stack.callback(layer.register_forward_hook(note(name)).remove)
        counter = stack.enter_context(FlopCounterMode(display=False))
        stack.enter_context(evaluating(network))
        network(_one(network, input_shape))
    flops = counter.get_flop_counts()
    root = type(network).__name__
    return [
        {
            "layer": name,
            "kind": _kind(layer),
            "output_shape": shapes[name],
            "parameters_trainable": parameters_trainable(layer),
            "parameters_keras": parameters_keras(layer),
            "macs": sum(flops.get(f"{root}.{name}", {}).values()) // 2,
        }
        for name, layer in named_layers(network)
    ]


def named_layers(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The network's layers by name: its children, or the blocks of a child that is a sequence of blocks."""
    for name, child in network.named_children():
        if isinstance(child, nn.Sequential) and any(list(block.children()) for block in child):
            yield from named_layers(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _one(network: nn.Module, input_shape: Sequence[int]) -> Tensor:
    return torch.zeros(1, *input_shape, device=next(network.parameters()).device)


def _kind(layer: nn.Module) -> str:
    inner = list(layer.children())
    if isinstance(layer, nn.Conv2d):
        depthwise = "depthwise " if layer.groups == layer.in_channels > 1 else ""
        return f"{depthwise}Conv2d {layer.kernel_size[0]}×{layer.kernel_size[1]}"
    if isinstance(layer, nn.Sequential):
        return " + ".join(map(_kind, inner))
    if len(inner) == 1 and not any(list(part.children()) for part in inner[0].children()):
        return f"{type(layer).__name__}({_kind(inner[0])})"
    return type(layer).__name__
