"""From a solver's point to a plan: whole basis points, supplies and costs that follow from them.

Decides only the rounding. The plan's cost is worked out again from what was rounded, so it is what
the plan costs; the bound is the solver's.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, isfinite

from optimizer.assign_routes import split_bp
from optimizer.costs import priced_plan
from optimizer.milp.highs import Point
from optimizer.milp.inputs import ArcKey, Inputs
from optimizer.plan import Plan, PlannedGroup, ShedTraffic, TrafficShare
from optimizer.reach import Reach
from sites.errors import FatalError
from sites.units import WHOLE_BP

_DUST = 1e-7
"""Parts of a class below this are the solver's tolerance, not traffic."""

_SHED: ArcKey = ("", "")


def extract_plan(inputs: Inputs, point: Point, *, method: str) -> Plan:
    """The plan a feasible point stands for.

    Shares are rounded by largest remainder over the arcs the solver used, so no arc it left at
    zero gets traffic and none is off by a whole basis point. Replicas of a group whose class
    shares all round away stay: the next plan may drop them.
    """
    _require_numbers(point)
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
        for key, basis_points in _rounded(inputs, class_id, parts).items():
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


def _require_numbers(point: Point) -> None:
    for name in ("n", "x", "shed"):
        for index, value in point.values.get(name, {}).items():
            if not isfinite(value):
                raise FatalError(
                    f"HiGHS reports success with {name}[{index}] = {value}; report the problem "
                    "file that causes it"
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


def _rounded(inputs: Inputs, class_id: str, parts: Mapping[ArcKey, float]) -> dict[ArcKey, int]:
    """Parts of a class in whole basis points; a mix that held before rounding holds after it.

    Where a mean is asked for (`latency_mix`, `quality_floor`), rounding up goes to the arcs that
    help it; where two means pull apart, what breaks one of them is shed, a basis point at a time.
    """
    mixes = _mixes(inputs, class_id, parts)
    if not mixes:
        return whole_basis_points(parts)
    total = sum(Fraction(part) for part in parts.values())
    exact = {key: Fraction(parts[key]) * WHOLE_BP / total for key in sorted(parts)}
    whole = {key: int(amount) for key, amount in exact.items()}
    uneven = [key for key in exact if exact[key] > whole[key]]
    helpful = sorted(
        uneven, key=lambda k: (sum(m.get(k, 0.0) for m in mixes), whole[k] - exact[k], k)
    )
    for key in helpful[: WHOLE_BP - sum(whole.values())]:
        whole[key] += 1
    for mix in mixes:
        exact_mean = float(sum(Fraction(mix[k]) * exact[k] for k in mix))
        worst_first = sorted((k for k in mix if mix[k] > 0), key=lambda k: (-mix[k], k))
        for key in worst_first:
            over = sum(mix[k] * whole[k] for k in mix) - max(0.0, exact_mean)
            less = min(whole[key], max(0, ceil(over / mix[key] - _DUST)))
            whole[key] -= less
            whole[_SHED] = whole.get(_SHED, 0) + less
    return {key: basis_points for key, basis_points in whole.items() if basis_points}


def _mixes(
    inputs: Inputs, class_id: str, parts: Mapping[ArcKey, float]
) -> list[dict[ArcKey, float]]:
    """What each arc used adds to each mean the class asks for, relative to its limit."""
    one, mixes = inputs.classes[class_id], []
    arcs = sorted(key for key in parts if key != _SHED)
    if one.slo.over_mix:
        mixes.append({k: inputs.arcs[k].ttft_ms / one.slo.ttft_ms - 1.0 for k in arcs})
    if one.mean_quality_floor > 0:
        floor = one.mean_quality_floor
        mixes.append({k: floor - inputs.groups[k[1]].option.variant.quality for k in arcs})
    return mixes


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
