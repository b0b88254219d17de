"""Attacks and corrupts validation pictures, the same for all networks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from tqdm import tqdm

from frugalnet.metrics.accuracy import predict
from frugalnet.robustness.config import RobustnessConfig
from frugalnet.robustness.corruptions import KINDS, SEVERITIES, corrupt
from frugalnet.robustness.one_pixel import Budget, Classify, Images, attack
from frugalnet.robustness.result import Attacks, Corruption, NetworkResult, Outcome, RobustnessResult

Labels = NDArray[np.int64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Subject:
    """A network to measure: its name and how it classifies (N, H, W, 3) uint8 pictures."""

    model: str
    seed: int
    classify: Classify
    quantised: bool = False


def measure(
    subjects: list[Subject], images: Images, labels: Labels, config: RobustnessConfig
) -> RobustnessResult | None:
    """Every outcome, by network; None if the configuration asks for no pictures.

    images: (N, H, W, 3) uint8 RGB; labels: (N,).
    """
    if not config.pictures and not config.corrupted:
        return None
    order = np.random.default_rng(config.seed).permutation(len(labels))
    logits = [subject.classify(images) for subject in subjects]
    right = [predict(answers) == labels for answers in logits]
    by_all = np.all(right, axis=0)
    attacked = order[by_all[order]][: config.pictures]
    corrupted = np.sort(order[: config.corrupted])
    pictures = _Attacked(images[attacked], labels[attacked], attacked)
    budgets = [Budget(pixels, config.candidates, config.generations) for pixels in config.pixels]
    corruptions = _corruptions(subjects, images, labels, corrupted, config.seed)
    networks = [
        NetworkResult(
            model=subject.model,
            seed=subject.seed,
            format="int8" if subject.quantised else "float32",
            confidence=_confidence(answers[attacked]),
            attacks=[_attacks(subject, pictures, budget, config.seed) for budget in budgets],
            clean=_digits(correct[corrupted]),
            corruptions=of_subject,
        )
        for subject, answers, correct, of_subject in zip(subjects, logits, right, corruptions, strict=True)
    ]
    return RobustnessResult(
        seed=config.seed,
        pixels=config.pixels,
        candidates=config.candidates,
        generations=config.generations,
        pictures=config.pictures,
        attacked=attacked.tolist(),
        labels=labels[attacked].tolist(),
        corrupted=corrupted.tolist(),
        networks=networks,
    )


def _confidence(logits: NDArray[np.floating]) -> list[float]:
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence: list[float] = probabilities.max(axis=1, initial=0).round(4).tolist()
    return confidence


@dataclass(frozen=True)
class _Attacked:
    """The pictures to attack, (n, H, W, 3), their labels, (n,), and their indices in the split, (n,)."""

    images: Images
    labels: Labels
    indices: Indices


def _attacks(subject: Subject, pictures: _Attacked, budget: Budget, seed: int) -> Attacks:
    """The outcomes of both methods on each picture. What is random depends on the seed and the picture's index."""
    evolution: list[Outcome] = []
    random: list[Outcome] = []
    title = f"{subject.model}, {budget.pixels} pixels"
    progress = tqdm(pictures.indices.tolist(), title, unit=" pictures", disable=None)
    for image, label, index in zip(pictures.images, pictures.labels.tolist(), progress, strict=True):
        outcomes = attack(subject.classify, image, label, budget, (seed, index))
        evolution.append(outcomes["evolution"])
        random.append(outcomes["random"])
    return Attacks(pixels=budget.pixels, evolution=evolution, random=random)


def _corruptions(
    subjects: list[Subject], images: Images, labels: Labels, corrupted: Indices, seed: int
) -> list[list[Corruption]]:
    """For each network, whether it classified the pictures correctly under each kind and severity of corruption."""
    if not len(corrupted):
        return [[] for _ in subjects]
    right: list[Mapping[str, list[str]]] = [{kind: [] for kind in KINDS} for _ in subjects]
    for kind in KINDS:
        for severity in range(1, SEVERITIES + 1):
            changed = corrupt(images[corrupted], kind, severity, seed, corrupted)
            for subject, of_subject in zip(subjects, right, strict=True):
                correct = predict(subject.classify(changed)) == labels[corrupted]
                of_subject[kind].append(_digits(correct))
    return [[Corruption(kind=kind, right=digits) for kind, digits in of_subject.items()] for of_subject in right]


def _digits(correct: NDArray[np.bool_]) -> str:
    return "".join("1" if right else "0" for right in correct)
