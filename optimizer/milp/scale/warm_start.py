"""An earlier plan as the search's first: its replicas as far as they still fit, its traffic as far
as it still flows, and what that leaves unserved over what stands.

Decides nothing about new replicas.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optimizer.milp.scale.catalogue import component_arcs
from optimizer.milp.scale.cluster import Effort
from optimizer.milp.scale.frame import Positions
from optimizer.milp.scale.ledger import Change, Flows
from optimizer.milp.scale.plan_search import BATCH, Job, Search, lots, step
from optimizer.plan import Plan
from optimizer.tables import Floats
from sites.units import WHOLE_BP

_SLIVER = 1e-3


def take_up(search: Search, plan: Plan) -> None:
    """Put an earlier plan's replicas into an empty ledger as far as they still fit, and let traffic
    flow over them as well as it can, whatever time is left: it is the plan to fall back on.
    """
    search = replace(search, is_over=lambda: False)
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
    flowed = _flowed(search, plan, named)
    for lot in pending:
        ledger.put(_as_it_flowed(search, lot, flowed))
    for first in range(0, len(pending), BATCH):
        jobs = [Job(classes=lot, free=nothing) for lot in pending[first : first + BATCH]]
        step(search, jobs, Effort(sites=0, gap=0.0, nodes=1))


def _flowed(search: Search, plan: Plan, named: dict[str, int]) -> Floats:
    """An earlier plan's traffic as (class, group, part), ascending, on groups that stand."""
    position = {class_id: at for at, class_id in enumerate(search.frame.tables.classes.ids)}
    found = [
        (position[one.class_id], named[one.group_id], one.basis_points / WHOLE_BP)
        for one in plan.shares
        if one.class_id in position and search.ledger.replicas[named.get(one.group_id, 0)] > 0
        if one.group_id in named
    ]
    return np.array(sorted(found), dtype=np.float64).reshape(-1, 3)


def _as_it_flowed(search: Search, classes: Positions, flowed: Floats) -> Change:
    """Traffic as it flowed but for a sliver: whole basis points may be more than replicas hold."""
    frame = search.frame
    arcs = component_arcs(frame, classes)
    mine = flowed[np.isin(flowed[:, 0], classes)]
    part = np.zeros(arcs.count)
    key = arcs.classes[arcs.row] * frame.groups + arcs.group
    wanted = (mine[:, 0] * frame.groups + mine[:, 1]).astype(np.intp)
    at = np.minimum(np.searchsorted(key, wanted), max(0, len(key) - 1))
    known = key[at] == wanted if len(key) else np.zeros(len(wanted), dtype=np.bool_)
    part[at[known]] = mine[known, 2] * (1 - _SLIVER)
    used = np.flatnonzero(part > 0)
    flows = Flows(
        cls=classes[arcs.row[used]],
        group=arcs.group[used],
        part=part[used],
        busy=part[used] * arcs.busy[used],
        usd_per_h=part[used] * arcs.network_usd_per_h[used],
    )
    none = np.zeros(0, dtype=np.intp)
    return Change(classes=classes, group=none, replicas=np.zeros(0), flows=flows)
