"""Power of the tiers' sites: hourly wholesale price and carbon of the grid zone, and the supplies.

Prices and carbon are one day of the public series (UTC), the nearest zone that has them where a
country has several. Sizes of on-site plants and contracts are drawn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.fleets.geography import City
from benchmarks.fleets.tables import hourly
from sites.fleet import PowerSupply, SupplyKind
from sites.units import HOURS_PER_DAY

USD_PER_EUR = 1.07764
"""The fixed rate of the public price series."""
GRID_FEE_USD_PER_KWH = 0.02
PEAK_FACTOR, PEAK_FEE_USD_PER_KWH = 1.5, 0.06
"""Network fee; peak tax (assumed)."""
DAYS = 200
_EU = "power/europe_dayahead_price_hourly_2024_43zones_eur_mwh.csv.gz"
_WORLD = "power/electricity_price_hourly_2024_23zones_usd_mwh.csv.gz"
_CARBON = (
    "power/carbon_hourly_2024_16zones.csv.gz",
    "power/carbon_hourly_2022_123zones.csv.gz",
)

# Zones of countries that have several, by GeoNames state; anything else falls to the first entry.
_STATES = {
    "US": {
        "": ("US-MIDA-PJM", "US-MIDA-PJM"),
        "CA": ("US-CAL-CISO", "US-CAL-CISO"),
        "NY": ("US-NY-NYIS", "US-NY-NYIS"),
        "TX": ("US-TEX-ERCO", "US-TEX-ERCO"),
        "WA": ("US-CAL-CISO", "US-NW-BPAT"),
        "OR": ("US-CAL-CISO", "US-NW-BPAT"),
        "NV": ("US-CAL-CISO", "US-NW-NEVP"),
        "AZ": ("US-CAL-CISO", "US-SW-AZPS"),
        "CO": ("US-TEX-ERCO", "US-NW-PSCO"),
        "FL": ("US-MIDA-PJM", "US-FLA-FPL"),
        "GA": ("US-MIDA-PJM", "US-SE-SOCO"),
        "TN": ("US-MIDA-PJM", "US-TEN-TVA"),
        "NC": ("US-MIDA-PJM", "US-CAR-DUK"),
        "MA": ("US-NY-NYIS", "US-NE-ISNE"),
        "CT": ("US-NY-NYIS", "US-NE-ISNE"),
        "MN": ("US-MIDA-PJM", "US-MIDW-MISO"),
        "MI": ("US-MIDA-PJM", "US-MIDW-MISO"),
        "IA": ("US-MIDA-PJM", "US-MIDW-MISO"),
        "OK": ("US-TEX-ERCO", "US-CENT-SWPP"),
        "KS": ("US-TEX-ERCO", "US-CENT-SWPP"),
    },
    "AU": {"": ("AU-NSW", "AU-NSW"), "07": ("AU-VIC", "AU-VIC"), "05": ("AU-VIC", "AU-SA")},
    "CA": {"": ("CA-ON", "CA-ON"), "10": ("CA-ON", "CA-QC")},
    "BR": {"": ("BR-CS", "BR-CS")},
    "IN": {"": ("IN-WE", "IN-WE")},
    "JP": {"": ("JP-TK", "JP-TK")},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A zone's day: wholesale price (USD/kWh) and carbon (g/kWh) per UTC hour."""

    zone: str
    usd_per_kwh: tuple[float, ...]
    g_per_kwh: tuple[float, ...]


def grid_of(data: Path, city: City, *, seed: int) -> Grid:
    """The grid of a city on one day of 2024 that the seed picks."""
    price_zone, carbon_zone = _zones(city)
    return _grid(data, price_zone=price_zone, carbon_zone=carbon_zone, day=seed * 37 % DAYS)


