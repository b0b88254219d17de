"""Augmented views of the training split, written once so that every architecture sees the same images.

Only this module imports albumentations, and only within functions: the processes that augment import it without torch,
which saves seconds. Every stage checks the policy before any work, which takes 0.2 s.
"""

from __future__ import annotations

import difflib
import inspect
import math
import multiprocessing
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError, field_validator
from tqdm import tqdm

from frugalnet.data.decode import IMAGE_SHAPE
from frugalnet.errors import UserError
from frugalnet.files import atomic, write_json
from frugalnet.processes import bound_resources, cores, ctrl_c_held_back, init_worker, starting_workers
from frugalnet.schema import Config

if TYPE_CHECKING:
    import albumentations

CHUNK = 1000  # images a task, and a seed: part of what decides the bytes, so no parameter
TRIAL_IMAGES, TRIAL_BYTES, TRIAL_SECONDS = 20, 10**9, 5  # what a policy is tried on, and may take in all


class Transform(Config):
    """One step of a policy: an albumentations class by its name, and its arguments."""

    model_config = ConfigDict(extra="allow")

    name: str
    p: float = Field(ge=0, le=1)  # the share of the images that it is applied to


class AugmentConfig(Config):
    """How many views, and what makes them. With 0 `views`, training uses the normalised images."""

    views: int = Field(ge=0)
    seed: int = Field(ge=0)
    policy: list[Transform]

    @field_validator("policy")
    @classmethod
    def _works(cls, policy: list[Transform]) -> list[Transform]:
        check_policy(policy)
        return policy


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
        raise UserError(f"{key}: {name}: {_one_line(error)}") from error
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


