"""Variants, serving points, pools and replica groups as arrays.

Decides which groups exist: every serving point on every pool of its accelerator at a site not lost,
if a replica fits there or runs there now. Prices are `costs`'s, power and room `milp.inputs`'s, for
all groups at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optimizer.costs import MIB_PER_GIB
from optimizer.problem import Problem
from optimizer.tables import (
    Floats,
    GroupTable,
    Ints,
    PointTable,
    PoolTable,
    SiteTable,
    VariantTable,
    floats,
    ints,
)
from sites.catalog import BYTES_PER_MIB
from sites.fleet import Site
from sites.units import W_PER_KW

_SLACK = 1e-9


def take_variants(problem: Problem) -> VariantTable:
    """Variants by id."""
    variants = sorted(problem.catalog.variants, key=lambda v: v.variant_id)
    context = {m.model_id: float(m.context_tokens) for m in problem.catalog.models}
    return VariantTable(
        ids=tuple(v.variant_id for v in variants),
        quality=floats(v.quality for v in variants),
        weights_mib=floats(v.weights_mib for v in variants),
        kv_bytes_per_token=floats(v.kv_bytes_per_token for v in variants),
        context_tokens=floats(context[v.model_id] for v in variants),
    )


def take_points(problem: Problem, variants: VariantTable) -> PointTable:
    """Serving points by variant, accelerator type and accelerators per replica."""
    points = sorted(
        problem.catalog.serving_points,
        key=lambda p: (p.variant_id, p.accelerator, p.accelerators_per_replica),
    )
    variant_at = {v: at for at, v in enumerate(variants.ids)}
    return PointTable(
        ids=tuple(p.point_id for p in points),
        accelerator=tuple(p.accelerator for p in points),
        variant=ints(variant_at[p.variant_id] for p in points),
        accelerators=ints(p.accelerators_per_replica for p in points),
        prefill_tok_s=floats(p.prefill_tok_s or np.inf for p in points),
        decode_tok_s=floats(p.decode_tok_s for p in points),
        concurrency=floats(p.concurrency for p in points),
        ttft_ms=floats(p.ttft_ms for p in points),
        tpot_ms=floats(p.tpot_ms for p in points),
        percentile=floats(p.percentile for p in points),
        idle_w=floats(p.idle_w for p in points),
        full_w=floats(p.full_w for p in points),
        memory_mib=floats(p.memory_mib for p in points),
        start_h=floats(p.start_h for p in points),
    )


def take_pools(sites: Sequence[Site]) -> PoolTable:
    """Hardware pools by site (in the order given) and id."""
    pools = [
        (at, site, pool)
        for at, site in enumerate(sites)
        for pool in sorted(site.pools, key=lambda p: p.pool_id)
    ]
    return PoolTable(
        ids=tuple(f"{site.site_id}/{pool.pool_id}" for _, site, pool in pools),
        accelerator=tuple(pool.accelerator for _, _, pool in pools),
        site=ints(at for at, _, _ in pools),
        count=ints(pool.count for _, _, pool in pools),
        memory_mib=floats(pool.memory_mib_per_accelerator for _, _, pool in pools),
        usd_per_accelerator_h=floats(pool.price_usd_per_accelerator_h for _, _, pool in pools),
        interruption_per_h=floats(pool.interruption_per_h for _, _, pool in pools),
    )


def take_groups(
    problem: Problem,
    *,
    pools: PoolTable,
    points: PointTable,
    variants: VariantTable,
    sites: SiteTable,
) -> GroupTable:
    """Groups by pool, then serving point (variant, accelerators)."""
    pool, point = _pairs(pools, points, sites)
    available = np.maximum(0.0, 1.0 - pools.interruption_per_h[pool] * points.start_h[point])
    fits = points.memory_mib[point] <= pools.memory_mib[pool]
    fits &= (points.accelerators[point] <= pools.count[pool]) & (available > 0)
    running = _running(problem, pool, point, pools=pools, points=points, variants=variants)
    kept = fits | (running > 0)
    pool, point, fits, running = pool[kept], point[kept], fits[kept], running[kept]
    site, variant = pools.site[pool], points.variant[point]
    pue = sites.pue[site]
    hardware = points.accelerators[point] * pools.usd_per_accelerator_h[pool]
    horizon_h = problem.plan_policy.migration_horizon_h
    moving = variants.weights_mib[variant] / MIB_PER_GIB * problem.plan_policy.migration_usd_per_gib
    start = (moving + hardware * points.start_h[point]) / horizon_h
    held_mib = points.accelerators[point] * pools.memory_mib[pool]
    return GroupTable(
        pool=pool,
        point=point,
        site=site,
        variant=variant,
        accelerators=points.accelerators[point],
        fits=fits,
        running=running,
        room=_room(pool, point, pools=pools, points=points, sites=sites),
        possible_kw=points.full_w[point] * pue / W_PER_KW,
        idle_kw=points.idle_w[point] * pue / W_PER_KW,
        busy_kw=(points.full_w[point] - points.idle_w[point]) * pue / W_PER_KW,
        hardware_usd_per_h=hardware,
        start_usd_per_h=start,
        risk_usd_per_h=pools.interruption_per_h[pool] * start * horizon_h,
        available=available[kept],
        loading_h=points.start_h[point],
        kv_room_bytes=(held_mib - variants.weights_mib[variant]) * BYTES_PER_MIB,
    )


def _pairs(pools: PoolTable, points: PointTable, sites: SiteTable) -> tuple[Ints, Ints]:
    of_type: dict[str, list[int]] = {}
    for at, accelerator in enumerate(points.accelerator):
        of_type.setdefault(accelerator, []).append(at)
    arrays = {accelerator: ints(ats) for accelerator, ats in of_type.items()}
    none = ints(())
    held = [
        none if sites.lost[site] else arrays.get(accelerator, none)
        for accelerator, site in zip(pools.accelerator, pools.site.tolist(), strict=True)
    ]
    pool = np.repeat(np.arange(len(held), dtype=np.int32), [len(h) for h in held])
    return pool, np.concatenate([none, *held])


def _running(
    problem: Problem,
    pool: Ints,
    point: Ints,
    *,
    pools: PoolTable,
    points: PointTable,
    variants: VariantTable,
) -> Ints:
    """Replicas that run now, by (pool, point) pair; a group without such a pair is left out."""
    pool_at = {pool_id: at for at, pool_id in enumerate(pools.ids)}
    point_at = {point_id: at for at, point_id in enumerate(points.ids)}
    key = pool.astype(np.int64) * max(1, len(points.ids)) + point
    running = np.zeros(len(pool), dtype=np.int32)
    for one in problem.running:
        group = one.group
        at_pool = pool_at.get(f"{group.site_id}/{group.pool_id}")
        if at_pool is None:
            continue
        point_id = (
            f"{group.variant_id}@{pools.accelerator[at_pool]}-x{group.accelerators_per_replica}"
        )
        if point_id in point_at:
            wanted = at_pool * len(points.ids) + point_at[point_id]
            at = int(np.searchsorted(key, wanted))
            if at < len(key) and key[at] == wanted:
                running[at] = one.replicas
    return running


def _room(
    pool: Ints, point: Ints, *, pools: PoolTable, points: PointTable, sites: SiteTable
) -> Ints:
    room = (pools.count[pool] // points.accelerators[point]).astype(np.float64)
    site = pools.site[pool]
    draw_w: Floats = points.full_w[point] * sites.pue[site]
    powered = draw_w > 0
    room[powered] = np.minimum(
        room[powered], np.floor(sites.budget_w[site[powered]] / draw_w[powered] + _SLACK)
    )
    return room.astype(np.int32)
