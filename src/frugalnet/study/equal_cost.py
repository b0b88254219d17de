"""The section "At equal cost": families of networks, an architecture at several widths each, as curves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from frugalnet.comparison import families
from frugalnet.comparison.compare import Comparison
from frugalnet.comparison.families import Family, Pair
from frugalnet.comparison.networks import Row
from frugalnet.document.blocks import Block, Cell, Chart, Grid, Section, Table
from frugalnet.document.charts import by_cost
from frugalnet.document.wording import (
    MILLISECONDS,
    Units,
    human,
    percent,
    ratio,
    scale,
    signed_points,
)
from frugalnet.metrics import curve
from frugalnet.study.cost import SLOWER, lead_point

AXES = {"macs": "MACs per image", "latency_ms": "latency at batch 1 (ms)"}


def section(comparison: Comparison, compared: Sequence[Pair]) -> Section | None:
    """The curves, and what each two families reach at equal MACs and need for equal accuracy; None without families."""
    shown = families.families(comparison.rows)
    if not shown:
        return None
    charts = [chart(shown, comparison.rows, cost) for cost in AXES]
    drawn = [chart for chart in charts if not chart.is_empty]
    in_words = [" ".join(_in_words(pair)) for pair in compared]
    measure = comparison.measure
    curves = f"{CURVES} {measure.name}."
    blocks: list[Block] = [*in_words, curves, Grid(drawn)]
    blocks += [" ".join(lines) for pair in compared if (lines := in_time(pair))]
    if compared:
        blocks += [gains(compared), f"{measure.title} {GAINS}"]
        costs = equal_accuracy(compared)
        blocks += [costs, EQUAL_ACCURACY] if costs.rows else []
    return Section("equal_cost", "At equal cost", blocks)


def sentences(compared: Sequence[Pair]) -> list[str]:
    """What two families reach at equal MACs, and need for equal accuracy, in words.

    Those that differ most, if possible of those with networks of about equal MACs.
    """
    return _in_words(max(compared, key=lambda pair: (bool(pair.measured), pair.mean_gain))) if compared else []


def summary(compared: Sequence[Pair]) -> dict[str, Any]:
    """The figures for JSON: of each two families, the gains at equal MACs, and the cost of equal accuracy."""
    return {
        f"{pair.first.name} - {pair.second.name}": {
            "at_equal_macs": [asdict(gain) for gain in pair.gains],
            "for_equal_top1": [
                {"as": equal.row.model, "top1": equal.row.lead.mean, **asdict(equal.ahead)}
                for equal in _equal_accuracy(pair)
            ],
        }
        for pair in compared
    }


def chart(shown: Sequence[Family], rows: Sequence[Row], cost: str) -> Chart:
    """Top-1 against a cost, a curve a family; empty if the cost was not measured for all of them."""
    colour = families.colours(rows)
    curves = []
    for family in shown:
        points_of = []
        for row in family.rows:
            figure = row.macs if cost == "macs" else row.latency_ms and row.latency_ms.median
            if not figure:
                return Chart(f"equal_{cost}", "", AXES[cost])
            width = f"×{families.width(row):g}"
            name = width if row is not family.rows[-1] else f"{family.name} {width}"
            point = lead_point(row, colour[row.model], figure, [f"{human(row.macs)} MACs"])
            points_of.append(replace(point, name=name, network=row.model))
        curves.append(sorted(points_of, key=lambda point: point.x))
    axis = AXES[cost]
    measure = rows[0].measure
    title = f"{measure.title} against {axis.removesuffix(' (ms)')}, by width"
    return replace(by_cost(f"equal_{cost}", title, axis, curves), y_title=f"{measure.name}, %")


def gains(compared: Sequence[Pair]) -> Table:
    """The top-1 of each two families at each MACs that both can have."""
    body = []
    for pair in compared:
        for gain in pair.gains:
            how = " and ".join(gain.pair) if gain.pair else "interpolated"
            bounds = (
                f"{signed_points(gain.interval.low)} to {signed_points(gain.interval.high)}" if gain.interval else "–"
            )
            names = f"{pair.first.name} against {pair.second.name}"
            reached = [percent(gain.first), percent(gain.second), f"{signed_points(gain.points)} points"]
            texts = [names, gain.at, *reached, bounds, how]
            body.append([*map(Cell, texts)])
    header = ("Families", "MACs", "First", "Second", "Gain", "95 % interval", "How")
    return Table("Gain at equal MACs", header, body, (0, 6), style="pairs")


def equal_accuracy(compared: Sequence[Pair]) -> Table:
    """What the family that is ahead needs to be as accurate as each network of the other."""
    body = []
    for pair in compared:
        for equal in _equal_accuracy(pair):
            own = equal.own
            ahead = equal.ahead
            texts = [
                f"{pair.first.name} as {equal.row.model}",
                percent(equal.row.lead.mean),
                _instead(ahead.macs, own.macs),
                _instead(ahead.parameters_trainable, own.parameters_trainable),
                _instead(ahead.latency_ms, own.latency_ms, MILLISECONDS),
            ]
            body.append([*map(Cell, texts)])
    header = (
        "Family, as accurate as",
        compared[0].first.rows[0].measure.title,
        "MACs",
        "Parameters",
        "Latency, batch\u00a01",
    )
    return Table("Cost of equal accuracy", header, body, style="pairs")


def _instead(cost: float | None, instead_of: float | None, units: Units = ()) -> str:
    if cost is None or instead_of is None:
        return "–"
    shown = scale([cost, instead_of], units) if units else human
    return f"{shown(cost)} instead of {shown(instead_of)} ({ratio(cost / instead_of)})"


@dataclass(frozen=True)
class _Costs:
    """None: not measured, or beyond the networks of the family."""

    macs: float | None
    parameters_trainable: float | None
    latency_ms: float | None


@dataclass(frozen=True)
class _EqualAccuracy:
    """A network of the family behind, what it costs, and what the family ahead costs at the same top-1."""

    row: Row
    own: _Costs
    ahead: _Costs


def _equal_accuracy(pair: Pair) -> list[_EqualAccuracy]:
    """Of each network of the family behind whose top-1 the family ahead has on its curve; none without a lead."""
    if pair.measured and not pair.is_real:
        return []
    ahead = pair.first
    parameters = [float(row.parameters_trainable) for row in ahead.rows]
    table = []
    for row in pair.second.rows:
        top1 = row.lead.mean
        macs = ahead.at(ahead.macs, top1)
        if macs is not None:
            own = _Costs(row.macs, row.parameters_trainable, row.latency_ms.median if row.latency_ms else None)
            needed = _Costs(macs, ahead.at(parameters, top1), ahead.at(ahead.latency, top1))
            table.append(_EqualAccuracy(row, own, needed))
    return table


def _in_words(pair: Pair) -> list[str]:
    return [sentence for sentence in (families.gained(pair), _needed(pair)) if sentence]


def _needed(pair: Pair) -> str:
    """The cost of the other family's largest network that the first family can match."""
    table = _equal_accuracy(pair)
    if not table:
        return ""
    row = table[-1].row
    macs = table[-1].ahead.macs
    if macs is None or macs >= row.macs:
        return ""
    return (
        f"For {row.model}’s accuracy, {percent(row.lead.mean)}, {pair.first.name} needs {human(macs)} MACs instead of "
        f"{human(row.macs)}: {ratio(macs / row.macs)}."
    )


