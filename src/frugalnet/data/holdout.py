"""Which pictures train and which validate, where nobody has said so, and pictures that are in both splits."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from frugalnet.data.arrangement import SHOWN, Labelled
from frugalnet.errors import UserError


@dataclass(frozen=True)
class Hashed:
    """A picture and the SHA-256 of its file's bytes, in hexadecimal."""

    picture: Labelled
    sha256: str


def draw_holdout(pictures: Sequence[Hashed], share: float) -> list[Hashed]:
    """Each picture with its split: about a `share` of each class is "val", with a group all of it or nothing.

    A picture's own hash decides, or its group's: so adding or removing pictures moves none from one split to the other.
    For the same reason the share is not exact. Only where a class would have no picture in a split is the nearest one
    (or group) moved. Raises UserError for a class that cannot be divided.
    """
    place = {hashed.picture.name: _place(hashed) for hashed in pictures}
    held = {_key(hashed) for hashed in pictures if place[hashed.picture.name] < share}
    by_class: dict[str, dict[str, float]] = {}
    for hashed in pictures:
        by_class.setdefault(hashed.picture.label, {})[_key(hashed)] = place[hashed.picture.name]
    for label, places in by_class.items():
        if len(places) < 2:
            what = "group" if pictures[0].picture.group is not None else "picture"
            raise UserError(f"class {label!r} has a single {what}: none is left to validate on; add some")
        inside = held & places.keys()
        if not inside:
            held.add(min(places, key=places.__getitem__))
        elif len(inside) == len(places):
            held.remove(max(places, key=places.__getitem__))
    return [
        replace(hashed, picture=replace(hashed.picture, split="val" if _key(hashed) in held else "train"))
        for hashed in pictures
    ]


def _key(hashed: Hashed) -> str:
    """What is held out as a whole: a group, or all files of the same bytes."""
    group = hashed.picture.group
    return hashed.sha256 if group is None else f"group {group}"


def _place(hashed: Hashed) -> float:
    """In 0..1, evenly distributed."""
    digest = hashed.sha256 if hashed.picture.group is None else hashlib.sha256(_key(hashed).encode()).hexdigest()
    return int(digest[:16], 16) / 16**16


def check_classes(pictures: Sequence[Hashed]) -> None:
    """Raises UserError unless there are two classes or more, each with pictures in both splits."""
    train, validation = (
        {hashed.picture.label for hashed in pictures if hashed.picture.split == split} for split in ("train", "val")
    )
    if lacking := train ^ validation:
        label = min(lacking)
        where = "validation" if label in train else "training"
        more = f", and {len(lacking) - 1:,} other classes are in one split only" if len(lacking) > 1 else ""
        raise UserError(f"class {label!r} has no {where} picture{more}; add some or remove it")
    if len(train) < 2:
        raise UserError(f"expected at least two classes, found only {min(train)!r}")


def without_leaks(pictures: Sequence[Hashed], leaks: str) -> tuple[list[Hashed], list[str]]:
    """The pictures without those of the training split that are also in the other one, and what to say of them.

    Equal are files of the same bytes, and pictures of the same group. Raises UserError, with names, if there are any
    and `leaks` is "error", not "drop".
    """
    validation = {key: hashed for hashed in pictures if hashed.picture.split == "val" for key in _keys(hashed)}
    pairs: list[tuple[Hashed, Hashed]] = []
    kept: list[Hashed] = []
    for hashed in pictures:
        twin = next((validation[key] for key in _keys(hashed) if key in validation), None)
        if hashed.picture.split == "train" and twin:
            pairs.append((hashed, twin))
        else:
            kept.append(hashed)
    if not pairs:
        return kept, []
    named = "; ".join(f"{one.picture.name} and {other.picture.name}" for one, other in pairs[:SHOWN])
    more = f"; and {len(pairs) - SHOWN:,} more" if len(pairs) > SHOWN else ""
    equal = f"{len(pairs):,} training pictures are, or their group is, in the validation split too: {named}{more}"
    if leaks == "error":
        raise UserError(f"{equal}; remove them, or leave them out of training with -S data.leaks=drop")
    return kept, [f"left out of training: {equal}"]


def _keys(hashed: Hashed) -> set[str]:
    return {hashed.sha256, _key(hashed)}


def repeated(pictures: Sequence[Hashed]) -> list[str]:
    """What to say of equal pictures in two classes, and of equal ones within a class."""
    by_hash: dict[str, list[Labelled]] = {}
    for hashed in pictures:
        by_hash.setdefault(hashed.sha256, []).append(hashed.picture)
    equal = [same for same in by_hash.values() if len(same) > 1]
    across = [same for same in equal if len({picture.label for picture in same}) > 1]
    within = [same for same in equal if len({picture.label for picture in same}) == 1]
    kinds = ((across, "stand in several classes"), (within, "are there more than once in their class"))
    return [
        f"{len(sets):,} pictures {what}, as {sets[0][0].name} and {sets[0][1].name}" for sets, what in kinds if sets
    ]


def sizes(pictures: Sequence[Hashed]) -> dict[str, Counter[str]]:
    """How many pictures each class has in each split."""
    counts: dict[str, Counter[str]] = {}
    for hashed in pictures:
        assert hashed.picture.split
        counts.setdefault(hashed.picture.label, Counter())[hashed.picture.split] += 1
    return counts
