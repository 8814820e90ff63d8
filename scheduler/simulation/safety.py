"""What must never happen, looked at from outside after every step of simulated time.

Knows nothing of how the control plane decides: it reads what simulated sites really run and route.
"""

from __future__ import annotations

from scheduler.simulation.site import SimulatedSite
from sites.assignment import Route, RouteKey, SiteShare
from sites.fit import POWER_TOLERANCE_W
from sites.residency import may_process, may_transit
from sites.telemetry import ReplicaState


class SafetyWatch:
    """Collects broken invariants as lines in `faults`."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def look(self, at_ms: int, sites: dict[str, SimulatedSite]) -> None:
        """Check every site as it is now."""
        for site_id in sorted(sites):
            site = sites[site_id]
            for fault in (*_over_limits(site), *_rank_fell(site), *_bad_routes(site, sites)):
                self.faults.append(f"{at_ms} ms: {site_id}: {fault}")


def _over_limits(site: SimulatedSite) -> list[str]:
    if site.accepted is None:
        return []
    faults = []
    draw_w = site.possible_draw_w()
    if draw_w > site.accepted.power_budget_w + POWER_TOLERANCE_W:
        faults.append(f"can draw {draw_w:g} W of {site.accepted.power_budget_w:g} W")
    for pool in site.accepted.pools:
        used = sum(
            r.group.accelerators_per_replica
            for r in site.replicas
            if r.group.pool_id == pool.pool_id
        )
        if used > pool.count:
            faults.append(f"uses {used} of {pool.count} accelerators of {pool.pool_id}")
    return faults


def _rank_fell(site: SimulatedSite) -> list[str]:
    ranks = site.applied_ranks
    return [] if ranks == sorted(ranks) else [f"applied rank fell: {ranks}"]


def _bad_routes(site: SimulatedSite, sites: dict[str, SimulatedSite]) -> list[str]:
    """Shares this gateway really sends that reach no ready replica, or an unlawful place."""
    if not site.gateway_up or site.applied is None or site.recovering:
        return []
    faults = []
    policies = {p.policy_id: p for p in site.applied.policies}
    for route in site.applied.routes:
        policy = policies[route.key.residency_policy_id]
        for share in (*route.shares, *route.backups):
            country, tags = _country(site, share)
            crossed = (site.applied.country, *share.transit_countries)
            if not may_process(policy, country=country, tags=tags) or not all(
                may_transit(policy, country=c) for c in crossed
            ):
                faults.append(f"{route.key.route_id} goes unlawfully to {share.site_id}")
            target = sites[share.site_id]
            if target.gateway_up and not target.recovering:
                # a dead site is the gateway's own retry and the failover's matter
                faults += _unanswered(route, share, target)
    return faults


def _unanswered(route: Route, share: SiteShare, target: SimulatedSite) -> list[str]:
    if share.basis_points == 0:
        return []
    groups = _groups(target, route.key)
    if not groups:
        return [f"{route.key.route_id} goes to {share.site_id}, which does not know it"]
    return [
        f"{route.key.route_id} goes to {group_id}, which has no ready replica"
        for group_id in groups
        if target.count(group_id, ReplicaState.READY) == 0
    ]


def _groups(target: SimulatedSite, key: RouteKey) -> list[str]:
    for route in target.applied.routes if target.applied else ():
        if route.key == key:
            return [g.group_id for g in route.groups if g.basis_points]
    return []


def _country(site: SimulatedSite, share: SiteShare) -> tuple[str, tuple[str, ...]]:
    assert site.applied is not None, "only routes in force are looked at"
    if share.site_id == site.site_id:
        return site.applied.country, site.applied.residency_tags
    peer = next(p for p in site.applied.peers if p.site_id == share.site_id)
    return peer.country, peer.residency_tags
