"""The dumb oracle: every count of replicas tried, the best flow for each by a small LP.

Written from the raw facts (through `Reach`), knowing nothing of arcs, rows or rounding. Only for
problems of a few groups with a few accelerators.
"""

from __future__ import annotations

from itertools import product
from math import inf

import highspy

from optimizer.costs import (
    budget_request_usd,
    network_usd_per_request,
    replica_price_usd_per_h,
    risk_price_usd_per_h,
    shed_price_usd_per_h,
    start_price_usd_per_h,
)
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.supplies import supply_price_usd_per_w_h
from sites.assignment import ReplicaGroup

Counts = dict[ReplicaGroup, int]


def cheapest_usd_per_h(problem: Problem) -> float:
    """The least any plan of the problem can cost (USD/h)."""
    reach = Reach(problem)
    groups = _groups(reach)
    running = {r.group: r.replicas for r in problem.running}
    ranges = [range(_most(reach, g) + 1) for g in groups]
    fixed = [
        (_replica_price(reach, counts, running), counts)
        for combination in product(*ranges)
        if _fits(reach, counts := dict(zip(groups, combination, strict=True)))
    ]
    best = inf
    for price, counts in sorted(fixed, key=lambda one: one[0]):
        if price >= best:
            break
        best = min(best, price + _flow_price(reach, counts))
    return best


def _groups(reach: Reach) -> list[ReplicaGroup]:
    return [
        ReplicaGroup(
            site_id=site.site_id,
            pool_id=pool.pool_id,
            variant_id=point.variant_id,
            accelerators_per_replica=point.accelerators_per_replica,
        )
        for site in reach.problem.fleet.sites
        if site.site_id not in reach.lost
        for pool in site.pools
        for point in reach.problem.catalog.serving_points
        if point.accelerator == pool.accelerator
    ]


def _most(reach: Reach, group: ReplicaGroup) -> int:
    pool = reach.pool(group)
    assert pool is not None
    return pool.count // group.accelerators_per_replica


def _fits(reach: Reach, counts: Counts) -> bool:
    for site in reach.problem.fleet.sites:
        here = {g: n for g, n in counts.items() if g.site_id == site.site_id}
        for pool in site.pools:
            used = sum(
                n * g.accelerators_per_replica for g, n in here.items() if g.pool_id == pool.pool_id
            )
            if used > pool.count:
                return False
        possible = sum(n * _point(reach, g).full_w for g, n in here.items()) * site.pue
        if possible > site.power_budget_w[0] * (1 + 1e-12):
            return False
    return True


def _point(reach: Reach, group: ReplicaGroup):
    point = reach.point(group)
    assert point is not None
    return point


def _replica_price(reach: Reach, counts: Counts, running: Counts) -> float:
    """Hardware, starting and opening sites; power and flow come with the LP."""
    total = 0.0
    for group, n in counts.items():
        total += n * replica_price_usd_per_h(reach, group)
        total += n * risk_price_usd_per_h(reach, group)
        total += max(0, n - running.get(group, 0)) * start_price_usd_per_h(reach, group)
    for site in reach.problem.fleet.sites:
        if any(n for g, n in counts.items() if g.site_id == site.site_id):
            total += site.fixed_price_usd_per_h
    return total


def _flow_price(reach: Reach, counts: Counts) -> float:
    """Least price of power, network and shedding with these replicas (USD/h); inf if impossible."""
    lp = highspy.Highs()
    lp.setOptionValue("output_flag", False)
    shed, flow = _columns(reach, counts, lp)
    for class_id in shed:
        parts = [v for (c, _), v in flow.items() if c == class_id]
        lp.addConstr(sum(parts, start=1.0 * shed[class_id]) == 1)
    ceiling = reach.problem.plan_policy.utilisation_ceiling
    for group, n in counts.items():
        work = _work(reach, flow, group)
        if work is not None:
            lp.addConstr(work <= n * ceiling * _there(reach, group))
    emitted = []
    for site in reach.problem.fleet.sites:
        emitted += _power(reach, counts, flow, lp, site)
    if reach.problem.plan_policy.carbon_cap_g_per_h is not None:
        lp.addConstr(_added(emitted) <= reach.problem.plan_policy.carbon_cap_g_per_h)
    _links(reach, flow, lp)
    _spread(reach, flow, shed, lp)
    _means(reach, flow, lp)
    _budgets(reach, flow, lp)
    lp.run()
    if lp.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return inf
    return float(lp.getInfo().objective_function_value)


