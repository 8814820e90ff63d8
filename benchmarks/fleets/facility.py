"""Facility location put as ordinary fleets: OR-Library instances and generated ones.

A facility is a site with a fixed price and one accelerator whose replica answers so many requests a
second; a customer is a market at a campus without hardware, linked to every facility. The price of
its whole demand at a facility is the transfer price of that link. Traffic may be split.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from sites.catalog import Catalog, Model, ServingPoint, Variant
from sites.fleet import (
    Fleet,
    HardwarePool,
    Link,
    Market,
    MarketAccess,
    PowerSupply,
    Site,
    SupplyKind,
)
from sites.residency import ResidencyPolicy
from sites.traffic import Service, SloTarget, Tenant, TrafficClass

CFLP_INSTANCES = (
    *(f"cap{n}" for n in (41, 42, 43, 44, 51)),
    *(f"cap{tens}{n}" for tens in (6, 7, 8, 9, 10, 11, 12, 13) for n in (1, 2, 3, 4)),
)
_GB_PER_REQUEST = 1 / 3_600
"""One request/s moves one GB an hour: a link's price per GB is a price per request/s and hour."""
_SUPPLY = PowerSupply(
    supply_id="grid", kind=SupplyKind.GRID, limit_w=(1e3,), price_usd_per_kwh=(0.0,)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Facilities:
    """An instance: throughput and fixed price of each facility; demand of each customer and the
    price of all of it at each facility.
    """

    throughput_rps: tuple[float, ...]
    fixed_usd_per_h: tuple[float, ...]
    demand_rps: tuple[float, ...]
    all_usd_per_h: tuple[tuple[float, ...], ...]


def read_cflp(path: Path) -> Facilities:
    """An OR-Library file. Raises ValueError where it holds more or fewer numbers than it says."""
    numbers = [float(word) for word in path.read_text(encoding="ascii").split()]
    facilities, customers = int(numbers[0]), int(numbers[1])
    wanted = 2 + 2 * facilities + customers * (1 + facilities)
    if len(numbers) != wanted:
        raise ValueError(f"{path.name}: {len(numbers)} numbers, its header asks for {wanted}")
    sites = numbers[2 : 2 + 2 * facilities]
    rest = numbers[2 + 2 * facilities :]
    lines = [rest[k : k + 1 + facilities] for k in range(0, len(rest), 1 + facilities)]
    return Facilities(
        throughput_rps=tuple(sites[0::2]),
        fixed_usd_per_h=tuple(sites[1::2]),
        demand_rps=tuple(line[0] for line in lines),
        all_usd_per_h=tuple(tuple(line[1:]) for line in lines),
    )


def cflp(path: Path, *, gap_limit: float = 5e-7) -> Problem:
    """An OR-Library instance as a fleet, a catalog and traffic, by ordinary facts alone."""
    return as_problem(read_cflp(path), gap_limit=gap_limit)


def facility_location(
    *,
    sites: int = 100,
    classes: int = 1_000,
    seed: int = 0,
    ratio: float = 5.0,
    gap_limit: float = 1e-4,
) -> Problem:
    """A generated instance as a fleet; see `generated`."""
    given = generated(sites=sites, classes=classes, seed=seed, ratio=ratio)
    return as_problem(given, gap_limit=gap_limit)


def generated(*, sites: int, classes: int, seed: int, ratio: float = 5.0) -> Facilities:
    """Places uniform in the unit square, demand U[5, 35], fixed price U[0, 90] + U[100, 110] x
    sqrt(throughput U[10, 160]), price 10 x distance per unit, throughput scaled to `ratio` times
    the demand in all. The smaller that is, the harder.

    Source of the recipe: Cornuejols, Sridharan and Thizy, EJOR 50 (1991), as used since.
    """
    chance = random.Random(seed * 1_000_003 + sites * 1_009 + classes)
    here = [(chance.random(), chance.random()) for _ in range(sites)]
    there = [(chance.random(), chance.random()) for _ in range(classes)]
    demand = [float(chance.randint(5, 35)) for _ in range(classes)]
    drawn = [chance.uniform(10, 160) for _ in range(sites)]
    fixed = [chance.uniform(0, 90) + chance.uniform(100, 110) * math.sqrt(u) for u in drawn]
    factor = ratio * math.fsum(demand) / math.fsum(drawn)
    return Facilities(
        throughput_rps=tuple(round(u * factor, 3) for u in drawn),
        fixed_usd_per_h=tuple(round(f, 3) for f in fixed),
        demand_rps=tuple(demand),
        all_usd_per_h=tuple(
            tuple(round(10 * d * math.dist(a, b), 6) for a in here)
            for b, d in zip(there, demand, strict=True)
        ),
    )


def as_problem(given: Facilities, *, gap_limit: float) -> Problem:
    """Any instance as a problem: nothing may be shed, no power, one service."""
    rates = sorted(set(given.throughput_rps))
    customers = range(len(given.demand_rps))
    width = max(3, len(str(len(customers))))
    campuses = [f"customer{j:0{width}d}" for j in customers]
    return Problem(
        fleet=Fleet(
            sites=(*(_campus(name) for name in campuses), *_facilities(given, rates)),
            links=tuple(
                Link(
                    site_a=name,
                    site_b=f"facility{i:03d}",
                    rtt_ms=1.0,
                    bandwidth_bps=1e15,
                    price_usd_per_gb=price / given.demand_rps[j],
                )
                for j, name in enumerate(campuses)
                for i, price in enumerate(given.all_usd_per_h[j])
            ),
            markets=tuple(
                Market(
                    market_id=f"market-{name}",
                    country="GB",
                    accesses=(MarketAccess(site_id=name, rtt_ms=0.0),),
                )
                for name in campuses
            ),
        ),
        catalog=_catalog(rates),
        services=(Service(service_id="goods", variant_ids=("v",)),),
        tenants=(Tenant(tenant_id="t", residency_policy_id="any"),),
        policies=(
            ResidencyPolicy(policy_id="any", processing_countries=None, transit_countries=None),
        ),
        classes=tuple(
            TrafficClass(
                class_id=f"class{j:0{width}d}",
                market_id=f"market-{name}",
                service_id="goods",
                tenant_id="t",
                residency_policy_id="any",
                slo=SloTarget(ttft_ms=2.0, tpot_ms=1.0),
                rate_rps=(given.demand_rps[j],),
                input_tokens=0.0,
                output_tokens=1.0,
                bytes_per_request=_GB_PER_REQUEST * 1e9,
            )
            for j, name in enumerate(campuses)
        ),
        plan_policy=PlanPolicy(
            utilisation_ceiling=1.0, max_shed_basis_points=0, gap_limit=gap_limit
        ),
    )


def _campus(name: str) -> Site:
    return Site(
        site_id=name, country="GB", power_budget_w=(1.0,), pue=1.0, supplies=(_SUPPLY,), pools=()
    )


def _facilities(given: Facilities, rates: list[float]) -> list[Site]:
    kind = {rate: f"acc{k}" for k, rate in enumerate(rates)}
    return [
        Site(
            site_id=f"facility{i:03d}",
            country="GB",
            power_budget_w=(1e3,),
            pue=1.0,
            supplies=(_SUPPLY,),
            pools=(
                HardwarePool(
                    pool_id="p",
                    accelerator=kind[rate],
                    count=1,
                    memory_mib_per_accelerator=1.0,
                    price_usd_per_accelerator_h=0.0,
                ),
            ),
            fixed_price_usd_per_h=fixed,
        )
        for i, (rate, fixed) in enumerate(
            zip(given.throughput_rps, given.fixed_usd_per_h, strict=True)
        )
    ]


def _catalog(rates: list[float]) -> Catalog:
    return Catalog(
        models=(Model(model_id="m", parameters_b=1.0, context_tokens=1),),
        variants=(
            Variant(
                variant_id="v",
                model_id="m",
                precision="fp16",
                weights_mib=1.0,
                kv_bytes_per_token=0.0,
                quality=1.0,
            ),
        ),
        serving_points=tuple(
            ServingPoint(
                variant_id="v",
                accelerator=f"acc{k}",
                accelerators_per_replica=1,
                decode_tok_s=rate,
                prefill_tok_s=None,
                ttft_ms=0.0,
                tpot_ms=0.0,
                concurrency=1,
                idle_w=0.0,
                full_w=0.0,
                memory_mib=1.0,
            )
            for k, rate in enumerate(rates)
        ),
    )
