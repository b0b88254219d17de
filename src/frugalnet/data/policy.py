"""A policy of augmentation: albumentations transforms by name, tried before they are used.

albumentations is imported within functions only: the processes that augment import it without torch, which saves
seconds.
"""

from __future__ import annotations

import difflib
import inspect
import multiprocessing
import random
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ConfigDict, Field, ValidationError

from frugalnet.data.decode import IMAGE_SHAPE
from frugalnet.errors import UserError
from frugalnet.processes import bound_resources, ctrl_c_held_back
from frugalnet.schema import Config

if TYPE_CHECKING:
    import albumentations

TRIAL_IMAGES, TRIAL_BYTES, TRIAL_SECONDS = 20, 10**9, 5  # what a policy is tried on, and may take in all


class Transform(Config):
    """One step of a policy: an albumentations class by its name, and its arguments."""

    model_config = ConfigDict(extra="allow")

    name: str
    p: float = Field(ge=0, le=1)  # the share of the images that it is applied to


def build_policy(policy: Sequence[Transform]) -> albumentations.Compose:
    """The transforms, in order. Called with `image=`, (H, W, 3) uint8, the result returns {"image": …}.

    Raises UserError, naming the key, for an unknown transform, an unknown argument or a wrong value.
    """
    import albumentations

    return albumentations.Compose([_build(i, transform) for i, transform in enumerate(policy)])


def _build(position: int, transform: Transform) -> albumentations.BasicTransform:
    import albumentations

    name, arguments = transform.name, transform.model_extra or {}
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
        raise UserError(f"{key}: {name}: {one_line(error)}") from error
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


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def check_policy(policy: Sequence[Transform]) -> None:
    """Raises UserError, naming the key, unless the policy turns every image into another of the same shape and type.

    It is tried in a process of its own with bounded memory and time: some arguments take gigabytes or minutes.
    """
    if not policy:
        return
    import albumentations  # noqa: F401  # before the fork, so that it is imported once

    context = multiprocessing.get_context("fork")  # anything else would import albumentations again, for a second
    receiver, sender = context.Pipe(duplex=False)
    trial = context.Process(target=_report_trial, args=(policy, sender))
    with ctrl_c_held_back():
        trial.start()
    sender.close()
    position, refusal = 0, None
    try:
        while refusal is None:
            position, refusal = receiver.recv()
    except EOFError:  # it was ended, by one of its bounds or, as these send other signals, by somebody else
        trial.join()
        refusal = (
            "augment: the process that tries the policy was killed, short of memory?; run it again"
            if trial.exitcode == -signal.SIGKILL
            else f"augment.policy.{position}: {policy[position].name} takes more than {TRIAL_BYTES / 1e9:.1f} GB or "
            f"{TRIAL_SECONDS} s for {TRIAL_IMAGES} images; choose smaller arguments"
        )
    finally:
        trial.kill()
        trial.join()
        receiver.close()
    if refusal:
        raise UserError(refusal)


def _report_trial(policy: Sequence[Transform], sender: Connection) -> None:
    """Send the position of each transform before it is tried, and at the end why the policy is refused, or ""."""
    import cv2

    cv2.setNumThreads(0)  # a fork has none of its parent's threads
    bound_resources(TRIAL_BYTES, TRIAL_SECONDS)
    position, refusal = 0, ""
    try:
        for position in _trial(policy):
            sender.send((position, None))
    except UserError as error:
        refusal = str(error)
    sender.send((position, refusal))


def _trial(policy: Sequence[Transform]) -> Iterator[int]:
    """Build each transform and apply it to images; yields its position before. Raises UserError, naming the key."""
    rng, size = np.random.default_rng(0), IMAGE_SHAPE[0]
    # Noise, half of it of low contrast: something that every transform changes.
    images = [rng.integers(0, 256 - i % 2 * 128, IMAGE_SHAPE, np.uint8) for i in range(TRIAL_IMAGES)]
    for i, transform in enumerate(policy):
        yield i
        key, apply = f"augment.policy.{i}", _build(i, transform)
        apply.set_random_state(rng, random.Random(i))
        for argument in ("hole_height_range", "hole_width_range"):
            # albumentations would silently use the image's size instead.
            found = (transform.model_extra or {}).get(argument, [0])
            if max(found) > size:
                raise UserError(f"{key}.{argument}: a hole larger than the image, {size} pixels; found {found}")
        changed = False
        for j, before in enumerate(images):
            had = f"{before.dtype} {before.shape}"
            try:
                after = apply(image=before.copy(), force_apply=True)["image"]
            except Exception as error:  # whatever a transform raises, it can't be applied
                raise UserError(f"{key}: {transform.name} fails on an image of {had}: {one_line(error)}") from error
            made = f"{after.dtype} {after.shape}"
            if transform.p < 1 and made != had:
                raise UserError(
                    f"{key}.p: {transform.name} makes {made} of {had}, so p has to be 1; found {transform.p}"
                )
            changed = changed or made != had or not np.array_equal(after, before)
            images[j] = after
        if not changed:
            raise UserError(f"{key}: {transform.name} changes no image with these arguments; leave it out")
    for result in (f"{image.dtype} {image.shape}" for image in images):
        if result != (needed := f"uint8 {IMAGE_SHAPE}"):
            raise UserError(
                f"augment.policy: images are {result} after it; they have to stay {needed}: crop or pad last"
            )
