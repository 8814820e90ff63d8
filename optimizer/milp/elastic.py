"""What must give way where not every limit can hold: for mending, and for saying what to relax.

Limits become elastic, their excess costs what the problem's own prices say it would, and the
cheapest excess is found. Two uses: a limit that what runs now already breaks is granted the least
slack that a move limit forces on it ("mend it, never worsen it"); an infeasible problem is
explained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pyomo.environ as pyo

from optimizer.costs import (
    draw_w,
    possible_draw_w,
    shed_price_usd_per_h,
    supply_price_usd_per_w_h,
)
from optimizer.milp.constraints import add_rows
from optimizer.milp.formulate import budget_of
from optimizer.milp.highs import PointStatus, compile_model, run
from optimizer.milp.inputs import take_inputs
from optimizer.milp.model import (
    COUNTED_FAMILIES,
    ELASTIC_FAMILIES,
    Elasticity,
    RowKey,
    start_formulation,
)
from optimizer.outcome import Relaxation
from optimizer.plan import CandidateArc, PlannedGroup
from optimizer.problem import Problem
from optimizer.reach import Reach
from sites.fleet import at_period
from sites.units import W_PER_KW, WHOLE_BP

_DUST = 1e-6
_MENDED = ("pool_accelerators", "site_power", "supply_limit", "replica_cap")
_PHYSICAL = ("pool_accelerators", "site_power", "supply_limit", "link_bandwidth")
_GB_PER_H_PER_MBIT_S = 3_600 / 8 / 1_000


def mending_slack(problem: Problem, arcs: Iterable[CandidateArc]) -> dict[RowKey, float]:
    """The least slack that a move limit forces on limits which what runs now already breaks.

    Empty without a move limit: then every such limit can be met at once.
    """
    if problem.plan_policy.move_limit_replicas is None or not _breaks_now(problem):
        return {}
    found = _least_excess(problem, arcs, families=_MENDED, beyond_limits=False)
    return {} if found is None else {key: excess for key, (_, excess) in found.items()}


def _breaks_now(problem: Problem) -> bool:
    """Whether what runs now, at sites not lost, breaks a limit that a plan would have to mend."""
    reach = Reach(problem)
    running = [
        PlannedGroup(group=r.group, replicas=r.replicas)
        for r in problem.running
        if reach.point(r.group) is not None and r.group.site_id not in problem.lost_sites
    ]
    possible_w, idle_w = possible_draw_w(reach, running), draw_w(reach, running, ())
    used: dict[tuple[str, str], int] = {}
    copies: dict[tuple[str, str], int] = {}
    for one in running:
        pool, variant = (one.group.site_id, one.group.pool_id), one.group.variant_id
        used[pool] = used.get(pool, 0) + one.replicas * one.group.accelerators_per_replica
        kind = (one.group.site_id, variant)
        copies[kind] = copies.get(kind, 0) + one.replicas
    sites = {site_id: problem.fleet.site(site_id) for site_id in sorted(possible_w)}
    period = problem.period
    return (
        any(count > sites[s].pool(p).count for (s, p), count in used.items())
        or any(w > at_period(sites[s].power_budget_w, period) for s, w in possible_w.items())
        or any(
            w > sum(at_period(k.limit_w, period) for k in sites[s].supplies)
            for s, w in idle_w.items()
        )
        or any(
            bound.most is not None and copies.get((bound.site_id, bound.variant_id), 0) > bound.most
            for bound in problem.plan_policy.replica_bounds
        )
    )


def relaxations(
    problem: Problem, arcs: Iterable[CandidateArc]
) -> tuple[tuple[Relaxation, ...], ...]:
    """Ways to make an infeasible problem feasible, cheapest first; each way is complete by itself.

    Each row family alone, then the physical ones together, then all together where no way before
    was enough.
    """
    kept = tuple(arcs)
    ways = _ways(problem, kept, choices=[(family,) for family in ELASTIC_FAMILIES])
    alone = {r.code for way in ways for r in way}
    if not alone & set(_PHYSICAL):
        ways += _ways(problem, kept, choices=[_PHYSICAL])
    if not ways:
        ways = _ways(problem, kept, choices=[ELASTIC_FAMILIES])
    return tuple(sorted(ways, key=lambda way: (sum(r.price_usd_per_h for r in way), way[0].code)))


def _ways(
    problem: Problem, arcs: tuple[CandidateArc, ...], *, choices: Iterable[tuple[str, ...]]
) -> list[tuple[Relaxation, ...]]:
    ways = []
    for families in choices:
        found = _least_excess(problem, arcs, families=families, beyond_limits=True)
        if found:
            served = {arc.class_id for arc in arcs}
            ways.append(
                tuple(
                    _describe(problem, key, *found[key], hopeless=key[1] not in served)
                    for key in sorted(found)
                )
            )
    return ways


def _least_excess(
    problem: Problem,
    arcs: Iterable[CandidateArc],
    *,
    families: Iterable[str],
    beyond_limits: bool,
) -> dict[RowKey, tuple[float, float]] | None:
    """(limit, excess) of every row that must give way, or None if even that is not enough."""
    wide = beyond_limits and bool({"pool_accelerators", "site_power"} & set(families))
    inputs = take_inputs(problem, arcs, beyond_limits=wide)
    f = start_formulation(inputs, Elasticity(families=frozenset(families)))
    add_rows(f)
    reach = Reach(problem)
    weights = []
    for key in list(f.model.excess):
        if key[0] in COUNTED_FAMILIES:
            f.model.excess[key].domain = pyo.NonNegativeIntegers
        tie_break = 1.0 / max(1.0, abs(f.limits[key]))
        weights.append((_unit_price(reach, key) + 1e-3 * tie_break, f.model.excess[key]))
    f.model.least = pyo.Objective(expr=f.sum_of(weights), sense=pyo.minimize)
    budget = replace(budget_of(problem), gap=1e-4)
    point = run(compile_model(f), budget)
    if point.status in (PointStatus.INFEASIBLE, PointStatus.NONE):
        return None
    used = point.values.get("excess", {})
    return {
        key: (f.limits[key], round(used[key]) if key[0] in COUNTED_FAMILIES else used[key])
        for key in sorted(used)
        if used[key] > _DUST
    }


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
    if family == "shed_cap":
        return shed_price_usd_per_h(reach, subject) / reach.rates[subject]
    return 0.0


_Show = Callable[[Problem, str, float], float]


def _same(_problem: Problem, _subject: str, value: float) -> float:
    return value


def _shed_bp(problem: Problem, subject: str, rate_rps: float) -> float:
    one = next(c for c in problem.classes if c.class_id == subject)
    return min(float(WHOLE_BP), math.ceil(rate_rps / problem.rate_rps(one) * WHOLE_BP - 1e-6))


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
    "spread": ("requests/s at one site", _same, "ask for fewer sites"),
    "move_limit": ("replicas", _same, "raise move_limit_replicas"),
    "shed_cap": ("bp", _shed_bp, "raise max_shed_basis_points"),
}


def _describe(
    problem: Problem, key: RowKey, limit: float, excess: float, *, hopeless: bool
) -> Relaxation:
    family, subject = key
    unit, show, remedy = _WORDS[family]
    if family == "shed_cap" and hopeless:
        remedy = "no site may serve it (its pruned arcs say why); drop the class or " + remedy
    price: Any = _unit_price(Reach(problem), key) * excess
    return Relaxation(
        code=family,
        subject=subject,
        limit=show(problem, subject, limit),
        needed=show(problem, subject, limit + excess),
        unit=unit,
        price_usd_per_h=float(price),
        remedy=remedy,
    )
