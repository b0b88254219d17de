"""What was measured on pictures that are not clean: attacks and corruptions of the networks compared."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugalnet.errors import UserError
from frugalnet.files import read_json
from frugalnet.metrics.perturbation_figures import accuracy_kept, median_queries, success_rate
from frugalnet.metrics.statistics import Interval, mcnemar
from frugalnet.report.comparison import Comparison, Row
from frugalnet.report.wording import p_value, with_interval

INT8 = " int8"  # at the end of the name of a quantised network


def load(path: Path) -> dict[str, Any] | None:
    """What the stage `robustness` measured, or None if it was to measure nothing. Raises UserError without the file."""
    try:
        found: dict[str, Any] = read_json(path)
        return found if found["measured"] else None
    except KeyError as error:
        raise UserError(f"{path} cannot be read (no {error}): run `dvc repro`") from error


def attacks(measured: dict[str, Any], row: Row, pixels: int, method: str = "evolution") -> tuple[NDArray[Any], ...]:
    """Whether each attack succeeded and the queries that it took, both (N,)."""
    outcomes = measured["networks"][row.records[0].name]["attacks"][str(pixels)][method]
    found = np.array([one["changes"] is not None for one in outcomes], dtype=bool)
    return found, np.array([one["queries"] for one in outcomes], dtype=np.int64)


def measured_rows(comparison: Comparison) -> list[Row]:
    """The networks that were attacked or corrupted, and then what is quantised of them, as networks of their own."""
    measured = (comparison.robustness or {}).get("networks", {})
    rows = [*comparison.rows, *map(_quantised, comparison.rows)]
    return [row for row in rows if row.records[0].name in measured]


def _quantised(row: Row) -> Row:
    name = row.model + INT8
    return replace(row, model=name, records=[replace(record, model=name) for record in row.records])


def one_pixel(comparison: Comparison) -> dict[str, Interval]:
    """The share of the attacked pictures that one changed pixel makes each network misclassify."""
    measured = comparison.robustness
    if not measured or not measured["attacked"] or 1 not in measured["pixels"]:
        return {}
    return {row.model: success_rate(attacks(measured, row, 1)[0]) for row in measured_rows(comparison)}


def corruptions(measured: dict[str, Any], row: Row) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[str]]:
    """Whether each picture was classified correctly: clean (N,), corrupted (kinds, severities, N); and the kinds."""
    right = dict(measured["networks"][row.records[0].name]["right"])
    clean = np.array([*right.pop("clean")]) == "1"
    return clean, np.array([[[*digits] for digits in severities] for severities in right.values()]) == "1", [*right]


def summary(comparison: Comparison) -> dict[str, Any] | None:
    """Every figure of the section, ready for JSON; None if nothing was measured."""
    measured, networks = comparison.robustness, {}
    if measured is None:
        return None
    for row in measured_rows(comparison):
        found_of: dict[str, Any] = {}
        for pixels in measured["pixels"] if measured["attacked"] else ():
            for method in ("evolution", "random"):
                found, queries = attacks(measured, row, pixels, method)
                found_of[f"{method}_{pixels}"] = asdict(success_rate(found)) | {
                    "median_queries": median_queries(found, queries)
                }
        if measured["corrupted"]:
            clean, corrupted, kinds = corruptions(measured, row)
            found_of |= {"clean_top1": float(clean.mean()), "corrupted_top1": float(corrupted.mean())}
            found_of["kept"] = asdict(accuracy_kept(clean, corrupted))
            found_of["kept_by_kind"] = {
                kind: asdict(accuracy_kept(clean, corrupted[[i]])) for i, kind in enumerate(kinds)
            }
        networks[row.model] = found_of
    scope = {key: measured[key] for key in ("seed", "pixels", "candidates", "generations")}
    sizes = {key: len(measured[key]) for key in ("attacked", "corrupted")}
    return {**scope, **sizes, "verdict": verdict(comparison), "networks": networks, "mcnemar": paired(comparison)}


def paired(comparison: Comparison) -> dict[str, float]:
    """McNemar's p-value of the one-pixel attack, for each two networks."""
    if not one_pixel(comparison):
        return {}
    found = {row.model: attacks(comparison.robustness or {}, row, 1)[0] for row in measured_rows(comparison)}
    return {f"{a} and {b}": mcnemar(found[a], found[b]) for a, b in combinations(found, 2)}


def verdict(comparison: Comparison) -> str:
    """One sentence: of the network with the fewest MACs, and whether it fails more often than the one with the most."""
    measured, rates = comparison.robustness, one_pixel(comparison)
    rows = [row for row in measured_rows(comparison) if not row.model.endswith(INT8)]
    if not measured or not rows:
        return ""
    small, large = min(rows, key=lambda row: (row.macs, -row.top1.mean)), max(rows, key=lambda row: row.macs)
    parts = []
    if rates:
        p = mcnemar(attacks(measured, small, 1)[0], attacks(measured, large, 1)[0])
        text = f"one changed pixel fools {small.model} on {with_interval(rates[small.model])}"
        if small is not large:
            how = "significantly" if p < 0.05 else "not significantly"
            text += f" and {large.model} on {with_interval(rates[large.model])} of the same pictures, {how} different"
            text += f" (McNemar’s exact p\u00a0{p_value(p)})"
        parts.append(text)
        parts += [_against_itself(measured, row, rates) for row in rows if row.model + INT8 in rates]
    if measured["corrupted"]:
        ends = [small] if small is large else [small, large]
        kept = [f"{one.model} {with_interval(accuracy_kept(*corruptions(measured, one)[:2]))}" for one in ends]
        parts.append(f"corruptions leave {' of its accuracy and '.join(kept)} of its accuracy")
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}." if parts else ""


def _against_itself(measured: dict[str, Any], row: Row, rates: Mapping[str, Interval]) -> str:
    """Whether a network breaks more easily once it is quantised."""
    p = mcnemar(attacks(measured, row, 1)[0], attacks(measured, _quantised(row), 1)[0])
    how = f"{'significantly' if p < 0.05 else 'not significantly'} different from float32 (p\u00a0{p_value(p)})"
    return f"the int8 file of {row.model} on {with_interval(rates[row.model + INT8])}, {how}"
