"""A plan out of a ledger: whole basis points out of flows.

Decides only the rounding; cost and supplies are worked out by `costs`, as for every plan.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from optimizer.costs import priced_plan
from optimizer.milp.extract import whole_basis_points
from optimizer.milp.scale.ledger import Ledger
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
        parts: dict[tuple[str, str], float] = defaultdict(float)
        for g, part in zip(flows.group, flows.part, strict=True):
            parts[class_id, named[int(g)].group_id] += float(part)
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
