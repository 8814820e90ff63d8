"""Turns a problem into `Tables`: every fact the arrays need, read once, in sorted order.

Decides nothing: figures are those of `costs` and `milp.inputs`, worked out for all groups at once.
Python loops go over classes, pools, points and sites; groups (pool x point) are only ever arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.problem import Problem
from optimizer.supplies import supply_price_usd_per_w_h
from optimizer.tables import (
    LinkTable,
    SiteTable,
    SupplyTable,
    Tables,
    flags,
    floats,
    ints,
)
from optimizer.tabulate_classes import take_classes
from optimizer.tabulate_groups import take_groups, take_points, take_pools, take_variants
from sites.fleet import Site, at_period
from sites.residency import may_process
from sites.units import W_PER_KW


def tabulate(problem: Problem) -> Tables:
    """Every number of a problem as arrays. Equal problems give equal tables."""
    sites = sorted(problem.fleet.sites, key=lambda s: s.site_id)
    site_table = _sites(problem, sites)
    variants = take_variants(problem)
    points = take_points(problem, variants)
    pools = take_pools(sites)
    links = _links(problem, site_table)
    classes, routes = take_classes(problem, sites=sites, links=links)
    variant_at = {v: at for at, v in enumerate(variants.ids)}
    services = sorted(problem.services, key=lambda s: s.service_id)
    policies = sorted(problem.policies, key=lambda p: p.policy_id)
    lawful = [
        may_process(p, country=s.country, tags=s.residency_tags) for p in policies for s in sites
    ]
    return Tables(
        problem=problem,
        classes=classes,
        variants=variants,
        points=points,
        pools=pools,
        sites=site_table,
        supplies=_supplies(problem, sites),
        links=links,
        routes=routes,
        groups=take_groups(
            problem, pools=pools, points=points, variants=variants, sites=site_table
        ),
        service_ids=tuple(s.service_id for s in services),
        service_variants=tuple(
            ints(sorted(variant_at[v] for v in s.variant_ids)) for s in services
        ),
        tenant_ids=tuple(sorted(t.tenant_id for t in problem.tenants)),
        policy_ids=tuple(p.policy_id for p in policies),
        lawful=flags(lawful).reshape(len(policies), len(sites)),
    )


def _sites(problem: Problem, sites: Sequence[Site]) -> SiteTable:
    lost = set(problem.lost_sites)
    zones = [s.region or s.site_id for s in sites]
    zone_ids = tuple(sorted(set(zones)))
    zone_at = {zone: at for at, zone in enumerate(zone_ids)}
    return SiteTable(
        ids=tuple(s.site_id for s in sites),
        budget_w=floats(at_period(s.power_budget_w, problem.period) for s in sites),
        pue=floats(s.pue for s in sites),
        fixed_usd_per_h=floats(s.fixed_price_usd_per_h for s in sites),
        cordoned=flags(s.cordoned for s in sites),
        lost=flags(s.site_id in lost for s in sites),
        power_pays=flags(
            any(at_period(k.price_usd_per_kwh, problem.period) < 0 for k in s.supplies)
            for s in sites
        ),
        zone=ints(zone_at[zone] for zone in zones),
        zone_ids=zone_ids,
    )


def _supplies(problem: Problem, sites: Sequence[Site]) -> SupplyTable:
    rows = [(at, site, k) for at, site in enumerate(sites) for k in site.supplies]
    prices = [supply_price_usd_per_w_h(problem, k) for _, _, k in rows]
    return SupplyTable(
        ids=tuple(f"{site.site_id}/{k.supply_id}" for _, site, k in rows),
        site=ints(at for at, _, _ in rows),
        limit_kw=floats(at_period(k.limit_w, problem.period) / W_PER_KW for _, _, k in rows),
        usd_per_kwh=floats(energy * W_PER_KW for energy, _ in prices),
        carbon_usd_per_kwh=floats(carbon * W_PER_KW for _, carbon in prices),
        carbon_g_per_kwh=floats(at_period(k.carbon_g_per_kwh, problem.period) for _, _, k in rows),
    )


def _links(problem: Problem, sites: SiteTable) -> LinkTable:
    links = sorted(problem.fleet.links, key=lambda k: k.link_id)
    site_at = {site_id: at for at, site_id in enumerate(sites.ids)}
    return LinkTable(
        ids=tuple(k.link_id for k in links),
        site_a=ints(site_at[k.site_a] for k in links),
        site_b=ints(site_at[k.site_b] for k in links),
        rtt_ms=floats(k.rtt_ms for k in links),
        usd_per_gb=floats(k.price_usd_per_gb for k in links),
        bandwidth_mbps=floats(k.bandwidth_bps / 1e6 for k in links),
    )
