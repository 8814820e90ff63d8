"""Between ledgers and plans: whole basis points out of flows, replicas out of an earlier plan.

Decides only the rounding; cost and supplies are worked out by `costs`, as for every plan.
"""

from __future__ import annotations

import numpy as np

from optimizer.costs import priced_plan
from optimizer.milp.extract import whole_basis_points
from optimizer.milp.scale.cluster import Effort
from optimizer.milp.scale.ledger import Change, Ledger
from optimizer.milp.scale.plan_search import Job, Search, lots, step
from optimizer.plan import Plan, PlannedGroup, ShedTraffic, TrafficShare
from optimizer.reach import Reach

_SHED = ("", "")


def plan_of(ledger: Ledger, *, bound_usd_per_h: float, method: str) -> Plan:
    """The plan a ledger stands for, rounded and priced, without its answer to lost sites."""
    tables = ledger.frame.tables
    reach = Reach(tables.problem)
    stands = np.flatnonzero(ledger.replicas > 0)
    named = {int(at): tables.group(int(at)) for at in stands}
    groups = [
        PlannedGroup(group=group, replicas=round(float(ledger.replicas[at])))
        for at, group in named.items()
    ]
    shares: list[TrafficShare] = []
    shed: list[ShedTraffic] = []
    for at, class_id in enumerate(tables.classes.ids):
        one = reach.classes[class_id]
        flows = ledger.flows_of(np.array([at]))
        parts = {
            (class_id, named[int(g)].group_id): float(part)
            for g, part in zip(flows.group, flows.part, strict=True)
        }
        of_group = {named[int(g)].group_id: named[int(g)] for g in flows.group}
        if ledger.shed_part[at] > 0 or not parts:
            parts[_SHED] = max(float(ledger.shed_part[at]), 1e-7)
        for key, basis_points in whole_basis_points(parts).items():
            if key == _SHED:
                shed.append(ShedTraffic(class_id=class_id, basis_points=basis_points))
                continue
            entry, way = reach.entry(one), reach.way(one, of_group[key[1]].site_id)
            assert entry is not None and way is not None, "an arc has a lawful path"
            shares.append(
                TrafficShare(
                    class_id=class_id,
                    group_id=key[1],
                    site_id=of_group[key[1]].site_id,
                    ingress_site_id=entry.site_id,
                    basis_points=basis_points,
                    transit_countries=way.transit_countries,
                )
            )
    return priced_plan(
        reach,
        groups=groups,
        shares=shares,
        shed=shed,
        bound_usd_per_h=bound_usd_per_h,
        method=method,
        hit_limit="",
    )


def take_up(search: Search, plan: Plan) -> None:
    """Put an earlier plan's replicas into an empty ledger as far as they still fit, and let traffic
    flow over them as well as it can.
    """
    frame, ledger, tables = search.frame, search.ledger, search.frame.tables
    sites = {one.group.site_id for one in plan.groups}
    here = [at for at, site_id in enumerate(tables.sites.ids) if site_id in sites]
    near = np.flatnonzero(np.isin(frame.site, here))
    wanted = {one.group.group_id: one.replicas for one in plan.groups}
    named = {tables.group_id(int(at)): int(at) for at in near}
    none = ledger.flows_of(np.zeros(0, dtype=np.intp))
    for group_id in sorted(set(wanted) & set(named)):
        group = np.array([named[group_id]])
        replicas = np.minimum(float(wanted[group_id]), frame.most[group])
        stands = Change(classes=none.cls, group=group, replicas=replicas, flows=none)
        if ledger.fits(stands):
            ledger.put(stands)
    nothing = np.zeros(frame.groups, dtype=np.bool_)
    pending = lots(frame, np.arange(len(frame.rate)))
    jobs = [Job(classes=lot, free=nothing) for lot in pending]
    step(search, jobs, Effort(sites=0, gap=0.0, nodes=1))