def _zones(city: City) -> tuple[str, str]:
    if city.country in _STATES:
        known = _STATES[city.country]
        return known.get(city.state, known[""])
    zone = city.country
    if zone == "SE":
        zone = "SE-SE4" if city.latitude < 57 else "SE-SE3" if city.latitude < 61 else "SE-SE2"
    elif zone == "NO":
        west = city.longitude < 6.5 and city.latitude > 60
        zone = "NO-NO5" if west else "NO-NO3" if city.latitude > 62 else "NO-NO1"
    elif zone == "DK":
        zone = "DK-DK1" if city.longitude < 10.9 else "DK-DK2"
    elif zone == "IT":
        zone = "IT-NO" if city.latitude > 44.2 else "IT-CSO" if city.latitude > 40.7 else "IT-SO"
    return zone, zone


@cache
def _grid(data: Path, *, price_zone: str, carbon_zone: str, day: int) -> Grid:
    if price_zone in hourly(data, _EU)[1]:
        price = _day(data, _EU, price_zone, day, factor=USD_PER_EUR / 1_000)
    else:
        price = _day(data, _WORLD, price_zone, day, factor=1 / 1_000)
    table = next(name for name in _CARBON if carbon_zone in hourly(data, name)[1])
    return Grid(
        zone=price_zone,
        usd_per_kwh=price,
        g_per_kwh=_day(data, table, carbon_zone, day, factor=1.0),
    )


def _day(data: Path, name: str, zone: str, day: int, *, factor: float) -> tuple[float, ...]:
    """24 values of a series; an hour without a value takes the mean of its hour over the series."""
    stamps, columns = hourly(data, name)
    values = columns[zone]
    hours = np.array([int(stamp[11:13]) for stamp in stamps])
    dates = [stamp[:10] for stamp in stamps]
    today = np.array(dates) == sorted(set(dates))[day]
    picked = []
    for hour in range(HOURS_PER_DAY):
        here = values[today & (hours == hour)]
        value = here[0] if len(here) and np.isfinite(here[0]) else np.nanmean(values[hours == hour])
        picked.append(round(factor * float(value), 6))
    return tuple(picked)


def supplies(chance: random.Random, grid: Grid, *, budget_w: float) -> tuple[PowerSupply, ...]:
    """On-site plant (half of the sites), contract, grid block and peak band; together they cover
    the budget.
    """
    made: list[PowerSupply] = []
    if chance.random() < 0.5:
        part = chance.uniform(0.1, 0.3)
        made.append(
            PowerSupply(
                supply_id="on-site",
                kind=SupplyKind.ON_SITE,
                limit_w=(round(part * budget_w, 1),),
                price_usd_per_kwh=(round(chance.uniform(0.03, 0.05), 4),),
                carbon_g_per_kwh=(round(chance.uniform(10, 45), 1),),
            )
        )
    made.append(
        PowerSupply(
            supply_id="ppa",
            kind=SupplyKind.PPA,
            limit_w=(round(chance.uniform(0.2, 0.4) * budget_w, 1),),
            price_usd_per_kwh=(round(chance.uniform(0.045, 0.08), 4),),
            carbon_g_per_kwh=(11.0,),
        )
    )
    price = tuple(round(p + GRID_FEE_USD_PER_KWH, 6) for p in grid.usd_per_kwh)
    made.append(
        PowerSupply(
            supply_id="grid",
            kind=SupplyKind.GRID,
            limit_w=(round(chance.uniform(0.3, 0.5) * budget_w, 1),),
            price_usd_per_kwh=price,
            carbon_g_per_kwh=grid.g_per_kwh,
            source=f"public hourly series of {grid.zone} plus a network fee",
        )
    )
    made.append(
        PowerSupply(
            supply_id="peak",
            kind=SupplyKind.PEAK,
            limit_w=(round(budget_w, 1),),
            price_usd_per_kwh=tuple(
                round(max(p, 0.0) * PEAK_FACTOR + PEAK_FEE_USD_PER_KWH, 6) for p in price
            ),
            carbon_g_per_kwh=grid.g_per_kwh,
            source=f"public hourly series of {grid.zone} with a peak tax",
        )
    )
    return tuple(sorted(made, key=lambda s: s.supply_id))
