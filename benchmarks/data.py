"""The benchmark data: the project's own `data/`, or the sample repeated to 20,000 images."""

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frugalnet import config
from frugalnet.config import Params
from frugalnet.data import arrays, sample
from frugalnet.data.augment import write_views
from frugalnet.data.config import NormaliseConfig
from frugalnet.data.normalise import normalise
from frugalnet.training.batches import Views

BATCH_SIZE = 256
IMAGES = 20_000  # of the repeated sample; also the maximum number of JPEG files
_OWN = ("archive.zip", "arrays", "views")  # the outputs of download, normalise and augment


@dataclass(frozen=True)
class Data:
    """The same images as arrays, as stored views, and as JPEG files in one folder per class."""

    description: str
    folder: Path
    dataset: arrays.Dataset
    views: Views
    jpegs: Path


def load_params() -> Params:
    """The working folder's params.yaml, with the benchmark's batch size."""
    params = config.load()
    return params.model_copy(update={"train": params.train.model_copy(update={"batch_size": BATCH_SIZE})})


def prepare(temporary: Path, params: Params) -> Data:
    """Use `data/` if it is complete, else make it from the sample. JPEG files are written to `temporary`."""
    own = Path("data")
    folder = own if all((own / name).exists() for name in _OWN) else _make(temporary / "data", params)
    dataset, views = arrays.read_dataset(folder / "arrays"), Views(folder / "views")
    for epoch in range(len(views.sha256)):  # verifies the hashes, which also loads the files into the page cache
        views.of_epoch(epoch, dataset.train.images)
    description = f"{len(dataset.train.labels):,} training images of {dataset.name}" + (
        "" if folder == own else f", made from {sample.TRAIN_PER_CLASS * len(sample.CLASSES):,} by repetition"
    )
    return Data(description, folder, dataset, views, _extract(folder / "archive.zip", temporary / "jpegs"))


def _make(folder: Path, params: Params) -> Path:
    folder.mkdir()
    processes = params.compute.processes
    sample.write_sample(folder / "archive.zip")
    every = NormaliseConfig(name="sample", classes=None, train_per_class=None, holdout=0, max_unpacked_bytes=10**9)
    normalise(folder / "archive.zip", folder / "arrays", every, is_sample=True, processes=processes)
    once = sample.TRAIN_PER_CLASS * len(sample.CLASSES)
    for path in (folder / "arrays").glob("*.npy"):
        array = np.load(path)
        np.save(path, np.tile(array, (IMAGES // once, *[1] * (array.ndim - 1))))
    augmentation = params.augment.model_copy(update={"views": params.augment.views or 4})
    write_views(folder / "arrays/train_images.npy", folder / "views", augmentation, processes=processes)
    return folder


def _extract(archive: Path, folder: Path) -> Path:
    """Write up to IMAGES training images of all classes as class/name.JPEG."""
    with zipfile.ZipFile(archive) as members:
        names = [name for name in members.namelist() if "/train/" in name and name.endswith(".JPEG")]
        for name in names[:: -(-len(names) // IMAGES)]:
            path = folder / Path(name).parent.parent.name / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            with members.open(name) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
    return folder
