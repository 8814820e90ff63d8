"""What must give way where not every limit can hold: for mending, and for saying what to relax.

Limits become elastic, their excess costs what the problem's own prices say it would, and the
cheapest excess is found. Two uses: a limit that what runs now already breaks is granted the least
slack that a move limit forces on it ("mend it, never worsen it"); an infeasible problem is
explained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyomo.environ as pyo

from optimizer.costs import (
    draw_w,
    possible_draw_w,
    shed_price_usd_per_h,
)
from optimizer.milp.constraints import add_rows
from optimizer.milp.constraints_mix import G_PER_KG
from optimizer.milp.formulate import budget_of
from optimizer.milp.highs import PointStatus, compile_model, run
from optimizer.milp.inputs import take_inputs
from optimizer.milp.model import (
    COUNTED_FAMILIES,
    ELASTIC_FAMILIES,
    Elasticity,
    Formulation,
    RowKey,
    kw,
    start_formulation,
)
from optimizer.outcome import Relaxation
from optimizer.plan import CandidateArc, PlannedGroup
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.supplies import G_PER_T, by_price, cleanest_g_per_h, supply_price_usd_per_w_h
from sites.fleet import at_period
from sites.traffic import TrafficClass
from sites.units import MS_PER_S, W_PER_KW, WHOLE_BP

_DUST = 1e-6
_HEAVIEST = 1e6
_LIGHTEST = 1e-9
_MENDED = ("pool_accelerators", "site_power", "supply_limit", "replica_cap", "carbon_cap")
_GIVING = (*ELASTIC_FAMILIES, "latency_mix", "quality_floor", "tenant_budget", "carbon_cap")
_PHYSICAL = ("pool_accelerators", "site_power", "supply_limit", "link_bandwidth")
_GB_PER_H_PER_MBIT_S = 3_600 / 8 / 1_000


def mending_slack(problem: Problem, arcs: Iterable[CandidateArc]) -> dict[RowKey, float]:
    """The least slack that a move limit forces on limits which what runs now already breaks.

    Never more than what runs now takes. Empty without a move limit: then every such limit can be
    met at once.
    """
    if not may_need_mending(problem):
        return {}
    found = _least_excess(problem, arcs, families=_MENDED, at_most=_broken_now(problem))
    return {} if found is None else found.excess


def least_mending(problem: Problem) -> tuple[dict[RowKey, float], dict[str, int]] | None:
    """`mending_slack` where all traffic is shed, with the replicas by group id that the fewest
    moves lead to; None where no slack on limits that are mended is enough.
    """
    most = _broken_now(problem)
    found = _least_excess(problem, (), families=_MENDED, at_most=most, few_moves=True)
    return None if found is None else (found.excess, found.replicas)


def may_need_mending(problem: Problem) -> bool:
    """Whether what runs now breaks a limit that a move limit may keep from being met at once."""
    return problem.plan_policy.move_limit_replicas is not None and bool(_broken_now(problem))


def _broken_now(problem: Problem) -> dict[RowKey, float]:
    """How far what runs now, at sites not lost, exceeds each limit a plan would have to mend."""
    reach = Reach(problem)
    running = [
        PlannedGroup(group=r.group, replicas=r.replicas)
        for r in problem.running
        if reach.point(r.group) is not None and r.group.site_id not in problem.lost_sites
    ]
    over: dict[RowKey, float] = {}
    for site_id, possible_w in possible_draw_w(reach, running).items():
        budget_w = at_period(problem.fleet.site(site_id).power_budget_w, problem.period)
        over["site_power", site_id] = kw(possible_w - budget_w)
    for site_id, idle_w in draw_w(reach, running, ()).items():
        supplies = by_price(problem, problem.fleet.site(site_id))
        missing_w = idle_w - sum(at_period(k.limit_w, problem.period) for k in supplies)
        # one supply alone, and the one `supply_stack` overflows into: slack on each would add up
        over["supply_limit", f"{site_id}/{supplies[-1].supply_id}"] = kw(missing_w)
    for pool_id, used in _counted(running, by_pool=True).items():
        site_id, _, name = pool_id.partition("/")
        count = problem.fleet.site(site_id).pool(name).count
        over["pool_accelerators", pool_id] = float(used - count)
    over["carbon_cap", "fleet"] = _emission_over_kg_per_h(problem, draw_w(reach, running, ()))
    copies = _counted(running, by_pool=False)
    for bound in problem.plan_policy.replica_bounds:
        subject = f"{bound.site_id}/{bound.variant_id}"
        if bound.most is not None and subject in copies:
            excess = float(copies[subject] - bound.most)
            over["replica_cap", subject] = max(over.get(("replica_cap", subject), 0.0), excess)
    return {key: excess for key, excess in over.items() if excess > 0}


def _emission_over_kg_per_h(problem: Problem, idle_w: Mapping[str, float]) -> float:
    """How far sites drawing so much emit more than the carbon cap, each at its cleanest."""
    cap = problem.plan_policy.carbon_cap_g_per_h
    if cap is None:
        return 0.0
    least = sum(
        cleanest_g_per_h(problem, problem.fleet.site(site_id), watts=watts)
        for site_id, watts in sorted(idle_w.items())
    )
    return (least - cap) / G_PER_KG


def _counted(running: Iterable[PlannedGroup], *, by_pool: bool) -> dict[str, int]:
    """Accelerators in use by ``site/pool``, or replicas by ``site/variant``."""
    counted: dict[str, int] = {}
    for one in running:
        group = one.group
        subject = f"{group.site_id}/{group.pool_id if by_pool else group.variant_id}"
        size = group.accelerators_per_replica if by_pool else 1
        counted[subject] = counted.get(subject, 0) + one.replicas * size
    return counted


def relaxations(
    problem: Problem, arcs: Iterable[CandidateArc]
) -> tuple[tuple[Relaxation, ...], ...]:
    """Ways to make an infeasible problem feasible, cheapest first; each way is complete by itself.

    Each row family alone, then the physical ones together, then all together where no way before
    was enough.
    """
    kept = tuple(arcs)
    ways = _ways(problem, kept, choices=[(family,) for family in _GIVING])
    alone = {r.code for way in ways for r in way}
    if not alone & set(_PHYSICAL):
        ways += _ways(problem, kept, choices=[_PHYSICAL])
    if not ways:
        ways = _ways(problem, kept, choices=[_GIVING])
    ways.sort(key=lambda way: (sum(r.price_usd_per_h for r in way), way[0].code))
    return tuple(tuple(replace(r, way=at) for r in way) for at, way in enumerate(ways))


def shortfall(problem: Problem, arcs: Iterable[CandidateArc]) -> tuple[tuple[Relaxation, ...], ...]:
    """As `relaxations`, by more shedding and by more hardware, power and links alone; none unless
    one of the two is proven to be needed.
    """
    kept = tuple(arcs)
    ways, is_proven = [], False
    for families in (("shed_cap",), _PHYSICAL):
        found = _least_excess(problem, kept, families=families)
        if found is not None and found.excess:
            ways.append(_way(problem, kept, found))
            is_proven |= found.is_proven
    ways.sort(key=lambda way: (sum(r.price_usd_per_h for r in way), way[0].code))
    numbered = tuple(tuple(replace(r, way=at) for r in way) for at, way in enumerate(ways))
    return numbered if is_proven else ()


def _ways(
    problem: Problem, arcs: tuple[CandidateArc, ...], *, choices: Iterable[tuple[str, ...]]
) -> list[tuple[Relaxation, ...]]:
    ways = []
    for families in choices:
        found = _least_excess(problem, arcs, families=families)
        if found is not None and found.excess:
            ways.append(_way(problem, arcs, found))
    return ways


def _way(
    problem: Problem, arcs: tuple[CandidateArc, ...], found: _Excess
) -> tuple[Relaxation, ...]:
    served = {arc.class_id for arc in arcs}
    return tuple(
        _describe(problem, key, found, hopeless=key[1] not in served)
        for key in sorted(found.excess)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Excess:
    """How far rows must give way beyond their limits, and the replicas that stand at that; whether
    less is proven not to do.
    """

    is_proven: bool
    limits: Mapping[RowKey, float]
    excess: dict[RowKey, float]
    replicas: dict[str, int]


def _least_excess(
    problem: Problem,
    arcs: Iterable[CandidateArc],
    *,
    families: Iterable[str],
    at_most: Mapping[RowKey, float] | None = None,
    few_moves: bool = False,
) -> _Excess | None:
    """What must give way at least, or None if even that is not enough or there is no such row.

    With `at_most`, no row gives way further than it says, and rows it leaves out not at all. With
    `few_moves` no more replicas start or stop than that takes.
    """
    wide = at_most is None and bool({"pool_accelerators", "site_power"} & set(families))
    inputs = take_inputs(problem, arcs, beyond_limits=wide)
    f = start_formulation(inputs, Elasticity(families=frozenset(families)))
    add_rows(f)
    if len(f.model.excess) == 0:
        return None
    reach = Reach(problem)
    weights = []
    for key in list(f.model.excess):
        if key[0] in COUNTED_FAMILIES:
            f.model.excess[key].domain = pyo.NonNegativeIntegers
        if at_most is not None:
            f.model.excess[key].setub(at_most.get(key, 0.0))
        tie_break = 1.0 / max(1.0, abs(f.limits[key]))
        weights.append((_unit_price(reach, key) + 1e-3 * tie_break, f.model.excess[key]))
    found = _least(f, _evened(weights))
    if found is None or not few_moves:
        return found
    for key in list(f.model.excess):
        f.model.excess[key].setub(found.excess.get(key, 0.0) * (1 + _DUST))
    moves = [*f.model.up.values(), *f.model.down.values()]
    again = _least(f, [(1.0, one) for one in moves])
    return found if again is None else replace(found, replicas=again.replicas)


def _least(f: Formulation, weights: Sequence[tuple[float, pyo.Var]]) -> _Excess | None:
    """The point at which a weighted sum is least; None if there is no point."""
    f.model.del_component("least")
    f.model.least = pyo.Objective(expr=f.sum_of(weights), sense=pyo.minimize)
    budget = replace(budget_of(f.inputs.problem), gap=1e-4)
    point = run(compile_model(f), budget)
    if point.status in (PointStatus.INFEASIBLE, PointStatus.NONE):
        return None
    used = point.values.get("excess", {})
    return _Excess(
        is_proven=point.status is PointStatus.PROVEN,
        limits=f.limits,
        excess={
            key: round(used[key]) if key[0] in COUNTED_FAMILIES else used[key]
            for key in sorted(used)
            if used[key] > _DUST
        },
        replicas={
            group: round(count) for group, count in sorted(point.values.get("n", {}).items())
        },
    )


def _unit_price(reach: Reach, key: RowKey) -> float:
    """USD/h of one unit of a limit at the problem's own prices; 0 for limits that policy sets."""
    family, subject = key
    problem = reach.problem
    if family == "pool_accelerators":
        site_id, _, pool_id = subject.partition("/")
        return problem.fleet.site(site_id).pool(pool_id).price_usd_per_accelerator_h
    if family in {"site_power", "supply_limit"}:
        site_id, _, supply_id = subject.partition("/")
        prices = [
            sum(supply_price_usd_per_w_h(problem, s)) * W_PER_KW
            for s in problem.fleet.site(site_id).supplies
            if supply_id in {"", s.supply_id}
        ]
        return max(0.0, min(prices))
    if family == "link_bandwidth":
        link = next(k for k in problem.fleet.links if k.link_id == subject)
        return link.price_usd_per_gb * _GB_PER_H_PER_MBIT_S
    if family == "tenant_budget":
        return 1.0
    if family == "carbon_cap":
        return problem.plan_policy.carbon_usd_per_t * G_PER_KG / G_PER_T
    if family == "shed_cap":
        return shed_price_usd_per_h(reach, subject) / reach.rates[subject]
    return 0.0


