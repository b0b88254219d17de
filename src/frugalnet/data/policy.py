"""A policy of augmentation: albumentations transforms by name, tried before they are used.

albumentations is imported within functions only: the processes that augment import it without torch, which saves
seconds.
"""

from __future__ import annotations

import difflib
import inspect
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from frugalnet.data.config import Transform
from frugalnet.errors import UserError
from frugalnet.pictures import SIDE

if TYPE_CHECKING:
    import albumentations

TRIAL_IMAGES = 20  # that a policy is tried on


def build_policy(policy: Sequence[Transform]) -> albumentations.Compose:
    """The transforms, in order. Called with `image=`, (H, W, 3) uint8, the result returns {"image": …}.

    Raises UserError, naming the key, for an unknown transform, an unknown argument or a wrong value.
    """
    import albumentations

    return albumentations.Compose([_build(i, transform) for i, transform in enumerate(policy)])


def _build(position: int, transform: Transform) -> albumentations.BasicTransform:
    import albumentations

    name = transform.name
    arguments = transform.model_extra or {}
    key = f"augment.policy.{position}"
    kinds = _kinds()
    if name not in kinds:
        similar = difflib.get_close_matches(name, kinds, 1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        version = albumentations.__version__
        raise UserError(f"{key}.name: albumentations {version} has no transform '{name}' from image to image{hint}")
    kind = kinds[name]
    known = list(inspect.signature(kind).parameters)
    for argument in arguments:
        if argument not in known:
            raise UserError(f"{key}.{argument}: not an argument of {name}, which takes: {', '.join(known)}")
    try:
        # Without `strict`, some wrong values only warn and the default is used. A class without a schema of its own has
        # no such values and does not accept `strict`.
        strict = {"strict": True} if "InitSchema" in vars(kind) else {}
        built: albumentations.BasicTransform = kind(**arguments, p=transform.p, **strict)
    except Exception as error:  # whatever a constructor raises, it can't be used
        if isinstance(error.__cause__, ValidationError):
            first = error.__cause__.errors()[0]
            place = ".".join([key, *map(str, first["loc"][:1])])  # of several arguments together, there is none
            raise UserError(f"{place}: {first['msg']} (found: {first['input']!r:.80})") from error
        raise UserError(f"{key}: {name}: {reason(error)}") from error
    return built


def _kinds() -> dict[str, type[albumentations.BasicTransform]]:
    """The transforms that a policy may name. NoOp does nothing, Lambda calls code, others make tensors or volumes.

    Those that need more than an image, such as a mask, fail on trial.
    """
    import albumentations

    bases = (albumentations.ImageOnlyTransform, albumentations.DualTransform)
    others = (albumentations.NoOp, albumentations.Transform3D)  # Lambda is a NoOp
    public = {name: kind for name, kind in vars(albumentations).items() if not name.startswith("_")}
    return {
        name: kind
        for name, kind in public.items()
        if isinstance(kind, type) and issubclass(kind, bases) and kind not in bases and not issubclass(kind, others)
    }


def reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def check_policy(policy: Sequence[Transform], side: int = SIDE) -> None:
    """Try the policy on images of `side` × `side` pixels.

    Raises UserError, naming the key, unless it turns every image into another of the same shape and type.
    """
    if not policy:
        return  # and albumentations, whose import takes a second, isn't needed
    from frugalnet.data import albumentations_alone  # noqa: F401  # before any other import of albumentations

    rng = np.random.default_rng(0)
    # Noise, half of it of low contrast: something that every transform changes.
    images = [rng.integers(0, 256 - i % 2 * 128, (side, side, 3), np.uint8) for i in range(TRIAL_IMAGES)]
    needed = _kind(images[0])
    for position, transform in enumerate(policy):
        images = _apply(position, transform, images, rng)
    for image in images:
        if _kind(image) != needed:
            raise UserError(
                f"augment.policy: images are {_kind(image)} after it; they have to stay {needed}: crop or pad last"
            )


def _apply(
    position: int, transform: Transform, images: Sequence[NDArray[Any]], rng: np.random.Generator
) -> list[NDArray[Any]]:
    """The images after this transform. Raises UserError, naming the key, if it fails or can't be meant."""
    key = f"augment.policy.{position}"
    built = _build(position, transform)
    built.set_random_state(rng, random.Random(position))
    for argument in ("hole_height_range", "hole_width_range"):
        # albumentations would silently use the image's size instead.
        sizes = (transform.model_extra or {}).get(argument, [0])
        side = max(images[0].shape[:2])
        if max(sizes) > side:
            raise UserError(f"{key}.{argument}: a hole larger than the image, {side} pixels; found {sizes}")
    results = []
    for image in images:
        try:
            result = built(image=image.copy(), force_apply=True)["image"]
        except Exception as error:  # whatever a transform raises, it can't be applied
            had = _kind(image)
            raise UserError(f"{key}: {transform.name} fails on an image of {had}: {reason(error)}") from error
        if transform.p < 1 and _kind(result) != _kind(image):
            raise UserError(
                f"{key}.p: {transform.name} makes {_kind(result)} of {_kind(image)}, so p has to be 1; "
                f"found {transform.p}"
            )
        results.append(result)
    pairs = zip(images, results, strict=True)
    if all(_kind(image) == _kind(result) and np.array_equal(image, result) for image, result in pairs):
        raise UserError(f"{key}: {transform.name} changes no image with these arguments; leave it out")
    return results


def _kind(image: NDArray[Any]) -> str:
    return f"{image.dtype} {image.shape}"
