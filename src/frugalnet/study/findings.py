"""What a comparison shows, computed once for HTML, Markdown, JSON, README and MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frugalnet.comparison import families
from frugalnet.comparison.comparable import recipe
from frugalnet.comparison.compare import Comparison, Evidence
from frugalnet.comparison.families import Pair
from frugalnet.document.wording import count
from frugalnet.paper.claims import Claim, judge
from frugalnet.pictures import SIDE
from frugalnet.recommendation import NO_LIMIT, Budget
from frugalnet.study import equal_cost, starts
from frugalnet.study.advice import advise, no_better_than_guessing
from frugalnet.study.experiments import EXPERIMENTS


@dataclass(frozen=True)
class Findings:
    """A comparison, what the experiments measured, and the conclusions."""

    evidence: Evidence
    scope: str  # what was compared
    recommendation: list[str]  # sentences
    budget: Budget  # that it keeps to
    facts: dict[str, str]  # what was run: commit, data, networks, recipe, machines
    claims: list[Claim]
    pairs: list[Pair]  # of families, compared at equal cost

    @property
    def comparison(self) -> Comparison:
        return self.evidence.comparison

    def summary(self) -> dict[str, Any]:
        """Every figure of the tables, ready for JSON: comparison.json."""
        comparison = self.comparison
        return {
            **{key: getattr(comparison.first.run, key) for key in ("is_sample", "num_classes", "validated_on")},
            "facts": self.facts,
            "notes": comparison.notes,
            "scope": self.scope,
            "recommendation": self.recommendation,
            "networks": [row.figures() for row in comparison.rows],
            "differences": [asdict(difference) for difference in comparison.differences],
            **({"equal_cost": at_equal_cost} if (at_equal_cost := equal_cost.summary(self.pairs)) else {}),
            "training_cost": {row.model: [asdict(reached) for reached in row.reached] for row in comparison.rows},
            "claims": [asdict(claim) for claim in self.claims],
            **{key: figures for each in EXPERIMENTS for key, figures in each.figures(self.evidence).items()},
        }


def conclude(evidence: Evidence, budget: Budget = NO_LIMIT) -> Findings:
    """The conclusions from a comparison and its experiments. budget: what a network may cost that is recommended."""
    comparison = evidence.comparison
    pairs = families.pairs(comparison)
    warning = no_better_than_guessing(comparison)
    of_families = [] if warning else equal_cost.sentences(pairs)
    first, *others = advise(evidence, budget)
    advice = [first, *starts.sentences(comparison), *others]
    said = [*advice, *of_families] if budget.limits else [*of_families, *advice]
    return Findings(
        evidence=evidence,
        scope=_scope(comparison),
        recommendation=[*warning, *said],
        budget=budget,
        facts=_facts(comparison),
        claims=judge(evidence) if comparison.is_of_the_paper else [],
        pairs=pairs,
    )


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
        "data": f"{run.data}, {run.num_classes} classes: {run.n_train:,} training images, "
        f"{run.n_validation:,} of the {run.validated_on}",
        "data hash": run.data_sha256,
        "views hash": run.views_sha256,
        "networks": "; ".join(networks),
        "recipe": ", ".join(f"{key} {value}" for key, value in recipe(comparison.first).items()),
        "trained on": _merged([record.run.environment for record in records]),
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
    data = "the sample data, which say nothing about Tiny ImageNet" if run.is_sample else run.data
    sizes = f" ({side(comparison)} pixels)" if run.side != SIDE or not comparison.is_of_the_paper else ""
    trained = dict.fromkeys(f"{count(row.epochs, 'epoch')} of recipe {row.recipe}" for row in rows)
    seeds = dict.fromkeys(count(len(row.seeds), "seed") for row in rows)
    return (
        f"{count(len(rows), 'network')} on {data}: {run.num_classes} classes, {run.n_validation:,} images{sizes} "
        f"of the {run.validated_on}. Trained for {' or '.join(trained)}, with {' or '.join(seeds)}."
    ) + _unequal(comparison)


def _unequal(comparison: Comparison) -> str:
    """Why macro accuracy leads; empty where it does not."""
    if comparison.class_sizes is None:
        return ""
    smallest, largest = comparison.class_sizes
    return (
        f" The classes differ in size, from {smallest:,} to {largest:,} images, so networks are ranked by macro "
        "accuracy: the mean of the classes’ accuracies. Top-1, which frequent classes decide, stands beside it."
    )


def side(comparison: Comparison) -> str:
    """The size of the images, as 64×64."""
    pixels = comparison.first.run.side
    return f"{pixels}×{pixels}"