def _one_line(error: BaseException) -> str:
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
    except EOFError:  # it was ended, by one of its bounds
        refusal = (
            f"augment.policy.{position}: {policy[position].name} takes more than {TRIAL_BYTES / 1e9:.1f} GB or "
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
                raise UserError(f"{key}: {transform.name} fails on an image of {had}: {_one_line(error)}") from error
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


def augment(images: NDArray[np.uint8], config: AugmentConfig, view: int, start: int) -> NDArray[np.uint8]:
    """One augmented copy of each image, (n, 64, 64, 3) uint8; depends on the arguments alone.

    `start` is the position of the first image in the training split. It seeds all randomness, with `seed` and `view`.
    Raises UserError, naming the key and the image, if a transform fails.
    """
    policy = build_policy(config.policy)
    seeds = np.random.SeedSequence((config.seed, view, start)).generate_state(2)
    # One generator for all transforms: `set_random_seed` would give each its own with the same seed, and their draws
    # could coincide (images flipped either both ways or not at all).
    policy.set_random_state(np.random.default_rng(seeds[0]), random.Random(int(seeds[1])))
    augmented = list(np.array(images))  # in memory: mapped rows are slow to create
    # One transform after another, each on all images: a fifth faster than image by image, since its code stays in the
    # processor's caches.
    for position, transform in enumerate(policy):
        for i, image in enumerate(augmented):
            if transform.should_apply():
                try:
                    augmented[i] = _apply(transform, image)
                except Exception as error:  # with numbers that it drew on none of the trial's images
                    where = f"augment.policy.{position}: {config.policy[position].name}"
                    raise UserError(f"{where} fails on image {start + i} of view {view}: {_one_line(error)}") from error
    if wrong := {image.shape for image in augmented} - {images.shape[1:]}:
        raise UserError(f"augment.policy: makes images of {wrong.pop()} in view {view}; crop or pad last")
    return np.stack(augmented)


def _apply(transform: albumentations.BasicTransform, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Call the transform with `image=`, without its bookkeeping for boxes, masks and replay: a sixth faster."""
    data = {"image": image}
    params = transform.update_transform_params(transform.get_params(), data)
    params |= transform.get_params_dependent_on_data(params, data)
    return np.ascontiguousarray(transform.apply(image, **params))


def write_views(images: Path, folder: Path, config: AugmentConfig, *, processes: int) -> None:
    """Write the views of a .npy file, (N, 64, 64, 3) uint8, as view_0.npy … of the same shape, and views.json.

    views.json holds the SHA-256 of each 1,000 images of each view. `folder` is written whole or not at all. Its bytes
    depend on images and config, not on the number of `processes` (0: one per core).
    Raises UserError if the free disk space or the memory is too small, and OSError, naming the path, if a write fails.
    """
    size, free = config.views * images.stat().st_size, shutil.disk_usage(images.parent).free
    if size > free:
        raise UserError(f"{folder}: {config.views} views take {size / 1e9:.1f} GB, only {free / 1e9:.1f} GB are free")
    with atomic(folder) as partial:
        partial.mkdir()
        paths = [partial / f"view_{view}.npy" for view in range(config.views)]
        hashes = _write(images, paths, config, processes or cores()) if paths else {}
        write_json(partial / "views.json", {"images_per_hash": CHUNK, "sha256": hashes})
        _check_whole(partial, paths, images)


def _check_whole(folder: Path, paths: list[Path], images: Path) -> None:
    """Nothing that is not whole takes the folder's name: raises UserError unless all views and views.json are there."""
    size_bytes = {path: path.stat().st_size for path in folder.iterdir()}
    whole = size_bytes.keys() == {folder / "views.json", *paths}
    if not whole or any(size_bytes[path] < images.stat().st_size for path in paths):
        raise UserError(f"{folder} was changed while the views were written; run it again: dvc repro augment")


def _write(images: Path, paths: list[Path], config: AugmentConfig, processes: int) -> dict[str, list[str]]:
    shape = np.load(images, mmap_mode="r").shape
    for path in paths:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            offset = file.tell()
            if hasattr(os, "posix_fallocate"):  # not on macOS; allocating block by block is up to a fifth slower
                os.posix_fallocate(file.fileno(), offset, math.prod(shape))
    starts = range(0, shape[0], CHUNK)
    # One server imports albumentations, once, and the workers fork from it: it has no threads whose locks they'd copy.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["frugalnet.data.albumentations_alone", __name__])
    executor = ProcessPoolExecutor(min(processes, len(paths) * len(starts)), context, init_worker)
    try:
        with starting_workers():
            tasks = {
                path.name: [
                    executor.submit(_write_chunk, images, path, offset, config, view, start) for start in starts
                ]
                for view, path in enumerate(paths)
            }
        with tqdm(desc="augment", total=len(paths) * shape[0], unit=" images", disable=None) as bar:
            for task in as_completed(task for view in tasks.values() for task in view):
                task.result()
                bar.update(CHUNK)
        return {name: [task.result() for task in view] for name, view in tasks.items()}
    except BrokenProcessPool as error:
        raise UserError("an augmenting process was killed, short of memory?; try fewer compute.processes") from error
    finally:
        executor.shutdown(cancel_futures=True)


def _write_chunk(source: Path, target: Path, offset: int, config: AugmentConfig, view: int, start: int) -> str:
    """Augment a chunk, write it where it belongs in the view and return its SHA-256."""
    images = np.load(source, mmap_mode="r")[start : start + CHUNK]
    augmented = augment(images, config, view, start)
    # Written, not mapped: on a full disk a write fails with an error, a mapped page with SIGBUS.
    with target.open("r+b") as file:
        file.seek(offset + start * images[0].nbytes)
        file.write(augmented.data)
    return sha256(augmented.data).hexdigest()


def contact_sheet(images: NDArray[np.uint8], views: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """Write a PNG of twelve images spread over the split, each above its views.

    `images` and each of `views`: (N, 64, 64, 3) uint8 RGB.
    """
    from matplotlib.figure import Figure

    gap, size = 4, images.shape[1]
    chosen = np.linspace(0, len(images) - 1, min(12, len(images))).astype(int)
    rows = [np.asarray(row[chosen]) for row in (images, *views)]
    padded = np.pad(np.stack(rows), ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    sheet = padded.transpose(0, 2, 1, 3, 4).reshape(len(rows) * (size + gap), len(chosen) * (size + gap), 3)

    figure = Figure(figsize=(sheet.shape[1] / 75 + 1, sheet.shape[0] / 75 + 0.2), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(sheet)
    axes.set_yticks([row * (size + gap) + size / 2 for row in range(len(rows))])
    axes.set_yticklabels(["original", *(f"view {view}" for view in range(len(views)))])
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    with atomic(path) as partial:
        figure.savefig(partial, dpi=150, format="png", metadata={"Software": None})  # no version: the same bytes