def _columns(reach: Reach, counts: Counts, lp: highspy.Highs):
    """Parts of each class: shed, and per group that may answer it."""
    demanded = sorted(c for c, rate in reach.rates.items() if rate > 0)
    shed = {c: lp.addVariable(lb=0, ub=1, obj=shed_price_usd_per_h(reach, c)) for c in demanded}
    flow = {}
    for class_id, group in product(demanded, counts):
        one = reach.classes[class_id]
        if counts[group] and reach.refusal(one, group) is None:
            per_request = network_usd_per_request(reach, class_id, site_id=group.site_id)
            price = per_request * reach.rates[class_id] * 3600
            flow[class_id, group] = lp.addVariable(lb=0, ub=1, obj=price)
    return shed, flow


def _work(reach: Reach, flow, group: ReplicaGroup):
    """Busy replicas of a group as an expression, None if nobody uses it."""
    terms = [
        reach.rates[c] * reach.replica_seconds(reach.classes[c], group) * v
        for (c, g), v in flow.items()
        if g == group
    ]
    return sum(terms[1:], start=terms[0]) if terms else None


def _there(reach: Reach, group: ReplicaGroup) -> float:
    """Part of the time a replica of the group is there."""
    pool = reach.pool(group)
    assert pool is not None
    return 1 - pool.interruption_per_h * _point(reach, group).start_ms / 3_600_000


def _added(terms):
    return sum(terms[1:], start=terms[0])


def _power(reach: Reach, counts: Counts, flow, lp: highspy.Highs, site) -> list:
    """Supplies cover the draw; answers what each emits (g/h)."""
    here = {g: n for g, n in counts.items() if g.site_id == site.site_id}
    taken = [
        lp.addVariable(
            lb=0,
            ub=k.limit_w[0],
            obj=sum(supply_price_usd_per_w_h(reach.problem, k)),
        )
        for k in site.supplies
    ]
    balance = sum(taken[1:], start=1.0 * taken[0])
    idle = 0.0
    for group, n in here.items():
        point, work = _point(reach, group), _work(reach, flow, group)
        idle += point.idle_w * n * site.pue
        if work is not None:
            balance = balance - (point.full_w - point.idle_w) * site.pue * work
    lp.addConstr(balance == idle)
    return [k.carbon_g_per_kwh[0] / 1000 * e for k, e in zip(site.supplies, taken, strict=True)]


def _links(reach: Reach, flow, lp: highspy.Highs) -> None:
    for link in reach.problem.fleet.links:
        terms = []
        for (class_id, group), v in flow.items():
            one = reach.classes[class_id]
            way = reach.way(one, group.site_id)
            if one.bytes_per_request and way and link in way.links:
                terms.append(reach.rates[class_id] * one.bytes_per_request * 8 * v)
        if terms:
            lp.addConstr(sum(terms[1:], start=terms[0]) <= link.bandwidth_bps)


def _spread(reach: Reach, flow, shed, lp: highspy.Highs) -> None:
    for class_id in shed:
        one = reach.classes[class_id]
        mine = [(g, v) for (c, g), v in flow.items() if c == class_id]
        home = {g: reach.problem.fleet.site(g.site_id) for g, _ in mine}
        for wanted, place in (
            (one.spread_sites, {g: s.site_id for g, s in home.items()}),
            (one.spread_zones, {g: s.region or s.site_id for g, s in home.items()}),
        ):
            for where in sorted(set(place.values())) if wanted > 1 else ():
                parts = [wanted * v for g, v in mine if place[g] == where]
                lp.addConstr(sum(parts, start=1.0 * shed[class_id]) <= 1)


def _means(reach: Reach, flow, lp: highspy.Highs) -> None:
    """Mean TTFT and mean quality of what is served of a class."""
    for class_id, one in sorted(reach.classes.items()):
        mine = [(g, v) for (c, g), v in flow.items() if c == class_id]
        if mine and one.slo.over_mix:
            lp.addConstr(
                _added([(reach.ttft_ms(one, g) - one.slo.ttft_ms) * v for g, v in mine]) <= 0
            )
        if mine and one.mean_quality_floor > 0:
            quality = {g: reach.problem.catalog.variant(g.variant_id).quality for g, _ in mine}
            lp.addConstr(_added([(one.mean_quality_floor - quality[g]) * v for g, v in mine]) <= 0)


def _budgets(reach: Reach, flow, lp: highspy.Highs) -> None:
    for tenant in reach.problem.tenants:
        spent = [
            budget_request_usd(reach, c, group=g) * reach.rates[c] * 3600 * v
            for (c, g), v in flow.items()
            if reach.classes[c].tenant_id == tenant.tenant_id
        ]
        if spent and tenant.budget_usd_per_h is not None:
            lp.addConstr(_added(spent) <= tenant.budget_usd_per_h)
