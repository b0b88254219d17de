"""A stored network and its files for other runtimes as a version in the registry."""

import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from frugalnet import registry
from frugalnet.data.arrays import Dataset
from frugalnet.export.formats import Format
from frugalnet.export.runtimes import runnable_files
from frugalnet.files import sha256, sha256_of
from frugalnet.pictures import encode_png
from frugalnet.run import Run
from frugalnet.tracking import TrackedRun
from frugalnet.use.weights import Export, Stored, write_weights


def register(
    tracked: TrackedRun,
    stored: Stored,
    run: Run,
    data: Dataset,
    exported: Path,
    accepted: Collection[Format],
) -> None:
    """Register the network with its files for other runtimes, those of the formats that were accepted.

    exported: the folder that `write_stored` filled.
    """
    entry = stored.entry
    files = {kind: file.path for kind, file in runnable_files(exported, entry.side).items() if kind in accepted}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / stored.name
        write_weights(folder, [_with_files(stored, files, Path(temporary))])
        for path in files.values():
            shutil.copyfile(path, folder / path.name)
        how = [run.train, run.views_sha256, run.teacher, run.distributed]
        same = ("model", "seed", "data", "is_sample", "validated_on", "data_sha256", "weights_sha256", "fingerprint")
        tags = {key: str(getattr(run, key)) for key in same} | {"trained_sha256": sha256_of(how)}
        tags |= {"top1": str(entry.top1), "macs": str(entry.macs), "int8_accepted": str("int8" in accepted)}
        if entry.macro_accuracy is not None:
            tags["macro_accuracy"] = str(entry.macro_accuracy)
        tags["files_sha256"] = sha256_of({path.name: sha256(path) for path in sorted(folder.iterdir())})
        reached = f"top-1 {entry.top1:.2%} on the {entry.validated_on} of {entry.data}, {entry.macs / 1e6:.2f} M MACs"
        beside = ", ".join(path.name for path in sorted(folder.glob("model.*")))
        network = registry.Exported(
            model=entry.model,
            folder=folder,
            example=encode_png(np.array(data.validation.images[0])),
            top1=entry.top1,
            tags=tags,
            description=f"{stored.name}: {reached} an image. Beside the weights: {beside}.",
        )
        registry.register(tracked, network)


def _with_files(stored: Stored, files: Mapping[Format, Path], folder: Path) -> Stored:
    """The network with its files for ONNX Runtime beside it in the folder, so that serving it needs no PyTorch."""
    for path in (stored.path, *files.values()):
        shutil.copyfile(path, folder / path.name)
    entry = stored.entry
    for kind, path in files.items():
        if kind in ("onnx", "int8"):
            entry = entry.model_copy(update={kind: Export(file=path.name, sha256=sha256(path))})
    return stored.model_copy(update={"path": folder / stored.path.name, "entry": entry})
