"""Where the tiers' sites and markets are, how far apart, and which links join them.

Cities are real (GeoNames), so are countries. A link's RTT is the slope of a least-squares line
through the public inter-region tables times the great-circle distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.fleets.tables import rows

EARTH_KM = 6_371.0
HOP_MS, LAST_MILE_MS = 0.3, 2.0
"""Switching per link and from a client to the public network (assumed)."""
NEIGHBOURS, HOME_NEIGHBOURS, HUB_NEIGHBOURS = 3, 2, 5

# Share of the sites by part of the world, then by population of the cities there to this power.
_PARTS = {"europe": 0.5, "usa": 0.3, "elsewhere": 0.2}
_POPULATION_POWER = 0.6
_ELSEWHERE = ("AU", "BR", "CA", "IN", "JP", "KR", "SG", "ZA")
_EUROPE = ("AT", "BE", "BG", "CH", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GB", "GR", "HR",
    "HU", "IE", "IT", "LT", "LV", "NL", "NO", "PL", "PT", "RO", "SE", "SI", "SK")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class City:
    """A city; `state` is GeoNames' first administrative division."""

    name: str
    country: str
    state: str
    latitude: float
    longitude: float
    population: int


@cache
def cities(data: Path) -> tuple[City, ...]:
    """Every city listed, once, largest first."""
    found: dict[str, City] = {}
    for table in ("world_cities_top500", "europe_cities_100k", "us_cities_100k"):
        for row in rows(data, f"cities/{table}.csv"):
            found[row["geonameid"]] = City(
                name=row["name"],
                country=row["countrycode"],
                state=row["admin1code"],
                latitude=float(row["latitude"]),
                longitude=float(row["longitude"]),
                population=int(row["population"]),
            )
    ranked = sorted(found.items(), key=lambda item: (-item[1].population, item[0]))
    return tuple(city for _, city in ranked)


def site_cities(data: Path, count: int) -> tuple[City, ...]:
    """`count` cities for sites: at least two per country taken, a city twice where there are few.

    Grouped by country; a second campus of a city lies some 30 km off.
    """
    by_country: dict[str, list[City]] = {}
    for city in cities(data):
        by_country.setdefault(city.country, []).append(city)
    weight = _country_weights(by_country)
    taken = _quota(weight, count)
    chosen: list[City] = []
    for country in sorted(taken):
        known = by_country[country]
        for at in range(taken[country]):
            city, again = known[at % len(known)], at // len(known)
            chosen.append(_moved(city, again) if again else city)
    return tuple(chosen)


def _country_weights(by_country: dict[str, list[City]]) -> dict[str, float]:
    weight: dict[str, float] = {}
    members = {"europe": _EUROPE, "usa": ("US",), "elsewhere": _ELSEWHERE}
    for part, share in _PARTS.items():
        sizes = {
            country: sum(c.population**_POPULATION_POWER for c in by_country[country])
            for country in members[part]
            if country in by_country
        }
        total = sum(sizes.values())
        weight |= {country: share * size / total for country, size in sizes.items()}
    return weight


def _quota(weight: dict[str, float], count: int) -> dict[str, int]:
    """Whole numbers of at least two by weight, the smallest countries left out, sum `count`."""
    ranked = sorted(weight, key=lambda c: (-weight[c], c))
    while len(ranked) * 2 > count or weight[ranked[-1]] / _sum(weight, ranked) * count < 0.75:
        ranked.pop()
    ideal = {c: weight[c] / _sum(weight, ranked) * count for c in ranked}
    taken = {c: max(2, int(ideal[c])) for c in ranked}
    while sum(taken.values()) != count:
        step = 1 if sum(taken.values()) < count else -1
        movable = [c for c in ranked if taken[c] + step >= 2]
        best = max(movable, key=lambda c: (step * (ideal[c] - taken[c]), c))
        taken[best] += step
    return taken


def _sum(weight: dict[str, float], countries: Iterable[str]) -> float:
    return math.fsum(weight[c] for c in countries)


def _moved(city: City, again: int) -> City:
    angle = 2.4 * again
    return City(
        name=f"{city.name} {again + 1}",
        country=city.country,
        state=city.state,
        latitude=max(-85.0, min(85.0, city.latitude + 0.27 * math.sin(angle))),
        longitude=max(-180.0, min(180.0, city.longitude + 0.4 * math.cos(angle))),
        population=city.population,
    )


def distances_km(here: Iterable[City], there: Iterable[City]) -> np.ndarray:
    """Great-circle distances (km), one row per city of `here`."""
    a = np.radians([(c.latitude, c.longitude) for c in here])
    b = np.radians([(c.latitude, c.longitude) for c in there])
    dlat = a[:, None, 0] - b[None, :, 0]
    dlon = a[:, None, 1] - b[None, :, 1]
    inner = np.sin(dlat / 2) ** 2
    inner += np.cos(a[:, None, 0]) * np.cos(b[None, :, 0]) * np.sin(dlon / 2) ** 2
    return np.asarray(2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(inner, 0, 1))))


@dataclass(frozen=True, kw_only=True, slots=True)
class RttFit:
    """``rtt_ms = offset_ms + ms_per_km * km`` and its median relative error over `pairs` pairs."""

    offset_ms: float
    ms_per_km: float
    median_error: float
    pairs: int


