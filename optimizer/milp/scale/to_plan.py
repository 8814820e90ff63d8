"""Between ledgers and plans: whole basis points out of flows, flows out of an earlier plan.

Decides only the rounding; cost and supplies are worked out by `costs`, as for every plan.
"""

from __future__ import annotations

import numpy as np

from optimizer.costs import priced_plan
from optimizer.milp.extract import whole_basis_points
from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.frame import Positions
from optimizer.milp.scale.ledger import Change, Flows, Ledger
from optimizer.plan import Plan, PlannedGroup, ShedTraffic, TrafficShare
from optimizer.reach import Reach
from sites.units import WHOLE_BP

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


def take_up(ledger: Ledger, plan: Plan) -> None:
    """Put an earlier plan into an empty ledger, component by component, as far as it still fits."""
    frame, tables = ledger.frame, ledger.frame.tables
    class_at = {class_id: at for at, class_id in enumerate(tables.classes.ids)}
    wanted = {one.group.group_id: one.replicas for one in plan.groups}
    sites = {one.group.site_id for one in plan.groups}
    site_at = {site_id: at for at, site_id in enumerate(tables.sites.ids) if site_id in sites}
    near = np.flatnonzero(np.isin(frame.site, sorted(site_at.values())))
    named = {tables.group_id(int(at)): int(at) for at in near}
    part_of: dict[tuple[int, int], float] = {}
    for share in plan.shares:
        if share.class_id in class_at and share.group_id in named:
            key = (class_at[share.class_id], named[share.group_id])
            part_of[key] = share.basis_points / WHOLE_BP
    for classes in frame.components:
        change = _change(ledger, classes, wanted=wanted, named=named, part_of=part_of)
        if ledger.fits(change):
            ledger.put(change)


def _change(
    ledger: Ledger,
    classes: Positions,
    *,
    wanted: dict[str, int],
    named: dict[str, int],
    part_of: dict[tuple[int, int], float],
) -> Change:
    """One component's part of an earlier plan: lawful flows, cut to what its replicas may carry."""
    frame = ledger.frame
    arcs = component_arcs(frame, classes)
    part = np.array(
        [
            part_of.get((int(classes[row]), int(group)), 0.0)
            for row, group in zip(arcs.row, arcs.group, strict=True)
        ]
    )
    used = part > 0
    group = np.unique(arcs.group)
    count = np.zeros(frame.groups)
    for group_id, standing in wanted.items():
        if group_id in named:
            count[named[group_id]] = standing
    replicas = np.minimum(count[group], frame.most[group])
    busy = np.bincount(arcs.group, arcs.busy * part, frame.groups)
    rated = np.zeros(frame.groups)
    rated[group] = replicas * frame.rateable[group]
    fill = np.minimum(1.0, rated / np.maximum(busy, 1e-12))
    kept = part[used] * fill[arcs.group[used]]
    flows = Flows(
        cls=classes[arcs.row[used]],
        group=arcs.group[used],
        part=kept,
        busy=kept * arcs.busy[used],
        usd_per_h=kept * arcs.network_usd_per_h[used],
    )
    return Change(classes=classes, group=group, replicas=replicas, flows=flows)