def infeasible_message(ways: tuple[tuple[Relaxation, ...], ...], *, why: str = "") -> str:
    """One line of what to relax; where it says `why`, for that alone."""
    if not ways:
        return "infeasible, whatever limit of the plan policy or the sites gives way"
    told = "; or ".join(" and ".join(_relaxation_text(r) for r in way) for way in ways)
    if why:
        return f"infeasible: {why}; any one of these is enough for it: {told}"
    return f"infeasible; any one of these is enough: {told}"


def _relaxation_text(one: Relaxation) -> str:
    price = f" (${one.price_usd_per_h:.2f}/h)" if one.price_usd_per_h else ""
    figures = f"from {one.limit:g} to {one.needed:g} {one.unit}"
    return f'{one.code} of "{one.subject}" {figures}{price}: {one.remedy}'


_Show = Callable[[Problem, str, float], float]


def _same(_problem: Problem, _subject: str, value: float) -> float:
    return value


def _shed_bp(problem: Problem, subject: str, rate_rps: float) -> float:
    one = next(c for c in problem.classes if c.class_id == subject)
    return min(float(WHOLE_BP), math.ceil(rate_rps / problem.rate_rps(one) * WHOLE_BP - 1e-6))


def _mean_ttft_ms(problem: Problem, class_id: str, excess_s_rps: float) -> float:
    one, served_rps = _least_served(problem, class_id)
    return one.slo.ttft_ms + excess_s_rps * MS_PER_S / served_rps


