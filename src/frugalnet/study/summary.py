"""The comparison in a few figures and sentences, for DVC's and MLflow's tables."""

from typing import Any

from frugalnet.comparison.compare import Comparison, Difference
from frugalnet.comparison.networks import Row
from frugalnet.document.wording import MILLISECONDS, human, interval, percent, points, scale
from frugalnet.study.tables import BUSY


def summary(compared: Comparison) -> dict[str, Any]:
    """What `dvc exp show` shows: the most accurate network, and the figures of each.

    `top1` (0..1; with `macro`, where that ranks the networks), `MMACs` (millions) and `ms` (median latency of one
    image) are those of the best network, as numbers to sort by and subtract. A column for each figure of each network
    is too wide for a terminal, so each network has one text, as "65.5% 23M 7.5ms". A ~ stands before a latency that was
    measured while other programs used the machine. What was not measured is left out.
    """
    best = compared.rows[0]
    figures = {"best": best.model, "top1": round(best.top1.mean, 4), "MMACs": float(f"{best.macs / 1e6:.3g}")}
    if best.macro_interval:
        figures["macro"] = round(best.lead.mean, 4)
    if best.latency_ms is not None:
        figures["ms"] = float(f"{best.latency_ms.median:.3g}")
    for row in sorted(compared.rows, key=lambda row: row.model):
        mark = BUSY if row.was_busy else ""
        latency = "" if row.latency_ms is None else f" {mark}{_short(row.latency_ms.median)}ms"
        figures[row.model] = f"{row.lead.mean:.1%} {_short(row.macs / 1e6)}M{latency}"
    return figures


def _short(value: float) -> str:
    """Two significant digits, and no decimals from ten on."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"


def of_all(compared: Comparison) -> str:
    """Every network's figures, and whether the differences are real, as Markdown."""
    lines = [f"- **{row.model}**: {_figures(row)}" for row in compared.rows]
    return "\n".join([*lines, *map(_difference, compared.differences)])


def of_one(compared: Comparison, row: Row) -> str:
    """A network's figures and how it differs from the others, as Markdown."""
    own = [pair for pair in compared.differences if row.model in (pair.first, pair.second)]
    return "\n".join([f"**{_figures(row)}**", "", *map(_difference, own)])


def _difference(pair: Difference) -> str:
    interval = pair.interval
    first = "" if interval.excludes_zero else f" {'more' if interval.estimate >= 0 else 'less'} for {pair.first}"
    return f"- {pair.wording}: {points(interval)}{first}"


def _figures(row: Row) -> str:
    latency = ""
    if row.latency_ms:
        busy = " on a busy machine" if row.was_busy else ""
        latency = f", {scale([row.latency_ms.median], MILLISECONDS)(row.latency_ms.median)} per image{busy}"
    accuracy = f"{row.measure.name} {percent(row.lead.mean)} (95 % interval {interval(row.lead_interval)})"
    if row.macro_interval:
        accuracy += f", top-1 {percent(row.top1.mean)}"
    return f"{accuracy}, {human(row.macs)} MACs{latency}"
