"""A problem whose running replicas break limits that few moves cannot mend, with these limits moved
by the least excess: what runs is mended as far as moves allow, and never worsened.

Decides nothing about traffic: all of it may be shed, so what stops first is found without any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from optimizer.milp.constraints_mix import G_PER_KG
from optimizer.milp.elastic import least_mending, may_need_mending
from optimizer.milp.model import RowKey
from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from sites.fleet import Site
from sites.units import W_PER_KW

_ROUNDING = 1e-9
"""So that no sum of floats leaves a replica out of a limit moved for it, relative."""

Excess = Mapping[RowKey, float]
"""By how much a limit is moved, by row."""


def moved_limits(problem: Problem) -> tuple[Problem, Mapping[str, int] | None]:
    """The problem with the limits that no plan of its few moves keeps moved by the least excess,
    and the replicas by group id that stand at that. The problem itself and None where none has to
    move.
    """
    if not may_need_mending(problem):
        return problem, None
    freely = replace(problem.plan_policy, max_shed_basis_points=None)
    found = least_mending(replace(problem, classes=(), demand=(), plan_policy=freely))
    if found is None:
        return problem, None
    excess, stands = found
    sites = tuple(_site(site, excess) for site in problem.fleet.sites)
    fleet = replace(problem.fleet, sites=sites)
    return replace(problem, fleet=fleet, plan_policy=_policy(problem.plan_policy, excess)), stands


def _site(site: Site, excess: Excess) -> Site:
    name = site.site_id
    pools = tuple(
        replace(
            p, count=p.count + round(excess.get(("pool_accelerators", f"{name}/{p.pool_id}"), 0))
        )
        for p in site.pools
    )
    supplies = tuple(
        replace(s, limit_w=_more(s.limit_w, excess.get(("supply_limit", f"{name}/{s.supply_id}"))))
        for s in site.supplies
    )
    budget_w = _more(site.power_budget_w, excess.get(("site_power", name)))
    return replace(site, pools=pools, supplies=supplies, power_budget_w=budget_w)


def _more(limit_w: tuple[float, ...], kw: float | None) -> tuple[float, ...]:
    if kw is None:
        return limit_w
    return tuple((each + kw * W_PER_KW) * (1 + _ROUNDING) for each in limit_w)


def _policy(policy: PlanPolicy, excess: Excess) -> PlanPolicy:
    bounds = tuple(
        one
        if one.most is None
        else replace(
            one,
            most=one.most
            + round(excess.get(("replica_cap", f"{one.site_id}/{one.variant_id}"), 0)),
        )
        for one in policy.replica_bounds
    )
    cap, more_kg = policy.carbon_cap_g_per_h, excess.get(("carbon_cap", "fleet"))
    if cap is not None and more_kg is not None:
        cap = (cap + more_kg * G_PER_KG) * (1 + _ROUNDING)
    return replace(policy, replica_bounds=bounds, carbon_cap_g_per_h=cap)
