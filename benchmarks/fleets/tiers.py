"""Benchmark tiers S, M, L, XL: generated fleets on public data, by the Python API.

`tier(name, data=..., seed=...)` is deterministic in its arguments. Demand is 65 % of what an ideal
fleet (all accelerators of a type in one place, all power in one budget) could serve, and in every
country that part of what the sites there add to it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fleets import geography
from benchmarks.fleets.campuses import (
    access_rtts_ms,
    make_links,
    make_markets,
    make_site,
    names_of,
)
from benchmarks.fleets.demand import (
    BYTES_PER_TOKEN,
    ENVELOPE_BYTES,
    IMAGE_BYTES,
    PICKED,
    QUEUEING_MS,
    Ground,
    Wish,
    draw_wishes,
)
from benchmarks.fleets.geography import City
from benchmarks.fleets.hardware import accelerators, catalog
from benchmarks.fleets.scaling import SLACK_MS, Scaling
from benchmarks.fleets.tables import one
from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from sites.catalog import Catalog
from sites.fleet import Fleet, Link, Site
from sites.residency import ResidencyPolicy
from sites.traffic import Service, SloTarget, Tenant, TrafficClass

CEILING = 0.8
TPOT_SLO_MS = (50.0, 80.0, 120.0)
PROTECTED_SITES = 2
"""A protected class has at least so many sites that may answer it in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TierSize:
    """How large a tier is, the gap asked for and the time allowed (s)."""

    sites: int
    models: int
    classes: int
    gap_limit: float
    time_limit_s: float


TIERS = {
    "S": TierSize(sites=20, models=8, classes=100, gap_limit=0.01, time_limit_s=30),
    "M": TierSize(sites=200, models=40, classes=3_000, gap_limit=0.01, time_limit_s=30),
    "L": TierSize(sites=600, models=60, classes=10_000, gap_limit=0.02, time_limit_s=60),
    "XL": TierSize(sites=2_000, models=100, classes=20_000, gap_limit=0.03, time_limit_s=180),
}


def tier(name: str, *, data: Path, seed: int = 0) -> Problem:
    """The tier's problem. Raises KeyError for a name that is not S, M, L or XL."""
    return sized(TIERS[name], data=data, seed=seed)


