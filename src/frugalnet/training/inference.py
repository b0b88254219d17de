"""Weights and images in, logits out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from frugalnet.errors import UserError
from frugalnet.files import atomic
from frugalnet.training.batches import Normaliser


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write parameters and buffers as safetensors, whole or not at all.

    The same tensors give the same bytes, and loading runs no code.
    """
    # Stored in the default layout: channels_last is how a tensor computes, not what it is.
    with atomic(path) as partial:
        partial.write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in weights.items()}))


def load_weights(network: nn.Module, path: Path) -> nn.Module:
    """Put stored weights into a network of the same shape and return it; raises UserError if they do not fit."""
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not the weights of this network ({reason}); train it again") from error
    return network


@torch.inference_mode()
def infer(network: nn.Module, images: np.ndarray, normalise: Normaliser, batch_size: int = 500) -> np.ndarray:
    """(N, H, W, 3) uint8 → (N, classes) float32 logits, in evaluation mode; the network's mode is put back after."""
    was_training = network.training
    network.eval()
    chunks = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    logits = [network(normalise(torch.from_numpy(np.array(chunk)))).float().cpu().numpy() for chunk in chunks]
    network.train(was_training)
    return np.concatenate(logits)
