"""Which records can be compared: evaluated on the same images, each model's seeds trained alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from frugalnet.comparison.records import Record
from frugalnet.errors import UserError
from frugalnet.files import sha256_of


@dataclass(frozen=True)
class LeftOut:
    """A record that is not comparable with the others, and why."""

    name: str
    reason: str


def comparable(records: Sequence[Record], data_sha256: str, validated_on: str) -> tuple[list[Record], list[LeftOut]]:
    """The records evaluated on these images, with one recipe per model; and the others, with the reason.

    Seeds of one model are averaged, so they must share the recipe and the views of the model's lowest seed.
    """
    kept: list[Record] = []
    left_out = []
    for record in records:
        first = next((other for other in kept if other.model == record.model), None)
        if record.run.data_sha256 != data_sha256:
            reason = f"trained and evaluated on other data ({record.run.data}, {record.run.data_sha256[:12]})"
        elif record.run.validated_on != validated_on:
            reason = f"evaluated on the {record.run.validated_on}, not on the {validated_on}"
        elif first and (different := differing(recipe_and_views(first), recipe_and_views(record))):
            reason = f"trained differently from {first.name}, so the two cannot be averaged ({different})"
        else:
            kept.append(record)
            continue
        left_out.append(LeftOut(record.name, reason))
    for record in kept:
        if not np.array_equal(record.labels, kept[0].labels):
            raise UserError(
                f"{record.name}: its labels differ from those of {kept[0].name}, although the data are the same: "
                "evaluate both again"
            )
    return kept, left_out


def recipe(record: Record) -> dict[str, Any]:
    """How a network was trained, but for its images: settings, teacher and workers."""
    run = record.run
    teacher = run.teacher
    taught = {"teacher": _teachers(teacher)} if teacher else {}
    distributed = {
        f"distributed.{key}": sha256_of(value)[:12] if isinstance(value, dict) else value  # the hashes of its code
        for key, value in (run.distributed or {}).items()
    }
    began = {"start": f"weights trained on {run.start.data}" if run.start else "random weights"}
    began = began if "start" in run.train else {}
    return {**run.train, **began, **taught, **distributed}


def _teachers(stated: Mapping[str, Any]) -> str:
    """Each teacher by its network and the beginning of its weights' hash."""
    return " and ".join(f"{each['model']} {each['sha256'][:12]}" for each in (stated, *stated.get("others", ())))


def recipe_and_views(record: Record) -> dict[str, Any]:
    """How a network was trained, with its images: recipe and views."""
    return {**recipe(record), "views": record.run.views_sha256[:12]}


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """The keys whose values differ, as "epochs 30 and 5"; empty if none does."""
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    return ", ".join(f"{key} {first.get(key)} and {second.get(key)}" for key in keys)
