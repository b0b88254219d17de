"""Augmented views of the training split, written once so that every architecture sees the same images."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import shutil
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from frugalnet.data.config import AugmentConfig
from frugalnet.data.policy import build_policy, reason
from frugalnet.errors import UserError
from frugalnet.files import atomic, write_json
from frugalnet.processes import cores, init_worker, starting_workers, worker_pool

if TYPE_CHECKING:
    import albumentations

CHUNK = 1000  # images of 64×64 pixels a task, and a seed: part of what decides the bytes, so no parameter


def chunk_of(side: int) -> int:
    """The images of `side` pixels in a task: no more bytes than those of CHUNK small ones."""
    return min(CHUNK, CHUNK * 64**2 // side**2)


def augment(images: NDArray[np.uint8], config: AugmentConfig, view: int, start: int) -> NDArray[np.uint8]:
    """One augmented copy of each image, (n, side, side, 3) uint8; depends on the arguments alone.

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
                    raise UserError(f"{where} fails on image {start + i} of view {view}: {reason(error)}") from error
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
    """Write the views of a .npy file, (N, side, side, 3) uint8, as view_0.npy … of the same shape, and views.json.

    views.json holds the SHA-256 of each `chunk_of` images of each view. `folder` is written whole or not at all. Its
    bytes depend on images and config, not on the number of `processes` (0: one per core).
    Raises UserError if the free disk space or the memory is too small, and OSError, naming the path, if a write fails.
    """
    size = config.views * images.stat().st_size
    free = shutil.disk_usage(images.parent).free
    if size > free:
        raise UserError(f"{folder}: {config.views} views take {size:,} bytes, only {free:,} are free")
    with atomic(folder) as partial:
        partial.mkdir()
        paths = [partial / f"view_{view}.npy" for view in range(config.views)]
        hashes = _write(images, paths, config, processes or cores()) if paths else {}
        per_hash = chunk_of(np.load(images, mmap_mode="r").shape[1])
        write_json(partial / "views.json", {"images_per_hash": per_hash, "sha256": hashes})
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
    starts = range(0, shape[0], chunk_of(shape[1]))
    # One server imports albumentations, once, and the workers fork from it: it has no threads whose locks they'd copy.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["frugalnet.data.albumentations_alone", __name__])
    executor = worker_pool(min(processes, len(paths) * len(starts)), context, init_worker)
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
                bar.update(starts.step)
        return {name: [task.result() for task in view] for name, view in tasks.items()}
    except (BrokenProcessPool, EOFError, ConnectionError) as error:  # the last two: the server itself
        raise UserError("an augmenting process was killed, short of memory?; try fewer compute.processes") from error
    finally:
        executor.shutdown(cancel_futures=True)


def _write_chunk(source: Path, target: Path, offset: int, config: AugmentConfig, view: int, start: int) -> str:
    """Augment a chunk, write it where it belongs in the view and return its SHA-256."""
    images = np.load(source, mmap_mode="r")
    images = images[start : start + chunk_of(images.shape[1])]
    augmented = augment(images, config, view, start)
    # Written, not mapped: on a full disk a write fails with an error, a mapped page with SIGBUS.
    with target.open("r+b") as file:
        file.seek(offset + start * images[0].nbytes)
        file.write(augmented.data)
    return sha256(augmented.data).hexdigest()


def contact_sheet(images: NDArray[np.uint8], views: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """Write a PNG of twelve images spread over the split, each above its views.

    `images` and each of `views`: (N, side, side, 3) uint8 RGB.
    """
    from matplotlib.figure import Figure

    gap = 4  # pixels
    size = images.shape[1]
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
