"""A stored network's files for other runtimes, copied from a folder of weights: neither torch nor onnx is needed."""

import shutil
from pathlib import Path

from frugalnet.errors import UserError, printable
from frugalnet.export.description import LICENCE, Network
from frugalnet.export.folder import DESCRIPTION, Subject, complete, describe
from frugalnet.export.formats import FILES, Format
from frugalnet.files import atomic, write_json
from frugalnet.use.weights import Stored, check_exports


def subject_of(stored: Stored) -> Subject:
    """What the files of a stored network say that it is."""
    entry = stored.entry
    network = Network(
        name=stored.name,
        model=entry.model,
        seed=entry.seed,
        licence=LICENCE,
        data=entry.data,
        data_sha256=entry.data_sha256,
        validated_on=entry.validated_on,
        n=entry.n,
        top1=entry.top1,
        macs=entry.macs,
        source_sha256=entry.sha256,
    )
    return Subject(network, entry.side, stored.classes.ids, stored.classes.names)


def copy_exported(stored: Stored, out: Path) -> str:
    """Write a folder that stands alone from the ONNX files that lie beside stored weights; returns what it holds.

    Raises UserError if there are none, if they are not what the description says, or if `out` already exists.
    """
    entry = stored.entry
    if entry.onnx is None:
        raise UserError(f"{stored.path}: there is no ONNX file beside these weights; export them without --copy")
    subject = subject_of(stored)
    with atomic(out, is_new=True) as folder:
        folder.mkdir()
        for kind, path in check_exports(stored).items():
            shutil.copyfile(path, folder / FILES[kind])
        complete(folder, subject)
        top1: dict[Format, float | None] = {"onnx": entry.top1, "int8": entry.int8.top1 if entry.int8 else None}
        description = describe(folder, subject, top1=top1)
        write_json(folder / DESCRIPTION, description.model_dump())
    lines = [
        f"  {printable(out / name)}: {file.bytes:,} bytes"
        + (f", top-1 {file.top1:.1%}" if file.top1 is not None else "")
        for name, file in description.files.items()
    ]
    accuracy = f"top-1 on the {entry.validated_on} of {entry.data}, {entry.n:,} pictures"
    return "\n".join([f"{stored.name}, copied ({printable(accuracy)}):", *lines])
