"""From a solver's point to a plan: whole basis points, supplies and costs that follow from them.

Decides only the rounding. The plan's cost is worked out again from what was rounded, so it is what
the plan costs; the bound is the solver's.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from optimizer.assign import split_bp
from optimizer.costs import priced_plan
from optimizer.milp.highs import Point
from optimizer.milp.inputs import ArcKey, Inputs
from optimizer.plan import Plan, PlannedGroup, ShedTraffic, TrafficShare
from optimizer.reach import Reach

_DUST = 1e-7
"""Parts of a class below this are the solver's tolerance, not traffic."""

_SHED: ArcKey = ("", "")


def extract_plan(inputs: Inputs, point: Point, *, method: str) -> Plan:
    """The plan a feasible point stands for.

    Shares are rounded by largest remainder over the arcs the solver used, so no arc it left at
    zero gets traffic and none is off by a whole basis point. Replicas of a group whose class
    shares all round away stay: the next plan may drop them.
    """
    n = point.values.get("n", {})
    groups = [
        PlannedGroup(group=facts.option.group, replicas=round(n[group_id]))
        for group_id, facts in inputs.groups.items()
    ]
    placed = {g.group.group_id for g in groups if g.replicas > 0}
    shares: list[TrafficShare] = []
    shed: list[ShedTraffic] = []
    for class_id in inputs.classes:
        parts = _parts(inputs, point, class_id=class_id, placed=placed)
        for key, basis_points in whole_basis_points(parts).items():
            if key == _SHED:
                shed.append(ShedTraffic(class_id=class_id, basis_points=basis_points))
            else:
                shares.append(_share(inputs, key, basis_points))
    return priced_plan(
        Reach(inputs.problem),
        groups=groups,
        shares=shares,
        shed=shed,
        bound_usd_per_h=point.bound,
        method=method,
        hit_limit=point.hit_limit,
    )


def _parts(inputs: Inputs, point: Point, *, class_id: str, placed: set[str]) -> dict[ArcKey, float]:
    """Part of a class on each arc and shed, dust left out; never empty."""
    rate = inputs.rates[class_id]
    flows = point.values.get("x", {})
    parts = {
        key: flows[key] / rate
        for key in inputs.arcs_of_class[class_id]
        if flows[key] / rate > _DUST and key[1] in placed
    }
    shed = point.values["shed"][class_id] / rate
    if shed > _DUST or not parts:
        parts[_SHED] = max(shed, _DUST)
    return parts


def whole_basis_points(parts: Mapping[ArcKey, float]) -> dict[ArcKey, int]:
    """Round positive parts to integers summing to 10 000, largest remainder first (ties by key).

    Parts that round to 0 are left out. Raises InvalidFactError if there is no part.
    """
    whole = split_bp({key: Fraction(part) for key, part in parts.items()})
    return {key: basis_points for key, basis_points in whole.items() if basis_points}


def _share(inputs: Inputs, key: ArcKey, basis_points: int) -> TrafficShare:
    arc = inputs.arcs[key]
    return TrafficShare(
        class_id=arc.class_id,
        group_id=arc.group.group_id,
        site_id=arc.group.site_id,
        ingress_site_id=arc.ingress_site_id,
        basis_points=basis_points,
        transit_countries=arc.transit_countries,
    )
