"""Figures about a plan that people ask for: price per token, latency, draw. Judges no limit.

Shared by `diff` and `explain`; what they mean for a decision is said there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from optimizer.costs import (
    TOKENS_PER_MTOK,
    busy_replicas,
    full_request_usd,
    network_usd_per_request,
    replica_price_usd_per_h,
    risk_price_usd_per_h,
)
from optimizer.plan import Plan, PlannedGroup, TrafficShare
from optimizer.reach import Reach
from optimizer.supplies import supply_price_usd_per_w_h
from sites.assignment import ReplicaGroup
from sites.units import S_PER_H, WHOLE_BP


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupFigures:
    """What a group of a plan does: CPT (USD/Mtok, inf when idle) and slowest TTFT (ms).

    CPT holds hardware, the risk of interruptions, energy with cooling, carbon and network.
    `ttft_ms` 0: nothing routed there.
    """

    usd_per_mtok: float
    ttft_ms: float
    percentile: float


def site_usd_per_w_h(reach: Reach, plan: Plan) -> dict[str, float]:
    """What a W costs for an hour at each site of the plan, over the supplies it uses (USD)."""
    watts: dict[str, float] = defaultdict(float)
    price: dict[str, float] = defaultdict(float)
    supplies = {
        (site.site_id, supply.supply_id): supply
        for site in reach.problem.fleet.sites
        for supply in site.supplies
    }
    for use in plan.supplies:
        supply = supplies.get((use.site_id, use.supply_id))
        if supply is not None:
            watts[use.site_id] += use.power_w
            price[use.site_id] += use.power_w * sum(supply_price_usd_per_w_h(reach.problem, supply))
    return {site_id: price[site_id] / watts[site_id] for site_id in sorted(watts) if watts[site_id]}


def group_figures(reach: Reach, plan: Plan) -> dict[str, GroupFigures]:
    """Figures of every group of the plan that the problem still knows, by group id."""
    known = {g.group.group_id: g for g in plan.groups if reach.point(g.group) is not None}
    shares: dict[str, list[TrafficShare]] = defaultdict(list)
    for share in plan.shares:
        if share.group_id in known and share.class_id in reach.classes:
            shares[share.group_id].append(share)
    per_w = site_usd_per_w_h(reach, plan)
    return {
        group_id: _figures(
            reach,
            known[group_id],
            shares[group_id],
            usd_per_w_h=per_w.get(known[group_id].group.site_id, 0.0),
        )
        for group_id in sorted(known)
    }


def _figures(
    reach: Reach, planned: PlannedGroup, shares: list[TrafficShare], *, usd_per_w_h: float
) -> GroupFigures:
    group = planned.group
    point, site = reach.point(group), reach.site(group.site_id)
    assert point is not None and site is not None
    busy = busy_replicas(reach, {group.group_id: group}, shares=shares)[group.group_id]
    watts = point.idle_w * planned.replicas + (point.full_w - point.idle_w) * busy
    held = replica_price_usd_per_h(reach, group) + risk_price_usd_per_h(reach, group)
    usd_per_h = planned.replicas * held
    usd_per_h += watts * site.pue * usd_per_w_h
    tokens_s, slowest_ms = 0.0, 0.0
    for share in shares:
        rate = reach.rates[share.class_id] * share.basis_points / WHOLE_BP
        one = reach.classes[share.class_id]
        tokens_s += rate * one.output_tokens
        network = network_usd_per_request(reach, share.class_id, site_id=group.site_id)
        usd_per_h += rate * S_PER_H * network
        slowest_ms = max(slowest_ms, reach.ttft_ms(one, group) or 0.0)
    return GroupFigures(
        usd_per_mtok=_per_mtok(usd_per_h, tokens_s),
        ttft_ms=slowest_ms,
        percentile=point.percentile,
    )


def _per_mtok(usd_per_h: float, tokens_s: float) -> float:
    return usd_per_h / (tokens_s * S_PER_H) * TOKENS_PER_MTOK if tokens_s > 0 else inf


def full_usd_per_mtok(reach: Reach, class_id: str, *, group: ReplicaGroup) -> float:
    """CPT of a class on replicas of a group used to the ceiling (USD/Mtok).

    Energy at the site's dearest supply, so that a site looks no cheaper than it may become. No law
    is asked: the figure also tells what a site would cost that may not be used.
    """
    site = reach.site(group.site_id)
    if reach.point(group) is None or site is None:
        return inf
    dearest = max(sum(supply_price_usd_per_w_h(reach.problem, s)) for s in site.supplies)
    per_request = full_request_usd(reach, class_id, group=group, usd_per_w_h=dearest)
    return per_request / reach.classes[class_id].output_tokens * TOKENS_PER_MTOK


def draw_total_w(plan: Plan) -> float:
    """Mean draw of all sites, cooling included (W)."""
    return sum(use.power_w for use in plan.supplies)


def slowest_ttft_ms(
    reach: Reach, shares: Iterable[TrafficShare], *, groups: dict[str, ReplicaGroup]
) -> float:
    """Slowest TTFT (ms) over shares of classes and groups the problem knows; 0 if none."""
    slowest_ms = 0.0
    for share in shares:
        one, group = reach.classes.get(share.class_id), groups.get(share.group_id)
        if one is not None and group is not None and reach.site(group.site_id) is not None:
            slowest_ms = max(slowest_ms, reach.ttft_ms(one, group) or 0.0)
    return slowest_ms
