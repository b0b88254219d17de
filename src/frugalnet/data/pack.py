"""A person's pictures → the archive that the pipeline reads: `train/<class>/<file>` and `val/<class>/<file>`."""

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from frugalnet.data import DESCRIPTION
from frugalnet.data.arrangement import Arrangement, Labelled, read_arrangement
from frugalnet.data.config import FolderConfig
from frugalnet.data.container import Container, open_container
from frugalnet.data.holdout import Hashed, check_classes, draw_holdout, repeated, sizes, without_leaks
from frugalnet.data.layout import quoted
from frugalnet.data.members import natural
from frugalnet.errors import UserError, printable
from frugalnet.files import atomic
from frugalnet.pictures import MAX_BYTES, check_picture

ROWS = 40  # of the table of classes that is printed


def pack(config: FolderConfig, max_unpacked_bytes: int, path: Path, destination: Path) -> None:
    """Write the pictures at `path`, a folder, an archive or a table, as the archive `destination`.

    It holds the files' own bytes, sorted, without times: so its hash follows from the pictures, their names, classes
    and splits. What was found is printed first. Raises UserError, naming the place, if no study can be made of it.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with open_container(path, max_unpacked_bytes, destination.parent) as container:
        arrangement = read_arrangement(container)
        hashed = _hash(container, arrangement)
        if arrangement.is_drawn:
            hashed = draw_holdout(hashed, config.holdout_share)
        pictures, notes = without_leaks(hashed, config.leaks)
        notes += repeated(pictures)
        if container.left_out:
            notes.insert(0, str(container.left_out))
        check_classes(pictures)
        for line in _found(container, arrangement, pictures, notes):
            print(printable(line), flush=True)
        _write(container, arrangement, pictures, destination)


def _hash(container: Container, arrangement: Arrangement) -> list[Hashed]:
    """The pictures that can be read, with their hashes; what is seen to be damaged is left out."""
    pictures: list[Hashed] = []
    for picture in arrangement.pictures:
        data = _read(container, picture)
        try:
            check_picture(data, "")
        except UserError as error:
            container.left_out.add(picture.name, str(error).removeprefix(": "))
        else:
            pictures.append(Hashed(picture, hashlib.sha256(data).hexdigest()))
    return pictures


def _read(container: Container, picture: Labelled) -> bytes:
    file = container.find(picture.name)
    if file is None:
        raise UserError(f"data.path {container.path}: {picture.name} is gone; run it again")
    return file.read(MAX_BYTES)


def _found(
    container: Container, arrangement: Arrangement, pictures: Sequence[Hashed], notes: Sequence[str]
) -> list[str]:
    counts = sizes(pictures)
    total = sum(counts.values(), Counter[str]())
    lines = [
        f"{container.path}: {arrangement.layout}, {len(counts):,} classes, {total['train']:,} pictures to train on and "
        f"{total['val']:,} to validate on ({arrangement.validated_on})"
    ]
    width = max(len(label) for label in (*counts, "class"))
    labels = sorted(counts, key=natural)
    lines.append(f"  {'class':{width}}   train validate")
    lines += [f"  {label:{width}} {counts[label]['train']:7,} {counts[label]['val']:8,}" for label in labels[:ROWS]]
    if len(labels) > ROWS:
        trained = [counts[label]["train"] for label in labels]
        lines.append(
            f"  … {len(labels) - ROWS:,} more classes; of all, {min(trained):,} to {max(trained):,} to train on, "
            f"median {median(trained):g}"
        )
    return lines + [f"  {note}" for note in notes]


def _write(container: Container, arrangement: Arrangement, pictures: Sequence[Hashed], destination: Path) -> None:
    members: dict[str, Hashed] = {}
    for hashed in pictures:
        name = _member(hashed.picture)
        if members.setdefault(name, hashed) is not hashed:
            raise UserError(f"{hashed.picture.name} and {members[name].picture.name}: the same name in the same class")
    description = {"validated_on": arrangement.validated_on}
    with atomic(destination) as partial, zipfile.ZipFile(partial, "w") as archive:
        _add(archive, DESCRIPTION, json.dumps(description).encode())
        for name in sorted(members):
            hashed = members[name]
            data = _read(container, hashed.picture)
            if hashlib.sha256(data).hexdigest() != hashed.sha256:
                raise UserError(
                    f"data.path {container.path}: {hashed.picture.name} changed while it was read; run it again"
                )
            _add(archive, name, data)


def _member(picture: Labelled) -> str:
    parts = [quoted(part) for part in picture.file.split("/") if part not in ("", ".")]
    return "/".join([picture.split or "train", quoted(picture.label), *parts])


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Stored, not deflated, and without a clock: no byte depends on a version of zlib or on the day."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16
    member.create_system = 3  # Unix, whose permissions these are
    archive.writestr(member, data)
