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
from frugalnet.inference_mode import evaluating
from frugalnet.training.batches import Normaliser


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write parameters and buffers as safetensors, atomically.

    The same tensors give the same bytes. Loading runs no code.
    """
    # In the default layout: channels_last is only how the network computes.
    with atomic(path) as partial:
        partial.write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in weights.items()}))


def load_weights(network: nn.Module, path: Path) -> nn.Module:
    """Load stored weights into the network and return it. Raises UserError if the file is missing or does not fit."""
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not the weights of this network ({reason}); train it again") from error
    return network


def infer(network: nn.Module, images: np.ndarray, normalise: Normaliser, batch_size: int = 500) -> np.ndarray:
    """(N, H, W, 3) uint8 → (N, classes) float32 logits, in evaluation mode; the network's mode is restored.

    batch_size: of images of 64×64 pixels; of larger ones fewer, so that they take no more memory.
    """
    batch_size = max(1, batch_size * 64**2 // max(64**2, images.shape[1] * images.shape[2]))
    chunks = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    with evaluating(network):
        logits = [network(normalise(torch.from_numpy(np.array(chunk)))).float().cpu().numpy() for chunk in chunks]
    return np.concatenate(logits)
