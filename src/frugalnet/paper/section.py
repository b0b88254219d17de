"""The section "The paper's claims", and the ranks of the classes that the paper names."""

from collections.abc import Sequence

from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.families import Pair, gained
from frugalnet.document.blocks import Block, Cell, Section, Table
from frugalnet.document.wording import percent
from frugalnet.metrics import classes
from frugalnet.paper.claims import EASIEST, HARDEST, Claim

CLAIMS = (
    "Tong, Cho and Sun, 2017. Each measurement is followed by the rule that decides. Undecided: the evidence settles "
    "it neither way, for example because the interval includes zero. Not tested: the networks were not trained, or "
    "times not measured, as in the paper. Not judged: the rule says why."
)
EQUAL_COST = (
    "The claims on accuracy and efficiency compare networks of different cost: the depthwise ones need less than a "
    "sixth of the AlexNet-like network’s MACs."
)
SAMPLE_CLAIMS = "Sample data cannot test the paper’s claims: rerun the pipeline on Tiny ImageNet for a table of them."


def section(claims: Sequence[Claim], comparison: Comparison, pairs: Sequence[Pair]) -> Section:
    """Every claim with what was measured and the outcome, and what the networks reach at equal cost."""
    is_sample = comparison.first.run.is_sample
    blocks: list[Block] = [SAMPLE_CLAIMS] if is_sample else [CLAIMS, _table(claims)]
    at_equal_cost = [gained(pair) for pair in pairs]
    blocks += [f"{EQUAL_COST} {' '.join(at_equal_cost)}"] if at_equal_cost and not is_sample else []
    return Section("claims", "The paper’s claims", blocks)


def class_ranks(comparison: Comparison) -> Table | None:
    """The paper's easiest and hardest classes and their ranks here; None if the data have none of them."""
    models = [row.model for row in comparison.rows]
    rows = []
    for kind, names in (("easiest", EASIEST), ("hardest", HARDEST)):
        for ranks in zip(*(classes.ranks(row.classes, names) for row in comparison.rows), strict=True):
            places = [Cell(f"{rank.rank} of {rank.count}", (percent(rank.accuracy, 0),)) for rank in ranks]
            rows.append([Cell(ranks[0].name), Cell(kind), *places])
    return Table("The paper’s classes", ("Class", "The paper", *models), rows, (0, 1)) if rows else None


def _table(claims: Sequence[Claim]) -> Table:
    rows = [
        [
            Cell(claim.says, (f"section {claim.section}",)),
            Cell(claim.measured, (claim.rule,)),
            Cell(claim.outcome, style=f"outcome {claim.outcome.replace(' ', '-')}"),
        ]
        for claim in claims
    ]
    header = ("What the paper says", "Measured here", "Outcome")
    return Table("The paper’s claims", header, rows, (0, 1, 2), "prose claims")
