"""Demand of the coming period, from what gateways counted. Minimal on purpose.

Decides one thing: the exponentially weighted rate of every traffic class. Gateways count routes
(service, tenant, policy), not classes, so the classes that share an ingress and a route split what
was counted there in proportion to their stated rates. A class nobody counted keeps its stated rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from optimizer.backbone import ingress_of
from optimizer.problem import Problem
from sites.assignment import RouteKey
from sites.errors import InvalidFactError
from sites.telemetry import SiteObservation
from sites.traffic import Demand
from sites.units import MS_PER_S

Entry = tuple[str, str]
"""(ingress site id, route id)."""

NEWEST_WEIGHT = 0.3
"""Part of a smoothed rate that the newest interval decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteRate:
    """Requests per second that entered one site under one route."""

    site_id: str
    route_id: str
    rate_rps: float


def observed_rates(before: SiteObservation, after: SiteObservation) -> tuple[RouteRate, ...]:
    """Rates between two observations of one agent instance, sorted by route.

    Empty where they cannot be compared: another instance, no time passed, or counters that fell
    (the gateway restarted). Raises InvalidFactError for observations of different sites.
    """
    if before.site_id != after.site_id:
        raise InvalidFactError(f"observations of {before.site_id} and {after.site_id} compared")
    passed_ms = after.observed_at_ms - before.observed_at_ms
    if before.instance_id != after.instance_id or passed_ms <= 0:
        return ()
    old, new = _totals(before), _totals(after)
    if any(new.get(route_id, 0) < count for route_id, count in old.items()):
        return ()
    return tuple(
        RouteRate(
            site_id=after.site_id,
            route_id=route_id,
            rate_rps=(new[route_id] - old.get(route_id, 0)) * MS_PER_S / passed_ms,
        )
        for route_id in sorted(new)
    )


def smoothed(
    rates: Mapping[Entry, float], newest: Iterable[RouteRate], *, weight: float = NEWEST_WEIGHT
) -> dict[Entry, float]:
    """Rates (req/s) moved towards the newest: ``weight * newest + (1 - weight) * before``."""
    moved = dict(rates)
    for one in newest:
        entry = (one.site_id, one.route_id)
        before = moved.get(entry, one.rate_rps)
        moved[entry] = weight * one.rate_rps + (1 - weight) * before
    return moved


def forecast(problem: Problem, rates: Mapping[Entry, float]) -> tuple[Demand, ...]:
    """Demand of every class that enters where something was counted, sorted by class id."""
    members: dict[Entry, list[tuple[str, float]]] = {}
    for one in sorted(problem.classes, key=lambda c: c.class_id):
        access = ingress_of(problem, one)
        if access is None:
            continue
        key = RouteKey(
            service_id=one.service_id,
            tenant_id=one.tenant_id,
            residency_policy_id=one.residency_policy_id,
        )
        entry = (access.site_id, key.route_id)
        members.setdefault(entry, []).append((one.class_id, problem.rate_rps(one)))
    demand = []
    for entry in sorted(members.keys() & rates.keys()):
        stated = sum(rate for _, rate in members[entry])
        for class_id, rate in members[entry]:
            part = rate / stated if stated > 0 else 1 / len(members[entry])
            demand.append(
                Demand(class_id=class_id, period=problem.period, rate_rps=rates[entry] * part)
            )
    return tuple(sorted(demand, key=lambda d: d.class_id))


def _totals(observation: SiteObservation) -> dict[str, int]:
    totals: dict[str, int] = {}
    for one in observation.gateway.routes:
        totals[one.route_id] = totals.get(one.route_id, 0) + one.requests_total
    return totals