@cache
def rtt_fit(data: Path) -> RttFit:
    """Least squares on the relative error over Azure's and GCP's inter-region tables."""
    km: list[float] = []
    rtt: list[float] = []
    for provider, key in (("azure", "name"), ("gcp", "")):
        where = {
            row[key or "code"]: (float(row["lat"]), float(row["lon"]))
            for row in rows(data, f"network/{provider}_regions.csv")
        }
        for row in rows(data, f"network/{provider}_inter_region_rtt_ms.csv"):
            if row["src"] in where and row["dst"] in where and float(row["rtt_ms"]) > 0:
                ends = [_point(*where[row[end]]) for end in ("src", "dst")]
                km.append(float(distances_km(ends[:1], ends[1:])[0, 0]))
                rtt.append(float(row["rtt_ms"]))
    x, y = np.array(km), np.array(rtt)
    # Weighted by 1/rtt: an error of one part in ten counts alike near and far.
    rows_of = np.stack([np.ones_like(x), x], axis=1) / y[:, None]
    offset, slope = np.linalg.lstsq(rows_of, np.ones_like(y), rcond=None)[0]
    error = np.median(np.abs(offset + slope * x - y) / y)
    return RttFit(
        offset_ms=round(float(offset), 4),
        ms_per_km=round(float(slope), 6),
        median_error=float(error),
        pairs=len(km),
    )


def _point(latitude: float, longitude: float) -> City:
    return City(name="", country="", state="", latitude=latitude, longitude=longitude, population=0)


@cache
def transfer_usd_per_gb_km(data: Path) -> float:
    """Median transfer price per GB and km between AWS regions (USD)."""
    where = {
        row["region"]: (float(row["lat"]), float(row["lon"]))
        for row in rows(data, "prices/aws_regions.csv")
    }
    found = []
    for row in rows(data, "network/egress_usd_per_gb.csv"):
        if row["provider"] == "aws" and row["src"] in where and row["dst"] in where:
            ends = [_point(*where[row[end]]) for end in ("src", "dst")]
            km = float(distances_km(ends[:1], ends[1:])[0, 0])
            if km > 0:
                found.append(float(row["usd_per_gb"]) / km)
    return round(float(np.median(found)), 9)


def backbone(places: tuple[City, ...]) -> list[tuple[int, int]]:
    """Links as pairs of positions: nearest neighbours abroad and at home, a spanning tree within
    each country, and each country's largest campus joined to the nearest others'.
    """
    km = distances_km(places, places)
    np.fill_diagonal(km, np.inf)
    country = np.array([p.country for p in places])
    found: set[tuple[int, int]] = set()

    def join(a: int, b: int) -> None:
        found.add((min(a, b), max(a, b)))

    for a in range(len(places)):
        for b in np.argsort(km[a], kind="stable")[:NEIGHBOURS]:
            join(a, int(b))
        home = np.flatnonzero((country == country[a]) & (np.arange(len(places)) != a))
        for b in home[np.argsort(km[a, home], kind="stable")][:HOME_NEIGHBOURS]:
            join(a, int(b))
    hubs = []
    for one in sorted(set(country.tolist())):
        members = np.flatnonzero(country == one)
        hubs.append(int(max(members, key=lambda i: (places[i].population, -i))))
        for a, b in _spanning_tree(members, km):
            join(a, b)
    at = np.array(hubs)
    for hub in hubs:
        for b in at[np.argsort(km[hub, at], kind="stable")][:HUB_NEIGHBOURS]:
            if int(b) != hub:
                join(hub, int(b))
    for a, b in _spanning_tree(at, km):
        join(a, b)
    return sorted(found)


def _spanning_tree(members: np.ndarray, km: np.ndarray) -> list[tuple[int, int]]:
    """Shortest links that join all members (Prim)."""
    outside = [int(m) for m in members[1:]]
    nearest = {m: (float(km[members[0], m]), int(members[0])) for m in outside}
    links = []
    while nearest:
        new = min(nearest, key=lambda m: (nearest[m][0], m))
        links.append((nearest.pop(new)[1], new))
        for m, (far, _) in nearest.items():
            if km[new, m] < far:
                nearest[m] = (float(km[new, m]), new)
    return links


def path_rtts_ms(places: int, links: list[tuple[int, int, float]]) -> np.ndarray:
    """Shortest path RTT between all places (inf where there is none); links as (a, b, ms)."""
    near: list[list[tuple[int, float]]] = [[] for _ in range(places)]
    for a, b, ms in links:
        near[a].append((b, ms))
        near[b].append((a, ms))
    # k-th neighbours of all places that have one, so that a round is one array step per k.
    steps = []
    for k in range(max((len(n) for n in near), default=0)):
        here = np.array([p for p in range(places) if len(near[p]) > k])
        there = np.array([near[p][k][0] for p in here])
        weight = np.array([near[p][k][1] for p in here], dtype=np.float32)
        steps.append((here, there, weight[:, None]))
    best = np.full((places, places), np.inf, dtype=np.float32)
    np.fill_diagonal(best, 0.0)
    for columns in np.array_split(np.arange(places), max(1, places // 128)):
        block = best[:, columns]
        for _ in range(places):
            before = block.copy()
            for here, there, weight in steps:
                block[here] = np.minimum(block[here], block[there] + weight)
            if np.array_equal(before, block):
                break
        best[:, columns] = block
    return best
