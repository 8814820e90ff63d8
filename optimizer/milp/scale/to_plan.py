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
from sites.assignment import ReplicaGroup
from sites.units import WHOLE_BP

_SHED = ("", "")


def plan_of(ledger: Ledger, reach: Reach, *, bound_usd_per_h: float, method: str) -> Plan:
    """The plan a ledger stands for, rounded and priced, without its answer to lost sites."""
    tables = ledger.frame.tables
    stands = np.flatnonzero(ledger.replicas > 0)
    named = {int(at): tables.group(int(at)) for at in stands}
    groups = [
        PlannedGroup(group=group, replicas=round(float(ledger.replicas[at])))
        for at, group in named.items()
    ]
    flows = ledger.all_flows()
    first = np.searchsorted(flows.cls, np.arange(tables.classes.count + 1)).tolist()
    flow_group, flow_part = flows.group.tolist(), flows.part.tolist()
    shares: list[TrafficShare] = []
    shed: list[ShedTraffic] = []
    for at, class_id in enumerate(tables.classes.ids):
        one = reach.classes[class_id]
        parts: dict[tuple[str, str], float] = defaultdict(float)
        of_group: dict[str, ReplicaGroup] = {}
        for flow in range(first[at], first[at + 1]):
            group = named[flow_group[flow]]
            of_group[group.group_id] = group
            parts[class_id, group.group_id] += flow_part[flow]
        if ledger.shed_part[at] > 0 or not parts:
            parts[_SHED] = max(float(ledger.shed_part[at]), 1e-7)
        # most classes have one part, which needs no exact fractions to be the whole
        whole = dict.fromkeys(parts, WHOLE_BP) if len(parts) == 1 else whole_basis_points(parts)
        for key, basis_points in whole.items():
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
