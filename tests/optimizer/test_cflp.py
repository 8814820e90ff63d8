"""OR-Library capacitated facility location, put as ordinary fleets: the published optima come out.

A facility is a site with a fixed price and one accelerator whose replica answers `capacity`
requests a second; a customer is a market at a campus without hardware, linked to every facility.
The price of its whole demand at a facility is the transfer price of that link. Traffic may be split
("multi"). Source of instances and optima: OR-Library (Beasley), with the public reference data.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from optimizer.arcs import find_arcs
from optimizer.milp.formulate import attempt, formulate
from optimizer.milp.highs import PointStatus
from optimizer.outcome import SolveStatus
from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from optimizer.solve import solve
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

INSTANCES = (
    *(f"cap{n}" for n in (41, 42, 43, 44, 51)),
    *(f"cap{tens}{n}" for tens in (6, 7, 8, 9, 10, 11, 12, 13) for n in (1, 2, 3, 4)),
)
RELATIVE = 1e-6
_GB_PER_REQUEST = 1 / 3_600
"""One request/s moves one GB an hour: a link's price per GB is a price per request/s and hour."""


def read_instance(path: Path) -> tuple[list[tuple[float, float]], list[tuple[float, list[float]]]]:
    """(capacity, fixed cost) of each facility; (demand, cost at each facility) of each customer."""
    numbers = iter(path.read_text(encoding="ascii").split())
    facilities, customers = int(next(numbers)), int(next(numbers))
    sites = [(float(next(numbers)), float(next(numbers))) for _ in range(facilities)]
    wants = []
    for _ in range(customers):
        demand = float(next(numbers))
        wants.append((demand, [float(next(numbers)) for _ in range(facilities)]))
    assert next(numbers, None) is None, f"{path.name}: more numbers than its header says"
    return sites, wants


def as_problem(path: Path) -> Problem:
    """The instance as a fleet, a catalog and traffic, by ordinary facts alone."""
    facilities, customers = read_instance(path)
    capacities = sorted({capacity for capacity, _ in facilities})
    supply = PowerSupply(
        supply_id="grid", kind=SupplyKind.GRID, limit_w=(1e3,), price_usd_per_kwh=(0.0,)
    )
    sites = [
        Site(
            site_id=f"facility{i:03d}",
            country="GB",
            power_budget_w=(1e3,),
            pue=1.0,
            supplies=(supply,),
            pools=(
                HardwarePool(
                    pool_id="p",
                    accelerator=f"acc{capacities.index(capacity)}",
                    count=1,
                    memory_mib_per_accelerator=1.0,
                    price_usd_per_accelerator_h=0.0,
                ),
            ),
            fixed_price_usd_per_h=fixed,
        )
        for i, (capacity, fixed) in enumerate(facilities)
    ]
    campuses = [
        Site(
            site_id=f"customer{j:03d}",
            country="GB",
            power_budget_w=(1.0,),
            pue=1.0,
            supplies=(supply,),
            pools=(),
        )
        for j in range(len(customers))
    ]
    links = [
        Link(
            site_a=f"customer{j:03d}",
            site_b=f"facility{i:03d}",
            rtt_ms=1.0,
            bandwidth_bps=1e15,
            price_usd_per_gb=cost / demand,
        )
        for j, (demand, costs) in enumerate(customers)
        for i, cost in enumerate(costs)
    ]
    markets = [
        Market(
            market_id=f"market{j:03d}",
            country="GB",
            accesses=(MarketAccess(site_id=f"customer{j:03d}", rtt_ms=0.0),),
        )
        for j in range(len(customers))
    ]
    return Problem(
        fleet=Fleet(sites=(*campuses, *sites), links=tuple(links), markets=tuple(markets)),
        catalog=_catalog(capacities),
        services=(Service(service_id="goods", variant_ids=("v",)),),
        tenants=(Tenant(tenant_id="t", residency_policy_id="any"),),
        policies=(
            ResidencyPolicy(policy_id="any", processing_countries=None, transit_countries=None),
        ),
        classes=tuple(
            TrafficClass(
                class_id=f"class{j:03d}",
                market_id=f"market{j:03d}",
                service_id="goods",
                tenant_id="t",
                residency_policy_id="any",
                slo=SloTarget(ttft_ms=2.0, tpot_ms=1.0),
                rate_rps=(demand,),
                input_tokens=0.0,
                output_tokens=1.0,
                bytes_per_request=_GB_PER_REQUEST * 1e9,
            )
            for j, (demand, _) in enumerate(customers)
        ),
        plan_policy=PlanPolicy(
            utilisation_ceiling=1.0, max_shed_basis_points=0, gap_limit=RELATIVE / 2
        ),
    )


def _catalog(capacities: list[float]) -> Catalog:
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
                decode_tok_s=capacity,
                prefill_tok_s=None,
                ttft_ms=0.0,
                tpot_ms=0.0,
                concurrency=1,
                idle_w=0.0,
                full_w=0.0,
                memory_mib=1.0,
            )
            for k, capacity in enumerate(capacities)
        ),
    )


@pytest.mark.parametrize("name", INSTANCES)
def test_published_optimum(data_dir: Path, name: str) -> None:
    folder = data_dir / "cflp"
    with (folder / "optima.csv").open(encoding="utf-8", newline="") as table:
        optima = {row["instance"]: float(row["optimum"]) for row in csv.DictReader(table)}
    problem = as_problem(folder / f"{name}.txt")

    made = attempt(formulate(problem, find_arcs(problem).arcs))

    assert made.point.status is PointStatus.PROVEN
    assert made.point.cost == pytest.approx(optima[name], rel=RELATIVE)
    assert made.point.bound <= optima[name] * (1 + RELATIVE)


def test_every_instance_is_tried(data_dir: Path) -> None:
    with (data_dir / "cflp" / "optima.csv").open(encoding="utf-8", newline="") as table:
        assert {row["instance"] for row in csv.DictReader(table)} == set(INSTANCES)


def test_a_whole_plan_costs_the_optimum_but_for_rounding(data_dir: Path) -> None:
    problem = as_problem(data_dir / "cflp" / "cap71.txt")

    outcome = solve(problem)

    assert outcome.status is SolveStatus.OPTIMAL, outcome.message
    assert outcome.plan is not None
    assert outcome.plan.cost.total_usd_per_h == pytest.approx(932_615.75, rel=1e-4)