def in_time(pair: Pair) -> list[str]:
    """Where latency tells another story than MACs: a network that is slower than another of about the same MACs."""
    lines: list[str] = []
    latencies = {row.model: row.latency_ms for row in (*pair.first.rows, *pair.second.rows)}
    for gain in pair.measured:
        own, other = gain.pair or ("", "")
        first, second = latencies[own], latencies[other]
        if first and second and first.median > SLOWER * second.median:
            shown = scale([first.median, second.median], MILLISECONDS)
            takes = f"{own} takes {shown(first.median)} per image, {other} {shown(second.median)}"
            lines.append(f"{'At' if lines else 'MACs are not time: at'} {gain.at} MACs {takes}.")
            reached = curve.value_at(pair.second.latency or [0], pair.second.top1, first.median)
            if reached is not None:
                against = f"{pair.second.name} reaches {percent(reached)} (interpolated), {own} {percent(gain.first)}"
                lines.append(f"At {shown(first.median)} {against}.")
    return lines


CURVES = "Each curve is one architecture at several widths; the band is the 95 % interval of each network’s"
GAINS = (
    "of the first family minus that of the second. With the names of two networks: their MACs differ by at most "
    "15 %, and the interval is paired by image. Interpolated: between the networks on both sides, straight over the "
    "logarithm of the MACs; no interval."
)
EQUAL_ACCURACY = "The first family’s costs are interpolated between its networks; none is given beyond them."
