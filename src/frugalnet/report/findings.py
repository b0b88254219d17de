"""What a comparison shows, computed once for HTML, Markdown, JSON, README and MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from frugalnet.metrics.classes import Rank, ranks
from frugalnet.metrics.statistics import pareto_front
from frugalnet.report.claims import EASIEST, HARDEST, Claim, judge
from frugalnet.report.comparison import Comparison, Row
from frugalnet.report.wording import listed, percent, points, ratio


@dataclass(frozen=True)
class Findings:
    """A comparison and its conclusions."""

    comparison: Comparison
    facts: dict[str, str]  # what was run: commit, data, networks, recipe, machines
    verdict: list[str]
    claims: list[Claim]
    paper_classes: dict[str, dict[str, list[Rank]]]  # the paper's easiest and hardest classes, by model

    def summary(self) -> dict[str, Any]:
        """Every figure of the tables, ready for JSON: comparison.json."""
        comparison = self.comparison
        return {
            **{key: comparison.first.run[key] for key in ("is_sample", "num_classes", "validated_on")},
            "facts": self.facts,
            "notes": comparison.notes,
            "verdict": self.verdict,
            "networks": [row.figures() for row in comparison.rows],
            "differences": [asdict(one) for one in comparison.differences],
            "training_cost": {row.model: [asdict(one) for one in row.reached] for row in comparison.rows},
            "claims": [asdict(one) for one in self.claims],
        }


def find(comparison: Comparison) -> Findings:
    """The conclusions from a comparison."""
    named = {"easiest": EASIEST, "hardest": HARDEST}
    return Findings(
        comparison,
        _facts(comparison),
        _verdict(comparison),
        judge(comparison),
        {kind: {row.model: ranks(row.classes, names) for row in comparison.rows} for kind, names in named.items()},
    )


def _facts(comparison: Comparison) -> dict[str, str]:
    run, records = comparison.first.run, comparison.records
    commits = {
        commit
        + (f" with uncommitted changes: {changed}" if (changed := r.timing.get("git_uncommitted_changes")) else "")
        for r in records
        if (commit := r.timing.get("mlflow.source.git.commit"))
    }
    networks = [
        f"{row.model} (seed{'s' if len(row.seeds) > 1 else ''} {', '.join(map(str, row.seeds))})"
        for row in comparison.rows
    ]
    return {
        "commit": ", ".join(sorted(commits)) or "not stated",
        "data": f"{run['data']}, {run['num_classes']} classes: {run['n_train']:,} training images, "
        f"{run['n_validation']:,} of the {run['validated_on']}",
        "data hash": run["data_sha256"],
        "views hash": run["views_sha256"],
        "networks": "; ".join(networks),
        "recipe": ", ".join(f"{key} {value}" for key, value in run["train"].items()),
        "trained on": _merged([record.run.get("environment", {}) for record in records]),
        "cost measured on": _merged([record.cost.get("machine", {}) for record in records]),
    }


def _merged(machines: Sequence[Mapping[str, Any]]) -> str:
    """Every key with all of its values, as "device cpu / cuda; threads 2"."""
    values: dict[str, dict[str, None]] = {}
    for machine in machines:
        for key, value in machine.items():
            values.setdefault(key, {})[str(value)] = None
    return "; ".join(f"{key.replace('_', ' ')} {' / '.join(each)}" for key, each in values.items()) or "not stated"


def _verdict(comparison: Comparison) -> list[str]:
    """Three statements: the most accurate network, what the cheapest one saves, and which are Pareto-optimal."""
    rows = comparison.rows
    best, run = rows[0], comparison.first.run
    sample = "Sample data say nothing about Tiny ImageNet. " if run["is_sample"] else ""
    seeds = "" if len(best.seeds) == 1 else f", mean of {len(best.seeds)} seeds"
    first = (
        f"{sample}On the {run['n_validation']:,} images of the {run['validated_on']}, {best.model} has the highest "
        f"top-1 accuracy: {percent(best.top1.mean)} (95\u00a0% interval {percent(best.top1_interval.low)} to "
        f"{percent(best.top1_interval.high)}{seeds})."
    )
    if len(rows) == 1:
        return [first, "It is the only network evaluated.", f"It costs {best.macs:,} MACs per image."]
    interval = comparison.difference(best.model, rows[1].model)
    assert interval is not None
    if interval.excludes_zero:
        first += f" It is better than the second, {rows[1].model}, by {points(interval)}."
    else:
        first += f" It is not significantly different from the second, {rows[1].model}: {points(interval)}."
    return [first, _cheapest(comparison), _pareto(comparison)]


def _cheapest(comparison: Comparison) -> str:
    rows, best = comparison.rows, comparison.rows[0]
    cheapest = min(rows, key=lambda row: (row.macs, -row.top1.mean))
    if cheapest is best:
        return f"{best.model} also has the fewest MACs, {best.macs:,} per image."
    as_cheap = [row.model for row in rows if row.macs == cheapest.macs and row is not cheapest]
    interval = comparison.difference(best.model, cheapest.model)
    assert interval is not None
    price = "It is worse by" if interval.low > 0 else "Its accuracy is not significantly different:"
    return (
        f"{cheapest.model} has the fewest MACs{f', as many as {listed(as_cheap)}' if as_cheap else ''}: "
        f"{ratio(cheapest.macs / best.macs)} of {best.model}'s, with "
        f"{ratio(cheapest.parameters_trainable / best.parameters_trainable)} of its parameters. "
        f"{price} {points(interval)}."
    )


def _pareto(comparison: Comparison) -> str:
    """Pareto-optimal by the means; dominated only where the interval of the difference excludes zero."""
    rows = comparison.rows
    optimal = pareto_front(np.array([r.macs for r in rows], float), np.array([r.top1.mean for r in rows]))
    front = [row for row, is_optimal in zip(rows, optimal, strict=True) if is_optimal]
    if len(front) == len(rows):
        return "All are Pareto-optimal in accuracy and MACs."
    dominated, unclear = [], []
    for row in (row for row, is_optimal in zip(rows, optimal, strict=True) if not is_optimal):
        ahead = [r for r in rows if r.macs <= row.macs and r.top1.mean >= row.top1.mean and r is not row]
        clearly = next((r for r in ahead if _low(comparison, r, row) > 0), None)
        if clearly:
            dominated.append(f"; {row.model} is dominated by {clearly.model}")
        else:
            more = "as many" if ahead[0].macs == row.macs else "fewer"
            unclear.append(f" {row.model} is not significantly different from {ahead[0].model}, which has {more} MACs.")
    are = "are" if len(front) > 1 else "is"
    names = listed([row.model for row in front])
    return f"{names} {are} Pareto-optimal in accuracy and MACs{''.join(dominated)}.{''.join(unclear)}"


def _low(comparison: Comparison, first: Row, second: Row) -> float:
    interval = comparison.difference(first.model, second.model)
    assert interval is not None
    return interval.low
