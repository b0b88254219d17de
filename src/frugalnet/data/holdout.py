"""Which pictures train and which validate, where nobody has said so, and pictures that are in both splits."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from frugalnet.data.arrangement import SHOWN, Labelled
from frugalnet.data.config import Leaks
from frugalnet.errors import UserError


def draw_holdout(pictures: Sequence[Labelled], share: float) -> list[Labelled]:
    """Each picture with its split: about a `share` of each class is "val", with a group all of it or nothing.

    A picture's own hash decides, or its group's: so adding or removing pictures moves none from one split to the other.
    For the same reason the share is not exact. Only where a class would have no picture in a split is the nearest one
    (or group) moved. Raises UserError for a class that cannot be divided.
    """
    place = {picture.name: _place(picture) for picture in pictures}
    held = {_key(picture) for picture in pictures if place[picture.name] < share}
    by_class: dict[str, dict[str, float]] = {}
    for picture in pictures:
        by_class.setdefault(picture.label, {})[_key(picture)] = place[picture.name]
    for label, places in by_class.items():
        if len(places) < 2:
            what = "group" if pictures[0].group is not None else "picture"
            raise UserError(f"class {label!r} has a single {what}: none is left to validate on; add some")
        inside = held & places.keys()
        if not inside:
            held.add(min(places, key=places.__getitem__))
        elif len(inside) == len(places):
            held.remove(max(places, key=places.__getitem__))
    return [replace(picture, split="val" if _key(picture) in held else "train") for picture in pictures]


def _key(picture: Labelled) -> str:
    """What is held out as a whole: a group, or all files of the same bytes."""
    group = picture.group
    return picture.sha256 if group is None else f"group {group}"


def _place(picture: Labelled) -> float:
    """In 0..1, evenly distributed."""
    digest = picture.sha256 if picture.group is None else hashlib.sha256(_key(picture).encode()).hexdigest()
    return int(digest[:16], 16) / 16**16


def check_classes(pictures: Sequence[Labelled]) -> None:
    """Raises UserError unless there are two classes or more, each with pictures in both splits."""
    train, validation = (
        {picture.label for picture in pictures if picture.split == split} for split in ("train", "val")
    )
    if lacking := train ^ validation:
        label = min(lacking)
        where = "validation" if label in train else "training"
        more = f", and {len(lacking) - 1:,} other classes are in one split only" if len(lacking) > 1 else ""
        raise UserError(f"class {label!r} has no {where} picture{more}; add some or remove it")
    if len(train) < 2:
        raise UserError(f"expected at least two classes, found only {min(train)!r}")


def treat_leaks(pictures: Sequence[Labelled], leaks: Leaks) -> tuple[list[Labelled], list[str]]:
    """The pictures, without those to train on that are in the validation split too if `leaks` is "drop"; what to say.

    These have the same bytes as one there, or are of the same group. Raises UserError, with names, if there are any and
    `leaks` is "error".
    """
    validation = {key: picture for picture in pictures if picture.split == "val" for key in _keys(picture)}
    leaking: dict[str, Labelled] = {}
    for picture in pictures:
        twin = next((validation[key] for key in _keys(picture) if key in validation), None)
        if picture.split == "train" and twin:
            leaking[picture.name] = twin
    if not leaking:
        return list(pictures), []
    named = "; ".join(f"{name} and {twin.name}" for name, twin in list(leaking.items())[:SHOWN])
    more = f"; and {len(leaking) - SHOWN:,} more" if len(leaking) > SHOWN else ""
    found = f"{len(leaking):,} training pictures have the bytes or the group of a validation picture: {named}{more}"
    if leaks == "error":
        raise UserError(f"{found}; remove them, or leave them out of training with -S data.leaks=drop")
    if leaks == "keep":
        return list(pictures), [found]
    kept = [picture for picture in pictures if picture.name not in leaking]
    return kept, [f"left out of training: {found}"]


def _keys(picture: Labelled) -> set[str]:
    return {picture.sha256, _key(picture)}


def repeated(pictures: Sequence[Labelled]) -> list[str]:
    """What to say of equal pictures in two classes, and of equal ones within a class."""
    by_hash: dict[str, list[Labelled]] = {}
    for picture in pictures:
        by_hash.setdefault(picture.sha256, []).append(picture)
    equal = [same for same in by_hash.values() if len(same) > 1]
    across = [same for same in equal if len({picture.label for picture in same}) > 1]
    within = [same for same in equal if len({picture.label for picture in same}) == 1]
    kinds = ((across, "stand in several classes"), (within, "are there more than once in their class"))
    return [
        f"{len(sets):,} pictures {what}, as {sets[0][0].name} and {sets[0][1].name}" for sets, what in kinds if sets
    ]


def sizes(pictures: Sequence[Labelled]) -> dict[str, Counter[str]]:
    """How many pictures each class has in each split."""
    counts: dict[str, Counter[str]] = {}
    for picture in pictures:
        assert picture.split
        counts.setdefault(picture.label, Counter())[picture.split] += 1
    return counts
