"""The classes of a problem as arrays: rates, tokens, targets, where each enters, its route row.

Decides ingress by `backbone`'s rule: the nearest access that is not lost and whose country the
class's data may cross. Policies that may cross the same countries of this fleet share routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optimizer.problem import Problem
from optimizer.tables import (
    NOWHERE,
    ClassTable,
    Flags,
    LinkTable,
    RouteTable,
    Tables,
    flags,
    floats,
    ints,
)
from optimizer.tabulate_routes import find_routes
from sites.fleet import MarketAccess, Site, at_period
from sites.residency import may_transit
from sites.traffic import TrafficClass
from sites.units import S_PER_H

_TOKENS_PER_MTOK = 1e6


def take_classes(
    problem: Problem, *, sites: Sequence[Site], links: LinkTable
) -> tuple[ClassTable, RouteTable]:
    """Classes with demand, by id, and the routes they need. `sites` in table order."""
    rates = _rates(problem)
    classes = sorted(
        (c for c in problem.classes if rates[c.class_id] > 0), key=lambda c: c.class_id
    )
    crossing = _crossing(problem, sites)
    access = [crossing.access(c) for c in classes]
    routes, route = _routed(crossing, classes, access=access, sites=sites, links=links)
    access_ms = [0.0 if entry is None else entry.rtt_ms for entry in access]
    return _table(problem, classes, rates=rates, route=route, access_ms=access_ms), routes


def at_next_ingress(tables: Tables) -> Tables:
    """The tables with every class entering where it would if its own ingress were lost.

    Groups at the lost ingress are still listed: which site that is differs from class to class.
    """
    problem = tables.problem
    sites = sorted(problem.fleet.sites, key=lambda s: s.site_id)
    of_id = {one.class_id: one for one in problem.classes}
    classes = [of_id[class_id] for class_id in tables.classes.ids]
    crossing = _crossing(problem, sites)
    access = [crossing.access(c, after=crossing.access(c)) for c in classes]
    routes, route = _routed(crossing, classes, access=access, sites=sites, links=tables.links)
    access_ms = floats(0.0 if entry is None else entry.rtt_ms for entry in access)
    moved = replace(tables.classes, route=ints(route), access_ms=access_ms)
    return replace(tables, classes=moved, routes=routes)


def _routed(
    crossing: _Crossing,
    classes: Sequence[TrafficClass],
    *,
    access: Sequence[MarketAccess | None],
    sites: Sequence[Site],
    links: LinkTable,
) -> tuple[RouteTable, list[int]]:
    """The routes that classes entering at `access` need, and the row of each class."""
    sources: dict[int, set[int]] = {}
    for one, entry in zip(classes, access, strict=True):
        if entry is not None:
            rule = crossing.rule_of[one.residency_policy_id]
            sources.setdefault(rule, set()).add(crossing.site_at[entry.site_id])
    open_sites, open_links = crossing.masks(sites, links)
    routes, rows = find_routes(links, sources, open_sites=open_sites, open_links=open_links)
    return routes, [
        NOWHERE
        if entry is None
        else rows[crossing.rule_of[one.residency_policy_id], crossing.site_at[entry.site_id]]
        for one, entry in zip(classes, access, strict=True)
    ]


def _rates(problem: Problem) -> dict[str, float]:
    forecast = {
        d.class_id: d.rate_rps for d in reversed(problem.demand) if d.period == problem.period
    }
    return {
        c.class_id: forecast.get(c.class_id, at_period(c.rate_rps, problem.period))
        for c in problem.classes
    }


def _table(
    problem: Problem,
    classes: Sequence[TrafficClass],
    *,
    rates: dict[str, float],
    route: Sequence[int],
    access_ms: Sequence[float],
) -> ClassTable:
    service_at = _positions(s.service_id for s in problem.services)
    tenant_at = _positions(t.tenant_id for t in problem.tenants)
    policy_at = _positions(p.policy_id for p in problem.policies)
    per_mtok = problem.plan_policy.shed_usd_per_mtok
    kv_tokens = floats(c.input_tokens + c.output_tokens for c in classes)
    context = floats(c.context_tokens for c in classes)
    return ClassTable(
        ids=tuple(c.class_id for c in classes),
        rate_rps=floats(rates[c.class_id] for c in classes),
        input_tokens=floats(c.input_tokens for c in classes),
        output_tokens=floats(c.output_tokens for c in classes),
        kv_tokens=kv_tokens,
        longest_tokens=np.maximum(context, kv_tokens),
        bytes_per_request=floats(c.bytes_per_request for c in classes),
        shed_usd_per_h_per_rps=floats(
            c.output_tokens * S_PER_H / _TOKENS_PER_MTOK * per_mtok * (10 - c.priority)
            for c in classes
        ),
        service=ints(service_at[c.service_id] for c in classes),
        tenant=ints(tenant_at[c.tenant_id] for c in classes),
        policy=ints(policy_at[c.residency_policy_id] for c in classes),
        route=ints(route),
        access_ms=floats(access_ms),
        slo_ttft_ms=floats(c.slo.ttft_ms for c in classes),
        slo_tpot_ms=floats(c.slo.tpot_ms for c in classes),
        slo_percentile=floats(c.slo.percentile for c in classes),
        over_mix=flags(c.slo.over_mix for c in classes),
        quality_floor=floats(c.quality_floor for c in classes),
        mean_quality_floor=floats(c.mean_quality_floor for c in classes),
        spread_sites=ints(c.spread_sites for c in classes),
        spread_zones=ints(c.spread_zones for c in classes),
        protected=flags(c.protected for c in classes),
    )


def _positions(ids: Iterable[str]) -> dict[str, int]:
    return {one: at for at, one in enumerate(sorted(ids))}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Crossing:
    """Who may cross which countries; a rule is a distinct answer over the fleet's countries."""

    problem: Problem
    markets: dict[str, tuple[MarketAccess, ...]]
    country_of: dict[str, str]
    site_at: dict[str, int]
    rule_of: dict[str, int]
    rules: tuple[frozenset[str], ...]

    def access(
        self, one: TrafficClass, *, after: MarketAccess | None = None
    ) -> MarketAccess | None:
        """The nearest access that is not lost and in a country the class's data may cross.

        `after`: the site of that access is lost too.
        """
        allowed = self.rules[self.rule_of[one.residency_policy_id]]
        gone = {*self.problem.lost_sites} | ({after.site_id} if after else set())
        for access in self.markets[one.market_id]:
            lost = access.site_id in gone
            if not lost and self.country_of[access.site_id] in allowed:
                return access
        return None

    def masks(self, sites: Sequence[Site], links: LinkTable) -> tuple[Flags, Flags]:
        """[rule, site] and [rule, link] that may be crossed; a link only with both its ends."""
        between = {k.link_id: k.transit_countries for k in self.problem.fleet.links}
        open_sites = flags(s.country in rule for rule in self.rules for s in sites)
        open_sites = open_sites.reshape(len(self.rules), len(sites))
        open_links = flags(
            rule.issuperset(between[link_id]) for rule in self.rules for link_id in links.ids
        ).reshape(len(self.rules), len(links.ids))
        open_links &= open_sites[:, links.site_a] & open_sites[:, links.site_b]
        return open_sites, open_links


def _crossing(problem: Problem, sites: Sequence[Site]) -> _Crossing:
    countries = {s.country for s in sites}
    countries.update(c for k in problem.fleet.links for c in k.transit_countries)
    ordered = sorted(countries)
    rules: dict[frozenset[str], int] = {}
    rule_of: dict[str, int] = {}
    for policy in sorted(problem.policies, key=lambda p: p.policy_id):
        allowed = frozenset(c for c in ordered if may_transit(policy, country=c))
        rule_of[policy.policy_id] = rules.setdefault(allowed, len(rules))
    return _Crossing(
        problem=problem,
        markets={m.market_id: m.by_distance() for m in problem.fleet.markets},
        country_of={s.site_id: s.country for s in sites},
        site_at={s.site_id: at for at, s in enumerate(sites)},
        rule_of=rule_of,
        rules=tuple(rules),
    )
