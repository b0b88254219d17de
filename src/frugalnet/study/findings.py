"""What a comparison shows, computed once for HTML, Markdown, JSON, README and MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from frugalnet import recommendation
from frugalnet.comparison.comparable import recipe
from frugalnet.comparison.compare import Comparison, Evidence
from frugalnet.comparison.networks import Row
from frugalnet.document.wording import MILLISECONDS, count, human, interval, listed, percent, points, ratio, scale
from frugalnet.metrics.statistics import pareto_front
from frugalnet.paper.claims import Claim, judge
from frugalnet.study import equal_cost
from frugalnet.study.experiments import measured


@dataclass(frozen=True)
class Findings:
    """A comparison, what the experiments measured, and the conclusions."""

    evidence: Evidence
    scope: str  # what was compared
    recommendation: list[str]  # sentences
    facts: dict[str, str]  # what was run: commit, data, networks, recipe, machines
    claims: list[Claim]

    @property
    def comparison(self) -> Comparison:
        return self.evidence.comparison

    def summary(self) -> dict[str, Any]:
        """Every figure of the tables, ready for JSON: comparison.json."""
        comparison = self.comparison
        return {
            **{key: comparison.first.run[key] for key in ("is_sample", "num_classes", "validated_on")},
            "facts": self.facts,
            "notes": comparison.notes,
            "scope": self.scope,
            "recommendation": self.recommendation,
            "networks": [row.figures() for row in comparison.rows],
            "differences": [asdict(difference) for difference in comparison.differences],
            **({"equal_cost": at_equal_cost} if (at_equal_cost := equal_cost.summary(comparison)) else {}),
            "training_cost": {row.model: [asdict(reached) for reached in row.reached] for row in comparison.rows},
            "claims": [asdict(claim) for claim in self.claims],
            **{experiment.ID: experiment.summary(result, comparison) for experiment, result in measured(self.evidence)},
        }


def conclude(evidence: Evidence) -> Findings:
    """The conclusions from a comparison and its experiments."""
    comparison = evidence.comparison
    answer = [*equal_cost.sentences(comparison), *_recommendation(comparison)]
    return Findings(evidence, _scope(comparison), answer, _facts(comparison), judge(evidence))


def _facts(comparison: Comparison) -> dict[str, str]:
    run = comparison.first.run
    records = comparison.records
    commits: dict[str, set[str]] = {}  # with the files that differed from it when networks were trained
    for record in records:
        if commit := record.timing.get("mlflow.source.git.commit"):
            changed = record.timing.get("git_uncommitted_changes") or ""
            commits.setdefault(commit, set()).update(filter(None, changed.split(", ")))
    networks = [
        f"{row.model} (seed{'s' if len(row.seeds) > 1 else ''} {', '.join(map(str, row.seeds))})"
        for row in comparison.rows
    ]
    return {
        "commit": "; ".join(
            commit + (f" with uncommitted changes: {', '.join(sorted(changed))}" if changed else "")
            for commit, changed in sorted(commits.items())
        )
        or "not stated",
        "data": f"{run['data']}, {run['num_classes']} classes: {run['n_train']:,} training images, "
        f"{run['n_validation']:,} of the {run['validated_on']}",
        "data hash": run["data_sha256"],
        "views hash": run["views_sha256"],
        "networks": "; ".join(networks),
        "recipe": ", ".join(f"{key} {value}" for key, value in recipe(comparison.first).items()),
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


def _scope(comparison: Comparison) -> str:
    """What was compared, in one sentence."""
    run = comparison.first.run
    rows = comparison.rows
    data = "the sample data, which say nothing about Tiny ImageNet" if run["is_sample"] else run["data"]
    trained = dict.fromkeys(f"{count(row.epochs, 'epoch')} of recipe {row.recipe}" for row in rows)
    seeds = dict.fromkeys(count(len(row.seeds), "seed") for row in rows)
    return (
        f"{count(len(rows), 'network')} on {data}: {run['num_classes']} classes, {run['n_validation']:,} images of the "
        f"{run['validated_on']}. Trained for {' or '.join(trained)}, with {' or '.join(seeds)}."
    )


def frugal(rows: Sequence[Row]) -> Row:
    """The network to use if computation matters."""
    return rows[recommendation.frugal([row.top1.mean for row in rows], [row.macs for row in rows])]


def _recommendation(comparison: Comparison) -> list[str]:
    """Which network to use, and whether the differences are more than chance."""
    rows = comparison.rows
    best = rows[0]
    cheap = frugal(rows)
    mean = f", mean of {len(best.seeds)} seeds" if len(best.seeds) > 1 else ""
    reached = f"{percent(best.top1.mean)} top-1{mean} (95\u00a0% interval {interval(best.top1_interval)})"
    if len(rows) == 1:
        costs = f"{human(best.macs)} MACs per image"
        return [f"{best.model} reaches {reached} with {costs}. No other network is evaluated."]
    if cheap is best:
        costs = f"{human(best.macs)} MACs per image"
        return [f"Use {best.model}: it has the highest accuracy, {reached}, with {costs}.", *_others(comparison)]
    difference = comparison.difference(best.model, cheap.model)
    cost = f"{ratio(cheap.macs / best.macs)} of its MACs ({human(cheap.macs)} instead of {human(best.macs)})"
    if cheap.latency_ms and best.latency_ms:
        shown = scale([cheap.latency_ms.median, best.latency_ms.median], MILLISECONDS)
        instead = f"{shown(cheap.latency_ms.median)} instead of {shown(best.latency_ms.median)}"
        cost += f" and takes {instead} per image"
    kept = f"it keeps {ratio(cheap.top1.mean / best.top1.mean)} of {best.model}’s accuracy with {cost}."
    if difference.excludes_zero:
        only = f"If only accuracy counts, use {best.model}: {reached}, {points(difference)} more than {cheap.model}."
    else:
        only = (
            f"{best.model} reaches {reached}, which is not significantly different from {cheap.model}’s: "
            f"{points(difference)} more."
        )
    return [f"If computation matters, use {cheap.model}: {kept}", only, *_others(comparison)]


def _others(comparison: Comparison) -> list[str]:
    """Whether the lead over the second is real; which networks are Pareto-optimal, and what dominates the others."""
    rows = comparison.rows
    best, second = rows[:2]
    if second is frugal(rows):
        return [_front(comparison)]
    lead = comparison.difference(best.model, second.model)
    real = "is" if lead.excludes_zero else "is not"
    return [f"Its lead over the second, {second.model}, {real} significant: {points(lead)}.", _front(comparison)]


def _front(comparison: Comparison) -> str:
    """Which networks are Pareto-optimal, what dominates the others, and what of that is unclear."""
    rows = comparison.rows
    optimal = pareto_front(np.array([row.macs for row in rows], float), np.array([row.top1.mean for row in rows]))
    front = [row.model for row, is_optimal in zip(rows, optimal, strict=True) if is_optimal]
    dominated: list[str] = []
    unclear: list[str] = []
    for row in (row for row in rows if row.model not in front):
        ahead = [r for r in rows if r.macs <= row.macs and r.top1.mean >= row.top1.mean and r is not row]
        clearly = next((r for r in ahead if comparison.difference(r.model, row.model).low > 0), None)
        if clearly:
            dominated.append(f"{row.model} by {clearly.model}")
        else:
            more = "as many" if ahead[0].macs == row.macs else "fewer"
            unclear.append(f"{row.model} is not significantly different from {ahead[0].model}, which has {more} MACs.")
    sentences = [f"Pareto-optimal in accuracy and MACs: {listed(front)}."]
    if dominated:
        sentences.append(f"Dominated: {listed(dominated)}.")
    return " ".join([*sentences, *unclear])
