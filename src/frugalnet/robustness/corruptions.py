"""Common corruptions of pictures, by albumentations' transforms.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019: fifteen
kinds, each of five severities. Two are missing here: frost needs photographs of frost, and the snow of albumentations
2.0.8 turns bright pixels green or black. Fog is its plasma, a fractal as the authors'. Where a transform takes the same
quantity, its values are those of the authors' Tiny ImageNet-C; elsewhere they are five steps from slight to strong.
"""

import random

import numpy as np
from numpy.typing import NDArray

from frugalnet.data.config import Transform
from frugalnet.data.policy import build_policy
from frugalnet.errors import UserError

SEVERITIES = 5
_AREA, _NEAREST, _REFLECT = 3, 0, 4  # as OpenCV numbers them

# Of each kind: albumentations' class, the arguments of all severities, and those of severities 1 to 5.
_KINDS: dict[str, tuple[str, dict[str, object], list[dict[str, object]]]] = {
    "Gaussian noise": ("GaussNoise", {}, [{"std_range": [c, c]} for c in (0.04, 0.08, 0.12, 0.15, 0.18)]),
    "shot noise": ("ShotNoise", {}, [{"scale_range": [1 / c, 1 / c]} for c in (250, 100, 50, 30, 15)]),
    "impulse noise": ("SaltAndPepper", {}, [{"amount": [c, c]} for c in (0.01, 0.02, 0.05, 0.08, 0.14)]),
    "defocus blur": (
        "Defocus",
        {},
        [{"radius": [r, r], "alias_blur": [a, a]} for r, a in ((1, 0.1), (1, 0.8), (2, 0.1), (2, 0.8), (3, 0.1))],
    ),
    "glass blur": (
        "GlassBlur",
        {},
        [
            {"sigma": sigma, "max_delta": delta, "iterations": times}
            for sigma, delta, times in ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2))
        ],
    ),
    "motion blur": ("MotionBlur", {"allow_shifted": False}, [{"blur_limit": [c, c]} for c in (3, 5, 7, 9, 11)]),
    "zoom blur": (
        "ZoomBlur",
        {"step_factor": [0.01, 0.01]},
        [{"max_factor": [c, c]} for c in (1.06, 1.11, 1.16, 1.21, 1.26)],
    ),
    "fog": (
        "PlasmaBrightnessContrast",
        {"roughness": 0.4},
        [{"brightness_range": [c, c], "contrast_range": [-c, -c]} for c in (0.2, 0.35, 0.5, 0.65, 0.8)],
    ),
    "brightness": (
        "RandomBrightnessContrast",
        {"contrast_limit": [0, 0]},
        [{"brightness_limit": [c, c]} for c in (0.1, 0.2, 0.3, 0.4, 0.5)],
    ),
    "contrast": (
        "ColorJitter",
        {"brightness": [1, 1], "saturation": [1, 1], "hue": [0, 0]},
        [{"contrast": [c, c]} for c in (0.4, 0.3, 0.2, 0.1, 0.05)],
    ),
    "elastic transform": (
        "ElasticTransform",
        {"sigma": 4, "border_mode": _REFLECT},
        [{"alpha": c} for c in (10, 20, 30, 40, 50)],
    ),
    "pixelation": (
        "Downscale",
        {"interpolation_pair": {"downscale": _AREA, "upscale": _NEAREST}},
        [{"scale_range": [c, c]} for c in (0.9, 0.8, 0.7, 0.6, 0.5)],
    ),
    "JPEG compression": ("ImageCompression", {}, [{"quality_range": [c, c]} for c in (65, 58, 50, 40, 25)]),
}
KINDS = tuple(_KINDS)


def corrupt(
    images: NDArray[np.uint8], kind: str, severity: int, seed: int, indices: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Corrupted copies of pictures, (N, 64, 64, 3) uint8 RGB. Severity 0 changes nothing.

    What is random depends on the seed and on the picture's index in its split, (N,), alone.
    Raises UserError for an unknown kind or severity.
    """
    if kind not in _KINDS or severity not in range(SEVERITIES + 1):
        raise UserError(f"corruption '{kind}' of severity {severity}: expected 0 to {SEVERITIES} of {', '.join(KINDS)}")
    if severity == 0:
        return images.copy()
    name, common, by_severity = _KINDS[kind]
    transform = build_policy([Transform(name=name, p=1.0, **common, **by_severity[severity - 1])])
    corrupted = np.empty_like(images)
    for i, (image, index) in enumerate(zip(images, indices, strict=True)):
        numbers, other = np.random.SeedSequence((seed, int(index))).spawn(2)
        transform.set_random_state(np.random.default_rng(numbers), random.Random(int(other.generate_state(1)[0])))
        corrupted[i] = transform(image=np.array(image))["image"]
    return corrupted
