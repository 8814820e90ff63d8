"""The numbers of one problem as arrays: what large fleets are swept, compiled and searched from.

Facts only: every array is indexed by a position, ids stand in tuples beside them. Positions follow
the sorted ids (groups: site, pool, variant, accelerators), so equal problems give equal tables. Who
fills them is `tabulate`; which (class, group) pairs are arcs is `sweep`'s question; no arc is
stored here. A name without a table's prefix in its docstring is indexed by that table's position.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.problem import Problem
from sites.assignment import ReplicaGroup

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]

NOWHERE = -1
"""Position of something that is not there: a class's route without ingress, a path's end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTable:
    """Traffic classes with demand in the period.

    `service`, `tenant`, `policy` index the tables' id tuples, `route` the routes (NOWHERE: no
    ingress). `access_ms` is market to ingress. `shed_usd_per_h_per_rps` prices one request/s not
    served. `kv_tokens` is input + output, `longest_tokens` the larger of that and the class's own
    context length.
    """

    ids: tuple[str, ...]
    rate_rps: Floats
    input_tokens: Floats
    output_tokens: Floats
    kv_tokens: Floats
    longest_tokens: Floats
    bytes_per_request: Floats
    shed_usd_per_h_per_rps: Floats
    service: Ints
    tenant: Ints
    policy: Ints
    route: Ints
    access_ms: Floats
    slo_ttft_ms: Floats
    slo_tpot_ms: Floats
    slo_percentile: Floats
    over_mix: Flags
    quality_floor: Floats
    mean_quality_floor: Floats
    spread_sites: Ints
    spread_zones: Ints
    protected: Flags

    @property
    def count(self) -> int:
        """How many classes."""
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointTable:
    """Serving points, sorted by variant, accelerator type, accelerators per replica.

    `prefill_tok_s` is inf where input tokens cost nothing more.
    """

    ids: tuple[str, ...]
    accelerator: tuple[str, ...]
    variant: Ints
    accelerators: Ints
    prefill_tok_s: Floats
    decode_tok_s: Floats
    concurrency: Floats
    ttft_ms: Floats
    tpot_ms: Floats
    percentile: Floats
    idle_w: Floats
    full_w: Floats
    memory_mib: Floats
    start_h: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantTable:
    """Variants, sorted by id, with the context length of their models."""

    ids: tuple[str, ...]
    quality: Floats
    weights_mib: Floats
    kv_bytes_per_token: Floats
    context_tokens: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolTable:
    """Hardware pools, sorted by site and pool id; ids are ``site/pool``."""

    ids: tuple[str, ...]
    accelerator: tuple[str, ...]
    site: Ints
    count: Ints
    memory_mib: Floats
    usd_per_accelerator_h: Floats
    interruption_per_h: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteTable:
    """Sites. `zone` indexes `zone_ids`: the region, or the site itself where it names none.

    `power_pays`: some supply costs less than nothing in this period.
    """

    ids: tuple[str, ...]
    budget_w: Floats
    pue: Floats
    fixed_usd_per_h: Floats
    cordoned: Flags
    lost: Flags
    power_pays: Flags
    zone: Ints
    zone_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SupplyTable:
    """Power supplies, by site, in the fleet's order; ids are ``site/supply``.

    `usd_per_kwh` is energy, `carbon_usd_per_kwh` the price of its emission.
    """

    ids: tuple[str, ...]
    site: Ints
    limit_kw: Floats
    usd_per_kwh: Floats
    carbon_usd_per_kwh: Floats
    carbon_g_per_kwh: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkTable:
    """Backbone links and their two ends (site positions)."""

    ids: tuple[str, ...]
    site_a: Ints
    site_b: Ints
    rtt_ms: Floats
    usd_per_gb: Floats
    bandwidth_mbps: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteTable:
    """Lawful shortest paths from an ingress under a crossing rule: row = route, column = site.

    `source` is the ingress (site position). `rtt_ms` is inf where no lawful path leads. `via_link`
    is the last link of the path, NOWHERE at the source and where no path leads.
    """

    source: Ints
    rtt_ms: Floats
    usd_per_gb: Floats
    via_link: Ints


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupTable:
    """Replica groups at sites not lost: every serving point on every pool of its accelerator.

    `fits`: a replica fits the pool's memory and count (one that does not is listed only where it
    runs now). Power is per replica in kW, cooling included: `possible_kw` at full use, `idle_kw`,
    `busy_kw` what a busy one draws beyond an idle one. Prices are per replica, `start_usd_per_h`
    over the migration horizon, `risk_usd_per_h` of spot interruptions. `available` is the part of
    the time a replica is there, `loading_h` its time from start to ready, `kv_room_bytes` its
    memory less weights. `room` is the most replicas pool and power budget allow.
    """

    pool: Ints
    point: Ints
    site: Ints
    variant: Ints
    accelerators: Ints
    fits: Flags
    running: Ints
    room: Ints
    possible_kw: Floats
    idle_kw: Floats
    busy_kw: Floats
    hardware_usd_per_h: Floats
    start_usd_per_h: Floats
    risk_usd_per_h: Floats
    available: Floats
    loading_h: Floats
    kv_room_bytes: Floats

    @property
    def count(self) -> int:
        """How many groups."""
        return len(self.pool)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """One problem as arrays.

    `service_variants[service]` lists the variants that may answer it; `lawful[policy, site]` says
    where data may be processed.
    """

    problem: Problem
    classes: ClassTable
    variants: VariantTable
    points: PointTable
    pools: PoolTable
    sites: SiteTable
    supplies: SupplyTable
    links: LinkTable
    routes: RouteTable
    groups: GroupTable
    service_ids: tuple[str, ...]
    service_variants: tuple[Ints, ...]
    tenant_ids: tuple[str, ...]
    policy_ids: tuple[str, ...]
    lawful: Flags

    def group(self, at: int) -> ReplicaGroup:
        """The replica group at a position."""
        pool = int(self.groups.pool[at])
        site_id = self.sites.ids[int(self.pools.site[pool])]
        return ReplicaGroup(
            site_id=site_id,
            pool_id=self.pools.ids[pool].removeprefix(f"{site_id}/"),
            variant_id=self.variants.ids[int(self.groups.variant[at])],
            accelerators_per_replica=int(self.groups.accelerators[at]),
        )

    def group_id(self, at: int) -> str:
        """``site/pool/variant/xN``: id of the group at a position, without making the group."""
        groups = self.groups
        pool, variant = self.pools.ids[groups.pool[at]], self.variants.ids[groups.variant[at]]
        return f"{pool}/{variant}/x{groups.accelerators[at]}"

    def positions(self, group_ids: Iterable[str]) -> dict[str, int]:
        """Position of each group of some ids; ids of no group are left out."""
        groups, wide = self.groups, int(self.groups.accelerators.max(initial=0)) + 1
        pool_at = {pool_id: at for at, pool_id in enumerate(self.pools.ids)}
        variant_at = {variant_id: at for at, variant_id in enumerate(self.variants.ids)}
        own = (groups.pool.astype(np.int64) * len(variant_at) + groups.variant) * wide
        own += groups.accelerators
        order = np.argsort(own, kind="stable")
        ids: list[str] = []
        keys: list[int] = []
        for group_id in group_ids:
            start, _, count = group_id.rpartition("/x")
            if not count.isdecimal() or int(count) >= wide:
                continue
            for cut in (at for at, sign in enumerate(start) if sign == "/"):  # any id may have some
                pool, variant = pool_at.get(start[:cut]), variant_at.get(start[cut + 1 :])
                if pool is not None and variant is not None:
                    ids.append(group_id)
                    keys.append((pool * len(variant_at) + variant) * wide + int(count))
        at = np.searchsorted(own, np.array(keys, dtype=np.int64), sorter=order)
        found = zip(ids, order.take(at, mode="clip").tolist() if len(order) else [], strict=False)
        return {group_id: here for group_id, here in found if self.group_id(here) == group_id}


def floats(values: Iterable[float]) -> Floats:
    """Values as a table column of float64."""
    return np.array(list(values), dtype=np.float64)


def ints(values: Iterable[int]) -> Ints:
    """Values as a table column of int32."""
    return np.array(list(values), dtype=np.int32)


def flags(values: Iterable[bool]) -> Flags:
    """Values as a table column of truth values."""
    return np.array(list(values), dtype=np.bool_)
