"""How networks fail on changed pictures: one-pixel attacks and common corruptions, on the same pictures for all."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import softmax
from tqdm import tqdm

from frugalnet.data.corruptions import KINDS, SEVERITIES, corrupt
from frugalnet.metrics.accuracy import predict
from frugalnet.metrics.one_pixel import Classify, Images, attack
from frugalnet.schema import Config


class RobustnessConfig(Config):
    """What to measure on how many pictures; 0 pictures: nothing."""

    seed: int = Field(ge=0)
    pictures: int = Field(ge=0)  # to attack, of those that every network classifies correctly
    pixels: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=1)]  # changed: an attack for each
    candidates: int = Field(ge=5, le=10_000)  # of a generation
    generations: int = Field(ge=1, le=1000)  # after the first, at most
    corrupted: int = Field(ge=0)  # to corrupt, of all
    int8: bool  # whether the network with the fewest MACs is measured as int8 too


def measure(
    networks: Mapping[str, Classify], images: Images, labels: NDArray[np.int64], config: RobustnessConfig
) -> dict[str, Any]:
    """All outcomes by network, ready for JSON: robustness.json.

    images: (N, 64, 64, 3) uint8; labels: (N,). `right` holds a digit for each corrupted picture, 1 if it was classified
    correctly: of the clean pictures, and of each kind of corruption by severity.
    """
    if not config.pictures and not config.corrupted:
        return {"measured": False}
    order = np.random.default_rng(config.seed).permutation(len(labels))
    answers = {name: classify(images) for name, classify in networks.items()}
    right = {name: predict(logits) == labels for name, logits in answers.items()}
    by_all = np.all([*right.values()], axis=0)
    attacked, corrupted = order[by_all[order]][: config.pictures], np.sort(order[: config.corrupted])
    found: dict[str, Any] = {
        name: {
            "confidence": softmax(answers[name][attacked].astype(np.float64), axis=1)
            .max(axis=1, initial=0)
            .round(4)
            .tolist(),
            "attacks": {
                str(pixels): _attacks(classify, images, labels, attacked, pixels, config) for pixels in config.pixels
            },
            "right": {"clean": _digits(right[name][corrupted]), **{kind: [] for kind in KINDS}},
        }
        for name, classify in networks.items()
    }
    for kind in KINDS if config.corrupted else ():
        for severity in range(1, SEVERITIES + 1):
            changed = corrupt(images[corrupted], kind, severity, config.seed, corrupted)
            for name, classify in networks.items():
                correct = predict(classify(changed)) == labels[corrupted]
                found[name]["right"][kind].append(_digits(correct))
    chosen = {"attacked": attacked.tolist(), "labels": labels[attacked].tolist(), "corrupted": corrupted.tolist()}
    return {"measured": True, **config.model_dump(), **chosen, "networks": found}


def _attacks(
    classify: Classify,
    images: Images,
    labels: NDArray[np.int64],
    attacked: NDArray[np.int64],
    pixels: int,
    config: RobustnessConfig,
) -> dict[str, list[dict[str, Any]]]:
    """The outcomes of both methods on each picture. What is random depends on the seed and the picture's index."""
    outcomes: dict[str, list[dict[str, Any]]] = {"evolution": [], "random": []}
    for i in tqdm(attacked.tolist(), f"{pixels} pixels", unit=" pictures", disable=None):
        size = (pixels, config.candidates, config.generations)
        for method, outcome in attack(classify, images[i], int(labels[i]), *size, (config.seed, i)).items():
            outcomes[method].append(asdict(outcome))
    return outcomes


def _digits(correct: NDArray[np.bool_]) -> str:
    return "".join(map(str, correct.astype(int).tolist()))
