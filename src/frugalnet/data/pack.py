"""A person's pictures → the archive that the pipeline reads: `train/<class>/<file>` and `val/<class>/<file>`."""

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from frugalnet.data import DESCRIPTION
from frugalnet.data.arrangement import Arrangement, Labelled, arrange, choose_splits, inner_classes
from frugalnet.data.config import FolderConfig
from frugalnet.data.container import Container, open_container
from frugalnet.data.examine import examine
from frugalnet.data.holdout import check_classes, draw_holdout, repeated, sizes, treat_leaks
from frugalnet.data.layout import quoted
from frugalnet.data.members import natural
from frugalnet.errors import UserError, printable
from frugalnet.files import atomic

ROWS = 40  # of the table of classes that is printed


def pack(config: FolderConfig, max_unpacked_bytes: int, path: Path, destination: Path, processes: int) -> None:
    """Write the pictures at `path`, a folder, an archive or a table, as the archive `destination`.

    It holds the files' own bytes, sorted, without times: so its hash follows from the pictures, their names, classes
    and splits. What was found is printed first. `processes`: that read; 0 means one per core. Raises UserError, naming
    the place, if no study can be made of it.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with open_container(path, max_unpacked_bytes, destination.parent) as container:
        arrangement = choose_splits(container, _read_all(container, arrange(container), processes))
        pictures = arrangement.pictures
        if arrangement.is_drawn:
            pictures = draw_holdout(pictures, config.holdout_share)
        pictures, notes = treat_leaks(pictures, config.leaks)
        notes += [*repeated(pictures), *inner_classes(arrangement)]
        if container.left_out:
            notes.insert(0, str(container.left_out))
        check_classes(pictures)
        arrangement = replace(arrangement, pictures=pictures)
        for line in _found(container, arrangement, notes):
            print(printable(line), flush=True)
        _write(container, arrangement, destination)


def _read_all(container: Container, arrangement: Arrangement, processes: int) -> Arrangement:
    """The arrangement of what are pictures that can be read, with their hashes."""
    pictures: list[Labelled] = []
    examined = examine([picture.file for picture in arrangement.pictures], processes)
    for picture, result in zip(arrangement.pictures, examined, strict=True):
        if result.reason:
            container.left_out.add(picture.name, result.reason)
        else:
            pictures.append(replace(picture, sha256=result.sha256))
    labels = {picture.label for picture in pictures}
    if empty := [picture.label for picture in arrangement.pictures if picture.label not in labels]:
        raise UserError(
            f"data.path {container.path}: class {empty[0]!r} has no picture that can be read; remove it or add some "
            f"({container.left_out})"
        )
    return replace(arrangement, pictures=pictures)


def _found(container: Container, arrangement: Arrangement, notes: Sequence[str]) -> list[str]:
    counts = sizes(arrangement.pictures)
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


def _write(container: Container, arrangement: Arrangement, destination: Path) -> None:
    members: dict[str, Labelled] = {}
    for picture in arrangement.pictures:
        name = _member(picture)
        if members.setdefault(name, picture) is not picture:
            raise UserError(f"{picture.name} and {members[name].name}: the same name in the same class")
    with atomic(destination) as partial, zipfile.ZipFile(partial, "w") as archive:
        _add(archive, DESCRIPTION, json.dumps({"validated_on": arrangement.validated_on}).encode())
        for name in sorted(members):
            data = members[name].file.read()
            if hashlib.sha256(data).hexdigest() != members[name].sha256:
                raise UserError(f"data.path {container.path}: {members[name].name} has just changed; run it again")
            _add(archive, name, data)


def _member(picture: Labelled) -> str:
    parts = [quoted(part) for part in picture.inner.split("/") if part not in ("", ".")]
    return "/".join([picture.split or "train", quoted(picture.label), *parts])


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Stored, not deflated, and without a clock: no byte depends on a version of zlib or on the day."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16
    member.create_system = 3  # Unix, whose permissions these are
    archive.writestr(member, data)