def sized(size: TierSize, *, data: Path, seed: int = 0) -> Problem:
    """A generated fleet of any size, made as the tiers are."""
    chance = random.Random(seed * 1_000_003 + size.sites * 7 + size.classes)
    types = accelerators(data)
    known = catalog(data, models=size.models, types=types)
    places = geography.site_cities(data, size.sites)
    names = names_of(places)
    sites = tuple(
        make_site(chance, city, name=name, data=data, types=types, seed=seed)
        for city, name in zip(places, names, strict=True)
    )
    links = make_links(chance, places, names, data=data)
    services = tuple(
        Service(
            service_id=model.model_id,
            variant_ids=tuple(v.variant_id for v in known.variants if v.model_id == model.model_id),
        )
        for model in known.models
    )
    ground = _ground(data, places, sites, links, known=known, markets=max(12, size.classes // 6))
    wishes = draw_wishes(chance, ground, count=size.classes, data=data, slack_ms=SLACK_MS)
    scaling = Scaling(
        sites=sites, types=types, known=known, services=services, ground=ground, ceiling=CEILING
    )
    tenants = _tenants(size)
    return Problem(
        fleet=Fleet(
            sites=tuple(sorted(sites, key=lambda s: s.site_id)),
            links=links,
            markets=make_markets(ground.markets, sites, ground.access_ms),
        ),
        catalog=known,
        services=services,
        tenants=tenants,
        policies=_policies(ground),
        classes=_classes(chance, wishes, scaling=scaling, tenants=tenants),
        plan_policy=_plan_policy(size, seed=seed),
    )


def _plan_policy(size: TierSize, *, seed: int) -> PlanPolicy:
    return PlanPolicy(
        utilisation_ceiling=CEILING,
        queueing_ms_at_ceiling=QUEUEING_MS,
        carbon_usd_per_t=50.0,
        migration_usd_per_gib=0.001,
        gap_limit=size.gap_limit,
        time_limit_s=size.time_limit_s,
        seed=seed,
    )


def _tenants(size: TierSize) -> tuple[Tenant, ...]:
    return tuple(
        Tenant(tenant_id=f"tenant{k:02d}", residency_policy_id="anywhere")
        for k in range(max(5, size.classes // 200))
    )


def _ground(
    data: Path,
    places: tuple[City, ...],
    sites: tuple[Site, ...],
    links: tuple[Link, ...],
    *,
    known: Catalog,
    markets: int,
) -> Ground:
    """Who may be where, and how far it is."""
    row = one(data, "residency/residency_tags.csv", column="tag", value="EU_STRICT")
    europe = frozenset(row["allowed_iso2"].split())
    country = np.array([s.country for s in sites])
    lawful = {"": np.arange(len(sites))}
    lawful |= {c: np.flatnonzero(country == c) for c in sorted(set(country.tolist()))}
    lawful["EU"] = np.flatnonzero(np.isin(country, sorted(europe)))
    towns = _towns(data, country, count=markets)
    return Ground(
        markets=towns,
        first_token_ms=_first_token_ms(sites, known),
        picky_token_ms=_first_token_ms(sites, known, without=PICKED),
        lawful_sites=lawful,
        access_ms=access_rtts_ms(towns, places, data=data, europe=europe),
        path_ms={one: _paths_ms(sites, links, inside) for one, inside in lawful.items()},
        europe=europe,
    )


def _paths_ms(sites: tuple[Site, ...], links: tuple[Link, ...], inside: np.ndarray) -> np.ndarray:
    at = {sites[s].site_id: k for k, s in enumerate(inside)}
    known = [(at.get(k.site_a), at.get(k.site_b), k.rtt_ms) for k in links]
    return geography.path_rtts_ms(
        len(inside), [(a, b, ms) for a, b, ms in known if a is not None and b is not None]
    )


def _towns(data: Path, country: np.ndarray, *, count: int) -> tuple[City, ...]:
    """The largest cities of each country with sites, as many as its part of the sites."""
    known: dict[str, list[City]] = {}
    for city in geography.cities(data):
        known.setdefault(city.country, []).append(city)
    taken: list[City] = []
    for home in sorted(set(country.tolist())):
        share = math.ceil(count * float((country == home).mean()))
        taken += known[home][:share]
    return tuple(taken)


def _first_token_ms(sites: tuple[Site, ...], known: Catalog, *, without: str = "") -> np.ndarray:
    """Best time to first token of each model at each site, at a token time anyone accepts."""
    at = {m.model_id: k for k, m in enumerate(known.models)}
    kinds = sorted({p.accelerator for p in known.serving_points})
    count = np.array(
        [[sum(p.count for p in s.pools if p.accelerator == kind) for s in sites] for kind in kinds]
    )
    best = np.full((len(known.models), len(sites)), np.inf)
    for point in known.serving_points:
        variant = known.variant(point.variant_id)
        if point.tpot_ms > TPOT_SLO_MS[0] or variant.precision == without:
            continue
        row = best[at[variant.model_id]]
        there = count[kinds.index(point.accelerator)] >= point.accelerators_per_replica
        row[there] = np.minimum(row[there], point.ttft_ms)
    return best


def _policies(ground: Ground) -> tuple[ResidencyPolicy, ...]:
    """Anywhere; the EU; each country alone. Data may cross only where it may be processed."""
    made = [
        ResidencyPolicy(policy_id="anywhere", processing_countries=None, transit_countries=None)
    ]
    for jurisdiction in sorted(ground.lawful_sites):
        if jurisdiction:
            countries = sorted(ground.europe) if jurisdiction == "EU" else [jurisdiction]
            made.append(
                ResidencyPolicy(
                    policy_id=_policy_id(jurisdiction),
                    processing_countries=tuple(countries),
                    transit_countries=(),
                )
            )
    return tuple(made)


def _policy_id(jurisdiction: str) -> str:
    return f"{jurisdiction.lower()}-only" if jurisdiction else "anywhere"


def _classes(
    chance: random.Random, wishes: list[Wish], *, scaling: Scaling, tenants: tuple[Tenant, ...]
) -> tuple[TrafficClass, ...]:
    towns = names_of(scaling.ground.markets)
    width = len(str(len(wishes)))
    made = []
    for at, (wish, rate) in enumerate(zip(wishes, scaling.rates(wishes), strict=True)):
        reach = scaling.ground.reach_ms(wish)
        tokens = wish.lengths.input_tokens + wish.lengths.output_tokens
        service = scaling.services[wish.service]
        full = scaling.known.variant(service.variant_ids[0]).quality
        in_reach = int((reach + SLACK_MS <= wish.slo_ms).sum())
        made.append(
            TrafficClass(
                class_id=f"class{at:0{width}d}",
                market_id=towns[wish.market],
                service_id=service.service_id,
                tenant_id=chance.choice(tenants).tenant_id,
                residency_policy_id=_policy_id(wish.lawful),
                slo=SloTarget(ttft_ms=wish.slo_ms, tpot_ms=chance.choice(TPOT_SLO_MS)),
                rate_rps=(rate,),
                input_tokens=round(wish.lengths.input_tokens, 1),
                output_tokens=round(wish.lengths.output_tokens, 1),
                bytes_per_request=ENVELOPE_BYTES
                + BYTES_PER_TOKEN * round(tokens)
                + (IMAGE_BYTES if wish.image else 0.0),
                priority=wish.priority,
                protected=wish.protected and in_reach >= PROTECTED_SITES,
                quality_floor=round(full - 0.01, 4) if wish.picky else 0.0,
                source="lengths: public traces; rate: log-normal, scaled",
            )
        )
    return tuple(made)
