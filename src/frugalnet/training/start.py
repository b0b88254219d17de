"""The weights that a training starts from: random ones, or those of a network that was trained on other images."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from frugalnet.errors import UserError


def classifier(network: nn.Module) -> tuple[str, nn.Module]:
    """The name and the module of the last layer with weights: fully connected, or a 1×1 convolution."""
    weighted = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return weighted[-1]


def start_from(network: nn.Module, path: Path) -> None:
    """Load stored weights into all layers but the classifier, which keeps its own, as other classes are to be told.

    Raises UserError if the file is missing or holds another network's weights.
    """
    last, _ = classifier(network)
    own = {key: value for key, value in network.state_dict().items() if key.rpartition(".")[0] == last}
    try:
        network.load_state_dict(load_file(path) | own)
    except (SafetensorError, RuntimeError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not weights that this network can start from ({reason})") from error
