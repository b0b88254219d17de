"""Image files → pixels, by several processes."""

import multiprocessing
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from frugalnet import jpeg
from frugalnet.data.members import open_archive, read_member
from frugalnet.errors import UserError
from frugalnet.pictures import SIDE, read_picture
from frugalnet.processes import cores, init_worker, starting_workers, worker_pool

CHUNK_PIXELS = 500 * 64 * 64  # of a task: what a process holds; their counts are exact in calcHist's float32

_TOLD = 5  # damaged members in one message


def decode(data: bytes, name: str, side: int = SIDE) -> NDArray[np.uint8]:
    """The (side, side, 3) uint8 RGB pixels of an image file, scaled and centre-cropped as `read_picture` does.

    Raises UserError, with `name`, for a file that is not a picture or is damaged. A JPEG of the right size is also
    damaged if the decoder warns: then it has filled a gap or skipped bytes. Not all damage leads to a warning.
    """
    is_jpeg = data.startswith(jpeg.START)
    if is_jpeg and not jpeg.has_end(data):  # some versions of OpenCV would fill it with grey
        raise UserError(f"{name} is a truncated JPEG image")
    # OpenCV gives the same pixels as Pillow in less than half of the time, and warns of damage; but it decodes a
    # photograph in full, and rounds CMYK otherwise.
    if is_jpeg and jpeg.shape(data) in ((side, side, 3), (side, side, 1)):
        image = _decode_jpeg(data, name)
        if image is not None and image.shape == (side, side, 3):
            return image
    return read_picture(data, name, side).pixels


def _decode_jpeg(data: bytes, name: str) -> NDArray[np.uint8] | None:
    """The RGB pixels of a JPEG; None if OpenCV cannot tell. Raises UserError if it warns of damage."""
    with _standard_error() as warnings:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # of a size that OpenCV doesn't even try
            return None
    if image is None:
        return None
    if warnings:
        raise UserError(f"{name} is a damaged JPEG image ({warnings[0]})")
    return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """Collect the lines that C code writes to standard error, the only place where libjpeg warns. For one thread."""
    file = _scratch()
    lines: list[str] = []
    before = os.dup(2)
    os.dup2(file, 2)
    try:
        yield lines
    finally:
        os.dup2(before, 2)
        os.close(before)
        if size := os.lseek(file, 0, os.SEEK_CUR):
            lines += os.pread(file, size, 0).decode(errors="replace").splitlines()
            os.lseek(file, 0, os.SEEK_SET)


@cache
def _scratch() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())  # open as long as the process lives


# In parallel

_zip_file: zipfile.ZipFile  # of a worker process
_outputs: dict[Path, tuple[int, int]]  # of a worker process: of each file, its descriptor and where its images begin
_side: int  # of a worker process: the images' size in pixels


@dataclass(frozen=True)
class _Task:
    output: Path
    start: int
    members: Sequence[str]


def decode_members(
    archive: Path, members: Mapping[Path, Sequence[str]], side: int, processes: int
) -> dict[Path, NDArray[np.int64]]:
    """Write each list of members to its .npy file, (N, side, side, 3) uint8 RGB; `processes` 0 means one per core.

    Returns, by file, how often each value occurs in each channel: (3, 256) int64.
    Raises UserError, naming the member, for an image that can't be decoded.
    """
    chunk = max(1, CHUNK_PIXELS // side**2)
    tasks: list[_Task] = []
    offsets: dict[Path, int] = {}  # of each file, where its images begin
    for path, names in members.items():
        with path.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), side, side, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            offsets[path] = file.tell()
        tasks += [_Task(path, start, names[start : start + chunk]) for start in range(0, len(names), chunk)]

    counts = {path: np.zeros((3, 256), np.int64) for path in members}
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
    executor = worker_pool(min(processes or cores(), len(tasks)), context, _start_worker, archive, offsets, side)
    try:
        with starting_workers():
            histograms = executor.map(_decode_task, tasks)
        with tqdm(desc="normalise", total=sum(len(t.members) for t in tasks), unit=" images", disable=None) as bar:
            for task, histogram in zip(tasks, histograms, strict=True):
                counts[task.output] += histogram
                bar.update(len(task.members))
    except (BrokenProcessPool, ConnectionError) as error:
        raise UserError("a decoding process was killed (out of memory?); try compute.processes=1") from error
    finally:
        executor.shutdown(cancel_futures=True)
    return counts


def _start_worker(archive: Path, offsets: Mapping[Path, int], side: int) -> None:
    global _zip_file, _outputs, _side
    init_worker()
    # A bad image is reported once, by its member's name.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    _zip_file = open_archive(archive)
    _side = side
    # Open from the start: a worker that outlives a killed parent by a moment can't write into the next run's files.
    _outputs = {path: (os.open(path, os.O_WRONLY), offset) for path, offset in offsets.items()}


def _decode_task(task: _Task) -> NDArray[np.int64]:
    images = np.empty((len(task.members), _side, _side, 3), np.uint8)
    damaged: list[UserError] = []
    for image, member in zip(images, task.members, strict=True):
        try:
            image[:] = decode(read_member(_zip_file, member), member, _side)
        except UserError as error:
            damaged.append(error)
    if damaged:
        more = f"; and {len(damaged) - _TOLD} more" if len(damaged) > _TOLD else ""
        raise UserError("; ".join(map(str, damaged[:_TOLD])) + more) from damaged[0]
    descriptor, offset = _outputs[task.output]
    # Written, not mapped: on a full disk a write fails with an error, a mapped page with SIGBUS.
    with open(descriptor, "wb", closefd=False) as file:
        file.seek(offset + task.start * images[0].nbytes)
        file.write(images.tobytes())
    pixels = images.reshape(-1, _side, 3)
    counts = [cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
    return np.stack(counts).astype(np.int64)
