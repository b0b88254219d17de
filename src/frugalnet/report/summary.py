"""The few figures that `dvc exp show` and `dvc metrics diff` compare between experiments."""

from typing import Any

from frugalnet.report.comparison import Comparison


def summary(compared: Comparison) -> dict[str, Any]:
    """The most accurate network, its top-1, and for each network top-1 (0..1), millions of MACs, and milliseconds.

    Short keys and rounded values, so that a terminal shows them side by side. `ms` is the median latency of one image;
    a network that was not measured has none.
    """
    first, *_ = compared.rows
    found: dict[str, Any] = {"best": first.model, "top1": round(first.top1.mean, 4)}
    for row in sorted(compared.rows, key=lambda row: row.model):
        found[row.model] = {"top1": round(row.top1.mean, 4), "MMACs": _short(row.macs / 1e6)}
        if row.latency_ms is not None:
            found[row.model]["ms"] = _short(row.latency_ms.median)
    return found


def _short(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")