def _mean_quality(problem: Problem, class_id: str, excess_rps: float) -> float:
    one, served_rps = _least_served(problem, class_id)
    return max(0.0, one.mean_quality_floor - excess_rps / served_rps)


def _least_served(problem: Problem, class_id: str) -> tuple[TrafficClass, float]:
    """A class and the least of its rate that is served (requests/s): what may be shed is.

    A mean relaxed for that little traffic is enough for more of it.
    """
    one = next(c for c in problem.classes if c.class_id == class_id)
    shed_bp = problem.plan_policy.max_shed_basis_points or 0
    return one, problem.rate_rps(one) * max(1, WHOLE_BP - shed_bp) / WHOLE_BP


_WORDS: Mapping[str, tuple[str, _Show, str]] = {
    "pool_accelerators": (
        "accelerators",
        _same,
        "add accelerators to this pool",
    ),
    "site_power": ("kW", _same, "raise the site's power budget"),
    "supply_limit": ("kW", _same, "raise the supply's limit"),
    "link_bandwidth": ("Mbit/s", _same, "widen the link"),
    "replica_floor": ("replicas", lambda _p, _s, v: -v, "lower the replica floor"),
    "replica_cap": ("replicas", _same, "raise the replica cap"),
    "spread": ("requests/s at one place", _same, "ask for fewer sites or zones"),
    "latency_mix": ("ms mean TTFT", _mean_ttft_ms, "allow the class a later mean TTFT"),
    "quality_floor": ("mean quality", _mean_quality, "lower mean_quality_floor"),
    "tenant_budget": ("USD/h", _same, "raise the tenant's budget_usd_per_h"),
    "carbon_cap": ("kg CO2e/h", _same, "raise carbon_cap_g_per_h"),
    "move_limit": ("replicas", _same, "raise move_limit_replicas"),
    "shed_cap": ("bp", _shed_bp, "raise max_shed_basis_points"),
}


def _evened(weights: Sequence[tuple[float, pyo.Var]]) -> list[tuple[float, pyo.Var]]:
    """Weights no further apart than HiGHS bears: it never came back from prices of 1e9 beside
    tie-breaks of 1e-9, whatever its time limit.
    """
    heaviest = max(weight for weight, _ in weights)
    if heaviest <= _HEAVIEST:
        return list(weights)
    return [(max(weight / heaviest, _LIGHTEST), excess) for weight, excess in weights]


def _describe(problem: Problem, key: RowKey, found: _Excess, *, hopeless: bool) -> Relaxation:
    (family, subject), limit, excess = key, found.limits[key], found.excess[key]
    unit, show, remedy = _WORDS[family]
    if family == "shed_cap" and hopeless:
        remedy = "no site may serve it (its pruned arcs say why); drop the class or " + remedy
    return Relaxation(
        code=family,
        subject=subject,
        limit=show(problem, subject, limit),
        needed=show(problem, subject, limit + excess),
        unit=unit,
        price_usd_per_h=_unit_price(Reach(problem), key) * excess,
        remedy=remedy,
    )
