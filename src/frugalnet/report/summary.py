"""The comparison in a few figures and sentences, for DVC's and MLflow's tables."""

from typing import Any

from frugalnet.report.comparison import Comparison, Row
from frugalnet.report.wording import human, interval, milliseconds, percent, points


def summary(compared: Comparison) -> dict[str, Any]:
    """What `dvc exp show` shows: the most accurate network and its top-1, then top-1, MACs and latency of each.

    Short keys and rounded values, so that a terminal shows them side by side: top-1 in 0..1, `MMACs` in millions,
    `ms` the median latency of one image. A network that was not measured has no `ms`.
    """
    best = compared.rows[0]
    found: dict[str, Any] = {"best": best.model, "top1": round(best.top1.mean, 4)}
    for row in sorted(compared.rows, key=lambda row: row.model):
        found[row.model] = {"top1": round(row.top1.mean, 4), "MMACs": _short(row.macs / 1e6)}
        if row.latency_ms is not None:
            found[row.model]["ms"] = _short(row.latency_ms.median)
    return found


def _short(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


def of_all(compared: Comparison) -> str:
    """Every network's figures, and whether the differences are real, as Markdown."""
    lines = [f"- **{row.model}**: {_figures(row)}" for row in compared.rows]
    for one in compared.differences:
        lines.append(f"- {one.wording}: {points(one.interval)}")
    return "\n".join(lines)


def of_one(compared: Comparison, row: Row) -> str:
    """A network's figures and how it differs from the others, as Markdown."""
    found = [one for one in compared.differences if row.model in (one.first, one.second)]
    lines = [f"- {one.wording}: {points(one.interval)}" for one in found]
    return "\n".join([f"**{_figures(row)}**", "", *lines])


def _figures(row: Row) -> str:
    latency = f", {milliseconds(row.latency_ms.median)} per image" if row.latency_ms else ""
    accuracy = f"top-1 {percent(row.top1.mean)} (95 % interval {interval(row.top1_interval)})"
    return f"{accuracy}, {human(row.macs)} MACs{latency}"
