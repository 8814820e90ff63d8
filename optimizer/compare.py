"""Two plans side by side: each term of their cost, power, carbon, replicas, what is shed, what
moves, what binds, and whether the difference is more than the search's own error.

Compares, decides nothing. Either side may have no plan. Colours are the CLI's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from optimizer.figures import draw_total_w
from optimizer.outcome import Outcome, SolveStatus
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.stock import Stock
from optimizer.supplies import emission_g_per_h
from sites.units import WHOLE_BP

G_PER_KG = 1_000.0
BINDING_SHOWN = 6

OPTIMAL_GAP = 1e-6
"""Relative gap below which a plan is called optimal."""

COST_TERMS = (
    ("hardware", "hardware_usd_per_h"),
    ("energy", "energy_usd_per_h"),
    ("  of it cooling", "cooling_usd_per_h"),
    ("network", "network_usd_per_h"),
    ("migration", "migration_usd_per_h"),
    ("carbon", "carbon_usd_per_h"),
    ("shedding", "shed_usd_per_h"),
    ("sites", "site_usd_per_h"),
    ("risk", "risk_usd_per_h"),
)
"""Terms of a cost as a comparison names them, and the fields they are."""

_DUST = 5e-7
_SMALL = 5e-5
_WATTS = ((1e6, "MW"), (1e3, "kW"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two: its problem and what the solve came to."""

    problem: Problem
    outcome: Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure of both sides; None where a side has no plan. `lower_is_better` None: neither."""

    name: str
    unit: str
    before: float | None
    after: float | None
    lower_is_better: bool | None = True

    @property
    def change(self) -> float | None:
        """After less before."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before

    @property
    def told_change(self) -> float:
        """The change worth telling: 0 where there is none, or only rounding."""
        change = self.change
        if change is None or abs(change) <= _DUST * max(1.0, abs(self.before or 0.0)):
            return 0.0
        return change


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Figures of two plans, and what the difference in cost proves.

    The best plan after costs between `least_usd_per_h` and `most_usd_per_h` more than the best
    before, by the bounds of both; None where a side has no plan. `moved_part` is the part of the
    traffic (output tokens) that is served elsewhere, or no longer, after.
    """

    before_status: SolveStatus
    after_status: SolveStatus
    figures: tuple[Figure, ...]
    moved_part: float | None
    least_usd_per_h: float | None
    most_usd_per_h: float | None
    binding_before: tuple[str, ...]
    binding_after: tuple[str, ...]

    @property
    def within_gaps(self) -> bool:
        """Whether the difference in cost is no more than the two gaps together."""
        least, most = self.least_usd_per_h, self.most_usd_per_h
        return least is not None and most is not None and least <= 0 <= most


def compare(before: Side, after: Side) -> Comparison:
    """Set two outcomes side by side."""
    one, other = before.outcome.plan, after.outcome.plan
    both = one is not None and other is not None
    return Comparison(
        before_status=before.outcome.status,
        after_status=after.outcome.status,
        figures=tuple(_figures(before, after)),
        moved_part=_moved_part(before.problem, one, other) if one and other else None,
        least_usd_per_h=_bound(other) - _cost(one) if both else None,
        most_usd_per_h=_cost(other) - _bound(one) if both else None,
        binding_before=_binding(before),
        binding_after=_binding(after),
    )


def _cost(plan: Plan | None) -> float:
    assert plan is not None
    return plan.cost.total_usd_per_h


def _bound(plan: Plan | None) -> float:
    assert plan is not None
    return min(plan.bound_usd_per_h, plan.cost.total_usd_per_h)


def _figures(before: Side, after: Side) -> Iterator[Figure]:
    sides = [_Measured(before), _Measured(after)]
    yield _figure("cost", "USD/h", [m.cost("total_usd_per_h") for m in sides])
    for name, term in COST_TERMS:
        pair = [m.cost(term) for m in sides]
        if any(pair):
            yield _figure(f"  {name}", "USD/h", pair)
    yield _figure("bound", "USD/h", [m.of(lambda p: p.bound_usd_per_h) for m in sides], None)
    yield _figure("gap", "%", [m.of(lambda p: p.gap * 100) for m in sides], None)
    yield _figure("power", "W", [m.of(draw_total_w) for m in sides])
    yield _figure("emission", "kg/h", [m.emission_kg_per_h() for m in sides])
    yield _figure("replicas", "", [m.of(_replicas) for m in sides], None)
    yield _figure("accelerators", "", [m.of(_accelerators) for m in sides], None)
    yield _figure("unserved", "req/s", [m.shed_rps() for m in sides])


def _figure(
    name: str, unit: str, pair: list[float | None], lower_is_better: bool | None = True
) -> Figure:
    before, after = pair
    return Figure(name=name, unit=unit, before=before, after=after, lower_is_better=lower_is_better)


class _Measured:
    """Figures of one side; None for all of them without a plan."""

    def __init__(self, side: Side) -> None:
        self._problem, self._plan = side.problem, side.outcome.plan

    def of(self, measure: Callable[[Plan], float]) -> float | None:
        return None if self._plan is None else float(measure(self._plan))

    def cost(self, term: str) -> float | None:
        return self.of(lambda plan: getattr(plan.cost, term))

    def emission_kg_per_h(self) -> float | None:
        """Power of each supply x its carbon intensity."""
        return self.of(lambda plan: emission_g_per_h(self._problem, plan.supplies) / G_PER_KG)

    def shed_rps(self) -> float | None:
        if self._plan is None:
            return None
        rates = {c.class_id: self._problem.rate_rps(c) for c in self._problem.classes}
        return sum(rates[s.class_id] * s.basis_points / WHOLE_BP for s in self._plan.shed)


def _replicas(plan: Plan) -> int:
    return sum(g.replicas for g in plan.groups)


def _accelerators(plan: Plan) -> int:
    return sum(g.replicas * g.group.accelerators_per_replica for g in plan.groups)


def _moved_part(problem: Problem, before: Plan, after: Plan) -> float:
    """Part of the output tokens before that is served at another site, or not, after."""
    old, new = _parts(before), _parts(after)
    moved = whole = 0.0
    for one in problem.classes:
        tokens = problem.rate_rps(one) * one.output_tokens
        was, now = old.get(one.class_id, {}), new.get(one.class_id, {})
        whole += tokens * sum(was.values())
        moved += tokens * sum(max(0, bp - now.get(site, 0)) for site, bp in was.items())
    return moved / whole if whole > 0 else 0.0


def _parts(plan: Plan) -> dict[str, dict[str, int]]:
    parts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for share in plan.shares:
        parts[share.class_id][share.site_id] += share.basis_points
    return parts


def _binding(side: Side) -> tuple[str, ...]:
    plan = side.outcome.plan
    if plan is None:
        return ()
    tight = Stock(Reach(side.problem), plan).binding()
    return tuple(f"{t.subject} {t.name}" for t in tight)


def comparison_lines(found: Comparison) -> Iterator[tuple[str, Figure | None]]:
    """The comparison as lines, each with its figure (None: not a figure), columns aligned."""
    yield from figure_lines(found.figures, before=found.before_status, after=found.after_status)
    if found.moved_part is not None:
        moved = f"Moved: {found.moved_part:.1%} of the traffic is served elsewhere or not at all"
        yield moved, None
    for text in _binding_text(found):
        yield text, None
    if found.least_usd_per_h is not None and found.most_usd_per_h is not None:
        for text in proof_lines(found.least_usd_per_h, found.most_usd_per_h, per="/h"):
            yield text, None


def figure_lines(
    figures: tuple[Figure, ...], *, before: SolveStatus, after: SolveStatus
) -> Iterator[tuple[str, Figure | None]]:
    """Figures, the first the cost and one the gap, as a table under the status of both sides."""
    # a side has a plan where it has a cost; what else it lacks, a bound, it lacks
    cost = figures[0]
    missing = tuple("no plan" if v is None else "none" for v in (cost.before, cost.after))
    gap = next(f for f in figures if f.name == "gap")
    status = ("status", _status(before, gap.before), _status(after, gap.after), "")
    table = [
        ("", "now", "what if", "change"),
        status,
        *(_cells(f, (missing[0], missing[1])) for f in figures),
    ]
    widths = [max(len(row[at]) for row in table) for at in range(4)]
    about: list[Figure | None] = [None, None, *figures]
    for row, figure in zip(table, about, strict=True):
        name, *cells = (
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join((name, *cells)).rstrip(), figure


def proof_lines(least: float, most: float, *, per: str = "", what: str = "plan") -> Iterator[str]:
    """What it proves that the best after costs between `least` and `most` more (USD `per`)."""
    if most - least <= _DUST:
        return
    if least <= 0 <= most:
        yield (
            f"Within the gap: the difference in cost is no more than the gaps of the two {what}s "
            f"together ({_usd(most - least)}{per}); a smaller --gap would tell"
        )
    else:
        low, high = sorted((abs(least), abs(most)))
        more = "more" if least > 0 else "less"
        yield (
            f"Proven: the best {what} costs {_usd(low)}{per} to {_usd(high)}{per} {more} "
            "after the change"
        )


def _binding_text(found: Comparison) -> Iterator[str]:
    before, after = set(found.binding_before), set(found.binding_after)
    for head, names in (
        ("Still full", [n for n in found.binding_after if n in before]),
        ("Newly full", [n for n in found.binding_after if n not in before]),
        ("No longer full", [n for n in found.binding_before if n not in after]),
    ):
        if names:
            more = f" and {len(names) - BINDING_SHOWN} more" if len(names) > BINDING_SHOWN else ""
            yield f"{head}: {', '.join(names[:BINDING_SHOWN])}{more}"


def _status(status: SolveStatus, gap_percent: float | None) -> str:
    if gap_percent is not None and abs(gap_percent) < OPTIMAL_GAP * 100:
        return "optimal"
    words = {SolveStatus.OPTIMAL: "within gap", SolveStatus.LIMIT: "stopped early"}
    return words.get(status, status.value.replace("_", " "))


def _cells(figure: Figure, missing: tuple[str, str]) -> tuple[str, str, str, str]:
    change = figure.told_change
    scale = max(abs(figure.before or 0.0), abs(figure.after or 0.0))
    told = "" if figure.change is None else "="
    if change:
        told = _amount(change, figure.unit, scale=scale, signed=True)
        if figure.before and figure.unit != "%":
            told += f" ({change / figure.before:+.1%})"
    before, after = (
        none if value is None else _amount(value, figure.unit, scale=scale)
        for value, none in zip((figure.before, figure.after), missing, strict=True)
    )
    return figure.name, before, after, told


def _usd(value: float, *, signed: bool = False) -> str:
    """Cents, and of what is below ten cents two digits that count."""
    sign = "-" if value < 0 else "+" if signed else ""
    size = abs(value)
    digits = 2 if size >= 0.1 or size < _SMALL else 4
    return f"{sign}${size:,.{digits}f}"


def _amount(value: float, unit: str, *, scale: float = 0.0, signed: bool = False) -> str:
    """A figure with its unit; `scale` is the largest of its row, so that a row has one unit."""
    plus = "+" if signed else ""
    if unit.startswith("USD"):
        return _usd(value, signed=signed) + unit.removeprefix("USD")
    if unit == "W":
        size, name = next(((s, n) for s, n in _WATTS if scale >= s), (1.0, "W"))
        return f"{value / size:{plus},.2f} {name}"
    if unit in ("", "req"):
        return f"{value:{plus},.0f} {unit}".rstrip()
    digits = 2 if unit == "%" or scale >= 0.1 or scale < _SMALL else 4
    return f"{value:{plus},.{digits}f} {unit}"
