"""From a point over columns to a plan, by the road every other point takes.

Decides nothing about rounding or prices: names the point's columns and hands them to `extract`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from optimizer.milp.arrays import Matrix
from optimizer.milp.extract import extract_plan
from optimizer.milp.highs import Point, PointStatus
from optimizer.milp.inputs import take_inputs
from optimizer.plan import CandidateArc, Plan
from optimizer.reach import Reach
from optimizer.tables import Floats
from sites.assignment import ReplicaGroup
from sites.traffic import TrafficClass

_DUST = 1e-9
"""Requests/s; below it an arc is not looked up. `extract` has its own, larger one."""


def plan_of(
    reach: Reach, matrix: Matrix, values: Floats, *, bound: float, method: str
) -> tuple[Plan, Point]:
    """The plan a feasible point stands for, and the point by name."""
    p = matrix.horizon[0]
    tables, ids = p.tables, p.tables.classes.ids
    groups = [tables.group(int(at)) for at in p.placeable.group]
    flow = values[p.column("x")]
    used = np.flatnonzero(flow > _DUST)
    arcs, x = [], {}
    for at in used:
        one = reach.classes[ids[p.arcs.cls[at]]]
        group = groups[p.local[p.arcs.group[at]]]
        x[one.class_id, group.group_id] = float(flow[at])
        arcs.append(
            candidate(
                reach,
                one,
                group,
                ttft_ms=float(p.arcs.ttft_ms[at]),
                replica_seconds=float(p.arcs.replica_seconds[at]),
                network_usd_per_request=0.0,  # `costs` prices the plan
            )
        )
    inputs = take_inputs(tables.problem, arcs)
    n = dict.fromkeys(inputs.groups, 0.0)
    placed = zip(groups, values[p.column("n")], strict=True)
    n.update({group.group_id: float(count) for group, count in placed})
    shed = dict(zip(ids, values[p.column("shed")].tolist(), strict=True))
    named: dict[str, Mapping[Any, float]] = {"n": n, "x": x, "shed": shed}
    if p.risks:
        named["risk"] = dict(zip(p.risks, values[p.column("risk")].tolist(), strict=True))
    point = Point(status=PointStatus.STOPPED, values=named, bound=bound)
    return extract_plan(inputs, point, method=method), point


def candidate(
    reach: Reach,
    one: TrafficClass,
    group: ReplicaGroup,
    *,
    ttft_ms: float,
    replica_seconds: float,
    network_usd_per_request: float,
) -> CandidateArc:
    """An arc of a table by name, with its lawful path."""
    entry, way = reach.entry(one), reach.way(one, group.site_id)
    assert entry is not None and way is not None, "an arc has a lawful path"
    return CandidateArc(
        class_id=one.class_id,
        group=group,
        ingress_site_id=entry.site_id,
        path=way.sites,
        transit_countries=way.transit_countries,
        ttft_ms=ttft_ms,
        replica_seconds=replica_seconds,
        network_usd_per_request=network_usd_per_request,
    )
