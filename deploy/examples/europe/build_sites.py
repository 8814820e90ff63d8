"""Site, Link and Market documents: power, prices and round-trip times from the reference tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from campuses import ACCELERATORS, CAMPUSES, HOST_W, LINKS, RENTED, Campus
from tables import EUR_USD, HOURS, Point, Tables, estimated_rtt_ms

Document = tuple[str, str, dict[str, Any]]

WEAR_YEARS = 4
HOST_FACTOR = 1.4
HOURS_PER_YEAR = 8_766
BUDGET_FACTOR = 0.8
_EU_PRICES = "power/europe_dayahead_price_hourly_2024_43zones_eur_mwh.csv.gz"
_USD_PRICES = "power/electricity_price_hourly_2024_23zones_usd_mwh.csv.gz"
_AZURE_RTT, _GCP_RTT = (
    "network/azure_inter_region_rtt_ms.csv",
    "network/gcp_inter_region_rtt_ms.csv",
)
_SOLAR = (0, 0, 0, 0, 0.02, 0.1, 0.25, 0.45, 0.65, 0.8, 0.92, 1.0,
          1.0, 0.92, 0.8, 0.65, 0.45, 0.25, 0.1, 0.02, 0, 0, 0, 0)  # fmt: skip
"""Part of the peak by UTC hour: a clear day near the equinox, drawn by hand."""


def position(tables: Tables, campus: Campus) -> Point:
    """Latitude and longitude of the region a campus stands at."""
    row = (
        tables.one("network/azure_regions.csv", name=campus.azure)
        if campus.azure
        else tables.one("network/gcp_regions.csv", code=campus.gcp)
    )
    return float(row["lat"]), float(row["lon"])


def sites(tables: Tables) -> Iterator[Document]:
    """One Site document per campus."""
    for campus in CAMPUSES:
        latitude, longitude = position(tables, campus)
        pools = [_pool(tables, campus, *pool) for pool in campus.pools]
        it_w = sum(
            count * (float(_spec(tables, accelerator)["tdp_w"]) + HOST_W)
            for accelerator, count, _ in campus.pools
        )
        budget_kw = max(10, round(BUDGET_FACTOR * it_w * campus.pue / 1_000))
        yield (
            "Site",
            campus.site,
            {
                "country": campus.country,
                "region": campus.city,
                "location": {"latitude": latitude, "longitude": longitude},
                "legalEntity": f"Hinterland {campus.city} (made up)",
                "residencyTags": list(campus.tags),
                "power": {
                    "budget": f"{budget_kw} kW",
                    "pue": campus.pue,
                    "source": f"{campus.pue_source}; budget is an estimate: 80 % of all "
                    "accelerators at full draw",
                    "supplies": list(_supplies(tables, campus, budget_kw)),
                },
                "pools": pools,
                "source": f"place of cloud region {campus.azure or campus.gcp}; hardware made up",
            },
        )


def _spec(tables: Tables, accelerator: str) -> dict[str, str]:
    return tables.one("specs/accelerators.csv", accelerator=ACCELERATORS[accelerator])


def _pool(
    tables: Tables, campus: Campus, accelerator: str, count: int, terms: str
) -> dict[str, Any]:
    spec = _spec(tables, accelerator)
    if terms == "owned":
        price = float(spec["price_usd"]) * HOST_FACTOR / (WEAR_YEARS * HOURS_PER_YEAR)
        source = (
            f"wear: {spec['price_usd']} USD ({spec['price_basis']}) x {HOST_FACTOR} for host and "
            f"network over {WEAR_YEARS} years, an estimate; memory {spec['source']}"
        )
    else:
        price, source = _rent(tables, campus, accelerator, terms)
    return {
        "name": accelerator,
        "accelerator": accelerator,
        "count": count,
        "memory": f"{float(spec['mem_gb']):g} GB",
        "price": f"${price:.4f}/h",
        "ownership": "owned" if terms == "owned" else "rented",
        "source": source,
    }


def _rent(tables: Tables, campus: Campus, accelerator: str, terms: str) -> tuple[float, str]:
    name = RENTED[accelerator]
    if terms == "aws":
        rows = [
            row
            for row in tables.rows("prices/aws_accelerator_instances.csv")
            if row["accelerator"] == name and row["usd_per_accel_h"]
        ]
        here = [row for row in rows if row["region"] == campus.aws]
        row = min(
            here or [row for row in rows if row["region"] == "eu-central-1"],
            key=lambda r: (float(r["usd_per_accel_h"]), r["instance_type"]),
        )
    else:
        row = next(
            row
            for row in tables.rows("prices/other_clouds_accelerators.csv")
            if row["accelerator"] == name and row["provider"] == terms
        )
    price = float(row["usd_per_accel_h"])
    return price, f"on-demand {row['provider']} {row['instance_type']} in {row['region']}"


def _supplies(tables: Tables, campus: Campus, budget_kw: int) -> Iterator[dict[str, Any]]:
    price, price_source = _grid_price(tables, campus.zone)
    carbon, carbon_source = _grid_carbon(tables, campus.zone)
    mean = sum(price) / HOURS
    if campus.solar:
        yield {
            "name": "solar",
            "kind": "on_site",
            "limit": [f"{budget_kw * 0.3 * part:.1f} kW" for part in _SOLAR],
            "price": "$0.0300/kWh",
            "carbon": "41 g/kWh",
            "source": "estimate: roof solar of 30 % of the budget; carbon IPCC AR5 median",
        }
    if campus.ppa:
        yield {
            "name": f"{campus.ppa}-ppa",
            "kind": "ppa",
            "limit": f"{round(budget_kw * 0.4)} kW",
            "price": f"${mean * 0.9:.4f}/kWh",
            "carbon": "24 g/kWh" if campus.ppa == "hydro" else "11 g/kWh",
            "source": "estimate: 10 % below the zone's mean price; carbon IPCC AR5 median",
        }
    yield {
        "name": "grid",
        "kind": "grid",
        "limit": f"{budget_kw} kW",
        "price": [f"${value:.4f}/kWh" for value in price],
        "carbon": [f"{value:g} g/kWh" for value in carbon],
        "source": f"{price_source}; {carbon_source}; taxes and network charges left out",
    }


def _grid_price(tables: Tables, zone: str) -> tuple[list[float], str]:
    euros = tables.by_hour(_EU_PRICES, zone, 4)
    if euros is not None:
        dollars = [round(value * EUR_USD / 1_000, 4) for value in euros]
        return (
            dollars,
            f"{zone} day-ahead by UTC hour, January-August 2024, ENTSO-E, {EUR_USD} USD/EUR",
        )
    given = tables.by_hour(_USD_PRICES, zone, 4)
    if given is None:
        raise LookupError(f"no electricity price of zone {zone}")
    return [
        round(v / 1_000, 4) for v in given
    ], f"{zone} wholesale by UTC hour, 2024, sustain-cluster"


def _grid_carbon(tables: Tables, zone: str) -> tuple[list[float], str]:
    for year, file in (
        ("2024", "power/carbon_hourly_2024_16zones.csv.gz"),
        ("2022", "power/carbon_hourly_2022_123zones.csv.gz"),
    ):
        found = tables.by_hour(file, zone, 0)
        if found is not None:
            return found, f"carbon of {zone} by UTC hour, life cycle, {year}, Electricity Maps"
    raise LookupError(f"no carbon intensity of zone {zone}")


def links(tables: Tables) -> Iterator[Document]:
    """One Link document per backbone link."""
    campuses = {campus.site: campus for campus in CAMPUSES}
    rows = tables.rows("network/egress_usd_per_gb.csv")
    within = [
        float(r["usd_per_gb"])
        for r in rows
        if r["provider"] == "aws" and r["src"] == "eu-central-1" and r["dst"] == "eu-west-1"
    ]
    for a, b, transit in LINKS:
        rtt_ms, source = _link_rtt(tables, campuses[a], campuses[b])
        yield (
            "Link",
            f"{a}--{b}",
            {
                "between": [a, b],
                "rtt": f"{rtt_ms:g} ms",
                "bandwidth": "10 Gbit/s",
                "price": f"${within[0]:.4f}/GB",
                "transitCountries": transit.split() or None,
                "source": f"{source}; price AWS eu-central-1 to eu-west-1 (skyplane); bandwidth "
                "and countries crossed are estimates",
            },
        )


def _link_rtt(tables: Tables, a: Campus, b: Campus) -> tuple[float, str]:
    if a.azure and b.azure:
        rtt_ms = tables.rtt_ms(_AZURE_RTT, a.azure, b.azure)
        if rtt_ms is not None:
            return rtt_ms, f"RTT Azure {a.azure} - {b.azure}"
    if a.gcp and b.gcp:
        rtt_ms = tables.rtt_ms(_GCP_RTT, a.gcp, b.gcp)
        if rtt_ms is not None:
            return rtt_ms, f"RTT GCP {a.gcp} - {b.gcp}"
    here, there = position(tables, a), position(tables, b)
    return estimated_rtt_ms(here, there), "RTT is an estimate from distance"
