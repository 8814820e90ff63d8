"""Sites, links and markets of the tiers as facts: pools and budgets drawn, places real."""

from __future__ import annotations

import random
import re
import unicodedata
from pathlib import Path

import numpy as np

from benchmarks.fleets import geography
from benchmarks.fleets.geography import City
from benchmarks.fleets.hardware import Accelerator
from benchmarks.fleets.power import grid_of, supplies
from sites.fleet import HardwarePool, Link, Market, MarketAccess, Ownership, Site

POOL_SIZES = (4, 8, 8, 16, 16, 24, 32)
BANDWIDTHS_BPS = (5e9, 10e9, 40e9)
ACCESSES, HOME_ACCESSES = 3, 2
WEAR_PART, SPOT_PART = 0.5, 0.45
"""Price of owned and spot accelerators as a part of the rent (assumed)."""


def names_of(places: tuple[City, ...]) -> tuple[str, ...]:
    """One id per campus: country and city, numbered where a city has several."""
    seen: dict[str, int] = {}
    names = []
    for city in places:
        plain = unicodedata.normalize("NFKD", city.name).encode("ascii", "ignore").decode()
        slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
        base = f"{city.country.lower()}-{slug}"
        seen[base] = seen.get(base, 0) + 1
        names.append(base if seen[base] == 1 else f"{base}.{seen[base]}")
    return tuple(names)


def make_site(
    chance: random.Random,
    city: City,
    *,
    name: str,
    data: Path,
    types: tuple[Accelerator, ...],
    seed: int,
) -> Site:
    """1-4 pools of 4-32 accelerators; a power budget of 55-95 % of what they draw at the most."""
    drawn = chance.sample(types, chance.randint(1, 4))
    pools = tuple(_pool(chance, accelerator) for accelerator in sorted(drawn, key=lambda a: a.name))
    full_w = {a.name: a.full_w for a in drawn}
    pue = round(chance.uniform(1.1, 1.45), 3)
    peak_w = pue * sum(pool.count * full_w[pool.accelerator] for pool in pools)
    budget_w = round(chance.uniform(0.55, 0.95) * peak_w, 1)
    grid = grid_of(data, city, seed=seed)
    return Site(
        site_id=name,
        country=city.country,
        power_budget_w=(budget_w,),
        pue=pue,
        supplies=supplies(chance, grid, budget_w=budget_w),
        pools=pools,
        region=grid.zone.lower(),
        latitude=round(city.latitude, 4),
        longitude=round(city.longitude, 4),
        source="city: GeoNames",
    )


def _pool(chance: random.Random, accelerator: Accelerator) -> HardwarePool:
    ownership = chance.choices(
        (Ownership.OWNED, Ownership.RENTED, Ownership.SPOT), (0.6, 0.3, 0.1)
    )[0]
    part = {Ownership.OWNED: WEAR_PART, Ownership.RENTED: 1.0, Ownership.SPOT: SPOT_PART}
    price = accelerator.rent_usd_per_h * part[ownership] * chance.uniform(0.85, 1.2)
    spot = ownership is Ownership.SPOT
    return HardwarePool(
        pool_id=accelerator.name,
        accelerator=accelerator.name,
        count=chance.choice(POOL_SIZES),
        memory_mib_per_accelerator=accelerator.memory_mib,
        price_usd_per_accelerator_h=round(price, 4),
        ownership=ownership,
        interruption_per_h=round(chance.uniform(0.01, 0.1), 4) if spot else 0.0,
        source=accelerator.source,
    )


def make_links(
    chance: random.Random, places: tuple[City, ...], names: tuple[str, ...], *, data: Path
) -> tuple[Link, ...]:
    """The backbone: RTT by the fitted slope, price by the median transfer price per km."""
    slope = geography.rtt_fit(data).ms_per_km
    price = geography.transfer_usd_per_gb_km(data)
    links = []
    for a, b in geography.backbone(places):
        km = float(geography.distances_km(places[a : a + 1], places[b : b + 1])[0, 0])
        links.append(
            Link(
                site_a=names[a],
                site_b=names[b],
                rtt_ms=round(geography.HOP_MS + slope * km, 3),
                bandwidth_bps=chance.choice(BANDWIDTHS_BPS),
                price_usd_per_gb=round(price * km, 6),
                source="great-circle distance, slope of public inter-region RTTs",
            )
        )
    return tuple(sorted(links, key=lambda k: k.link_id))


def access_rtts_ms(
    towns: tuple[City, ...], places: tuple[City, ...], *, data: Path, europe: frozenset[str]
) -> np.ndarray:
    """RTT from every market to the sites it knows (inf to others): the nearest, the nearest at
    home and, in the EU, the nearest there.
    """
    slope = geography.rtt_fit(data).ms_per_km
    km = geography.distances_km(towns, places)
    country = np.array([p.country for p in places])
    in_europe = np.isin(country, sorted(europe))
    rtt = np.full(km.shape, np.inf)
    for at, town in enumerate(towns):
        near = np.argsort(km[at], kind="stable")
        wanted = [int(s) for s in near[:ACCESSES]]
        wanted += [int(s) for s in near if country[s] == town.country][:HOME_ACCESSES]
        if town.country in europe:
            wanted += [int(s) for s in near if in_europe[s]][:HOME_ACCESSES]
        for s in wanted:
            rtt[at, s] = round(geography.LAST_MILE_MS + slope * float(km[at, s]), 3)
    return rtt


def make_markets(
    towns: tuple[City, ...], sites: tuple[Site, ...], access_ms: np.ndarray
) -> tuple[Market, ...]:
    """One market per town with its accesses."""
    return tuple(
        Market(
            market_id=name,
            country=town.country,
            accesses=tuple(
                MarketAccess(site_id=sites[s].site_id, rtt_ms=float(access_ms[at, s]))
                for s in np.flatnonzero(np.isfinite(access_ms[at]))
            ),
            latitude=round(town.latitude, 4),
            longitude=round(town.longitude, 4),
            source="city: GeoNames",
        )
        for at, (town, name) in enumerate(zip(towns, names_of(towns), strict=True))
    )
