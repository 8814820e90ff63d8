"""The GPU-mix problem of Melange (Griggs et al., arXiv 2404.14527) as a one-site fleet.

One model, requests in buckets of input and output length, several accelerator types rented by the
hour; which mix serves all at the least cost? The peer is the paper's integer programme: each bucket
cut into slices, each slice on one type. Routing is continuous in a fleet, so its cost is at or
below the peer's; the same with continuous slices is the exact optimum. The paper's throughput
tables are not published with its code: throughput per bucket is our serving points', for both.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from functools import cache

import numpy as np

from benchmarks.fleets.hardware import Accelerator, accelerators, catalog
from benchmarks.fleets.tables import data_folder, rows
from benchmarks.report import head, line, ratio
from benchmarks.textbook import INF, Answer, Programme, minimise
from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.sweep import Sweep
from optimizer.tabulate import tabulate
from sites.catalog import Catalog
from sites.clock import SystemClock
from sites.fleet import (
    Fleet,
    HardwarePool,
    Market,
    MarketAccess,
    PowerSupply,
    Site,
    SupplyKind,
)
from sites.residency import ResidencyPolicy
from sites.traffic import Service, SloTarget, Tenant, TrafficClass

TYPES = ("a100-80gb", "a10g", "h100", "l4")
RENT_USD_PER_H = {"l4": 0.70, "a10g": 1.01, "a100-80gb": 3.67, "h100": 7.516}
"""On-demand rents. The A100's stands in the authors' example file; the other three are not checked
against a stored source. Both sides of the comparison pay them."""
EDGES = (1, 25, 100, 250, 500, 1_000, 2_000, 4_000, 8_000)
RATES_RPS = (4.0, 16.0, 64.0)
SLICES = 8
POOL = 256
GAP, LIMIT_S = 1e-6, 60.0


def run() -> None:
    """Print costs of the fleet, the peer with slices, its continuous limit, and single types."""
    for rate in RATES_RPS:
        head(f"Melange's GPU mix at {rate:g} requests/s")
        problem = mix(rate_rps=rate)
        loads = _loads(problem)
        started = time.perf_counter()
        outcome = solve(problem, clock=SystemClock())
        own_s = time.perf_counter() - started
        if outcome.plan is None:
            line("fleet", f"{outcome.status}: {outcome.message}")
            continue
        cost = outcome.plan.cost.total_usd_per_h
        chosen = {g.group.pool_id: g.replicas for g in outcome.plan.groups}
        line("fleet", f"${cost:.2f}/h, gap {outcome.plan.gap:.1e}, {own_s:.2f} s: {_mix(chosen)}")
        for name, slices in ((f"ILP, {SLICES} slices a bucket", SLICES), ("ILP, continuous", 0)):
            peer = paper(loads, slices=slices)
            if peer.cost is None:
                line(name, f"no point in {peer.wall_s:.1f} s")
                continue
            line(name, f"${peer.cost:.2f}/h in {peer.wall_s:.2f} s")
            ratio("fleet", cost / peer.cost, of=name)
        single = {
            t: math.ceil(float(loads[:, k].sum()) - 1e-9) * RENT_USD_PER_H[t]
            for k, t in enumerate(TYPES)
            if np.isfinite(loads[:, k]).all()
        }
        best = min(sorted(single), key=lambda t: single[t])
        ratio("fleet", cost / single[best], of=f"{best} alone (${single[best]:.2f}/h)")


def _mix(chosen: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(chosen.items()))


@cache
def _buckets() -> tuple[tuple[float, float, float], ...]:
    """(input tokens, output tokens, part of the requests) of the Azure chat and code traces."""
    counted: Counter[tuple[int, int]] = Counter()
    for name in ("azure_llm_2023_conv", "azure_llm_2023_code"):
        for row in rows(data_folder(), f"traces/{name}.csv"):
            pair = (float(row["ContextTokens"]), float(row["GeneratedTokens"]))
            inside = [min(max(_bucket_of(p), 0), len(EDGES) - 2) for p in pair]
            counted[inside[0], inside[1]] += 1
    total = sum(counted.values())
    return tuple(
        (_middle(i), _middle(o), count / total) for (i, o), count in sorted(counted.items())
    )


def _bucket_of(tokens: float) -> int:
    """The bucket a length falls into."""
    return int(np.searchsorted(EDGES, tokens, side="right")) - 1


def _middle(bucket: int) -> float:
    return math.sqrt(EDGES[bucket] * EDGES[bucket + 1])


def mix(*, rate_rps: float) -> Problem:
    """The fleet: one site, a pool per type, free power, a class per bucket, nothing shed."""
    types = tuple(a for a in accelerators(data_folder()) if a.name in TYPES)
    known = _one_model(types)
    supply = PowerSupply(
        supply_id="grid", kind=SupplyKind.GRID, limit_w=(1e7,), price_usd_per_kwh=(0.0,)
    )
    site = Site(
        site_id="cloud",
        country="US",
        power_budget_w=(1e7,),
        pue=1.0,
        supplies=(supply,),
        pools=tuple(_pool(a) for a in types),
    )
    access = MarketAccess(site_id="cloud", rtt_ms=0.0)
    return Problem(
        fleet=Fleet(
            sites=(site,), markets=(Market(market_id="m", country="US", accesses=(access,)),)
        ),
        catalog=known,
        services=(
            Service(service_id="llm", variant_ids=tuple(v.variant_id for v in known.variants)),
        ),
        tenants=(Tenant(tenant_id="t", residency_policy_id="any"),),
        policies=(
            ResidencyPolicy(policy_id="any", processing_countries=None, transit_countries=None),
        ),
        classes=tuple(
            TrafficClass(
                class_id=f"bucket{at:02d}",
                market_id="m",
                service_id="llm",
                tenant_id="t",
                residency_policy_id="any",
                slo=SloTarget(ttft_ms=1e5, tpot_ms=1e3),
                rate_rps=(rate_rps * part,),
                input_tokens=round(tokens_in, 2),
                output_tokens=round(tokens_out, 2),
            )
            for at, (tokens_in, tokens_out, part) in enumerate(_buckets())
        ),
        plan_policy=PlanPolicy(
            utilisation_ceiling=1.0,
            max_shed_basis_points=0,
            migration_horizon_h=1e9,  # the paper has no price for starting
            gap_limit=GAP,
            time_limit_s=LIMIT_S,
        ),
    )


def _one_model(types: tuple[Accelerator, ...]) -> Catalog:
    """Llama-3.1-8B at 16 bit, one accelerator a replica."""
    whole = catalog(data_folder(), models=1, types=types)
    variants = tuple(v for v in whole.variants if v.precision == "bf16")
    kept = {v.variant_id for v in variants}
    return Catalog(
        models=whole.models,
        variants=variants,
        serving_points=tuple(
            p
            for p in whole.serving_points
            if p.variant_id in kept and p.accelerators_per_replica == 1
        ),
    )


def _pool(accelerator: Accelerator) -> HardwarePool:
    return HardwarePool(
        pool_id=accelerator.name,
        accelerator=accelerator.name,
        count=POOL,
        memory_mib_per_accelerator=accelerator.memory_mib,
        price_usd_per_accelerator_h=RENT_USD_PER_H[accelerator.name],
    )


def _loads(problem: Problem) -> np.ndarray:
    """Replicas of each type that a bucket's whole demand keeps busy (inf where it may not)."""
    tables = tabulate(problem)
    sweep = Sweep(tables)
    loads = np.full((tables.classes.count, len(TYPES)), np.inf)
    for d in range(tables.classes.count):
        arcs = sweep.arcs_of(d)
        for group, busy_s in zip(arcs.group, arcs.replica_seconds, strict=True):
            kind = tables.group(int(group)).pool_id
            loads[d, TYPES.index(kind)] = busy_s * tables.classes.rate_rps[d]
    return loads


def paper(loads: np.ndarray, *, slices: int) -> Answer:
    """``min c y``, every slice on exactly one type, ``sum of loads on a type <= y``, y whole. With
    0 slices the parts are continuous.
    """
    cut = np.repeat(loads / max(slices, 1), max(slices, 1), axis=0)
    piece, kind = np.nonzero(np.isfinite(cut))
    arc, n = np.arange(len(piece)), len(TYPES)
    one = np.ones(len(arc))
    programme = Programme(
        cost=np.concatenate([np.array([RENT_USD_PER_H[t] for t in TYPES]), 0 * one]),
        high=np.concatenate([np.full(n, float(POOL)), one]),
        whole=np.concatenate([np.ones(n, dtype=bool), np.full(len(arc), slices > 0)]),
        entries=(
            (piece, n + arc, one),
            (len(cut) + kind, n + arc, cut[piece, kind]),
            (len(cut) + np.arange(n), np.arange(n), -np.ones(n)),
        ),
        row_low=np.concatenate([np.ones(len(cut)), np.full(n, -INF)]),
        row_high=np.concatenate([np.ones(len(cut)), np.zeros(n)]),
    )
    return minimise(programme, gap=GAP, limit_s=LIMIT_S)
