"""What a plan costs, from raw facts: one function per term of the objective, none of the solver's.

Decides nothing about what to run. The formulation prices the same terms as rows and columns; plans
carry the figures worked out here, from their rounded shares, so a plan says what it really costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import fsum, inf

from optimizer.plan import (
    CostBreakdown,
    ExposedTraffic,
    Plan,
    PlannedGroup,
    ShedTraffic,
    SupplyUse,
    SurvivalShare,
    TrafficShare,
)
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.supplies import supply_price_usd_per_w_h, supply_stacks
from sites.assignment import ReplicaGroup
from sites.fleet import at_period
from sites.units import BYTES_PER_GB, S_PER_H, WHOLE_BP

MIB_PER_GIB = 1024.0
TOKENS_PER_MTOK = 1e6


def replica_price_usd_per_h(reach: Reach, group: ReplicaGroup) -> float:
    """Hardware of one replica: accelerators x the pool's price per accelerator (USD/h)."""
    pool = reach.pool(group)
    assert pool is not None, f"{group.group_id} stands on no pool"
    return group.accelerators_per_replica * pool.price_usd_per_accelerator_h


def start_price_usd_per_h(reach: Reach, group: ReplicaGroup) -> float:
    """Starting one replica, spread over the migration horizon (USD/h).

    (weights in GiB x `migration_usd_per_gib` + its hardware while it loads and serves nothing:
    replica price x start time) / `migration_horizon_h`.
    """
    policy = reach.problem.plan_policy
    point = reach.point(group)
    assert point is not None, f"{group.group_id} has no serving point"
    weights_gib = reach.problem.catalog.variant(group.variant_id).weights_mib / MIB_PER_GIB
    moving = weights_gib * policy.migration_usd_per_gib
    waiting = replica_price_usd_per_h(reach, group) * point.start_h
    return (moving + waiting) / policy.migration_horizon_h


def risk_price_usd_per_h(reach: Reach, group: ReplicaGroup) -> float:
    """Expected interruptions of one replica (USD/h): interruptions per hour x one start (USD).

    One start costs its price per hour of the migration horizon, times that horizon. 0 for pools
    that are not spot ones.
    """
    pool = reach.pool(group)
    assert pool is not None, f"{group.group_id} stands on no pool"
    if pool.interruption_per_h == 0:
        return 0.0
    horizon_h = reach.problem.plan_policy.migration_horizon_h
    return pool.interruption_per_h * start_price_usd_per_h(reach, group) * horizon_h


def available_part(reach: Reach, group: ReplicaGroup) -> float:
    """Part of the time a replica of the group is there, between 0 and 1 (below 1: spot pools)."""
    pool, point = reach.pool(group), reach.point(group)
    assert pool is not None and point is not None, f"{group.group_id} has no serving point"
    return point.availability(interruption_per_h=pool.interruption_per_h)


def usable_part(reach: Reach, group: ReplicaGroup) -> float:
    """Busy replicas each replica of the group may carry: utilisation ceiling x available part."""
    return reach.problem.plan_policy.utilisation_ceiling * available_part(reach, group)


def shed_price_usd_per_h(reach: Reach, class_id: str) -> float:
    """Not serving a whole class (USD/h): output tokens/h x shed price x (10 - priority)."""
    one = reach.classes[class_id]
    mtok_per_h = reach.rates[class_id] * one.output_tokens * S_PER_H / TOKENS_PER_MTOK
    return mtok_per_h * reach.problem.plan_policy.shed_usd_per_mtok * (10 - one.priority)


def network_usd_per_request(reach: Reach, class_id: str, *, site_id: str) -> float:
    """Transfer of one request and its answer over the lawful path (USD); 0 with no path."""
    one = reach.classes[class_id]
    way = reach.way(one, site_id)
    return 0.0 if way is None else one.bytes_per_request / BYTES_PER_GB * way.price_usd_per_gb


def busy_price_usd_per_h(reach: Reach, group: ReplicaGroup, *, usd_per_w_h: float) -> float:
    """One busy replica for an hour where all are used to the ceiling (USD): hardware, the risk of
    interruptions, power at `usd_per_w_h`.

    The group must stand on a pool with a serving point; inf where its replicas never are there.
    """
    point, site = reach.point(group), reach.site(group.site_id)
    assert point is not None and site is not None, f"{group.group_id} has no serving point"
    usable = usable_part(reach, group)
    if usable == 0:
        return inf
    watts = (point.idle_w / usable + point.full_w - point.idle_w) * site.pue
    held = replica_price_usd_per_h(reach, group) + risk_price_usd_per_h(reach, group)
    return held / usable + watts * usd_per_w_h


def charged_price_usd_per_h(reach: Reach, group: ReplicaGroup) -> float:
    """One busy replica for an hour as tenants are charged for it (USD): at the dearest supply.

    So what a tenant is charged does not hang on who else draws there. Power that is paid for taking
    counts as free, not as income.
    """
    site = reach.site(group.site_id)
    assert site is not None, f"{group.group_id} stands at no site"
    dearest = max(sum(supply_price_usd_per_w_h(reach.problem, k)) for k in site.supplies)
    return busy_price_usd_per_h(reach, group, usd_per_w_h=max(0.0, dearest))


def full_request_usd(
    reach: Reach, class_id: str, *, group: ReplicaGroup, usd_per_w_h: float
) -> float:
    """One request of a class on replicas used to the ceiling (USD): a busy replica, network."""
    price = busy_price_usd_per_h(reach, group, usd_per_w_h=usd_per_w_h)
    busy_s = reach.replica_seconds(reach.classes[class_id], group)
    network = network_usd_per_request(reach, class_id, site_id=group.site_id)
    return price * busy_s / S_PER_H + network


def budget_request_usd(reach: Reach, class_id: str, *, group: ReplicaGroup) -> float:
    """What one request of a class at a group counts against its tenant's budget (USD)."""
    busy_s = reach.replica_seconds(reach.classes[class_id], group)
    network = network_usd_per_request(reach, class_id, site_id=group.site_id)
    return charged_price_usd_per_h(reach, group) * busy_s / S_PER_H + network


def exposure_usd_per_h(reach: Reach, exposed: Iterable[ExposedTraffic]) -> float:
    """Protected traffic that the loss of one site would leave unserved (USD/h), over all losses.

    `exposure_part` x shed price x part of the class.
    """
    part = reach.problem.plan_policy.exposure_part
    return fsum(
        part * shed_price_usd_per_h(reach, e.class_id) * e.basis_points / WHOLE_BP for e in exposed
    )


def busy_replicas(
    reach: Reach, groups: Mapping[str, ReplicaGroup], *, shares: Iterable[TrafficShare]
) -> dict[str, float]:
    """Replicas kept busy by the shares of each group (rate x share x replica-seconds), by id."""
    busy = dict.fromkeys(sorted(groups), 0.0)
    for share in shares:
        if share.group_id in groups:
            one = reach.classes[share.class_id]
            rate = reach.rates[share.class_id] * share.basis_points / WHOLE_BP
            busy[share.group_id] += rate * reach.replica_seconds(one, groups[share.group_id])
    return busy


def draw_w(
    reach: Reach, groups: Iterable[PlannedGroup], shares: Iterable[TrafficShare]
) -> dict[str, float]:
    """Mean draw of each site with replicas (W, cooling included).

    (idle x replicas + (full - idle) x busy replicas) x PUE, summed over the site's groups.
    """
    planned = {g.group.group_id: g for g in groups}
    busy = busy_replicas(reach, {k: g.group for k, g in planned.items()}, shares=shares)
    drawn: dict[str, float] = {}
    for group_id in sorted(planned):
        group, replicas = planned[group_id].group, planned[group_id].replicas
        point, site = reach.point(group), reach.site(group.site_id)
        assert point is not None and site is not None, f"{group_id} has no serving point"
        watts = point.idle_w * replicas + (point.full_w - point.idle_w) * busy[group_id]
        drawn[group.site_id] = drawn.get(group.site_id, 0.0) + watts * site.pue
    return drawn


def possible_draw_w(reach: Reach, groups: Iterable[PlannedGroup]) -> dict[str, float]:
    """Most each site can draw at full use of its replicas (W, cooling included)."""
    drawn: dict[str, float] = {}
    for one in sorted(groups, key=lambda g: g.group.group_id):
        point, site = reach.point(one.group), reach.site(one.group.site_id)
        if point is not None and site is not None:
            watts = point.full_w * one.replicas * site.pue
            drawn[site.site_id] = drawn.get(site.site_id, 0.0) + watts
    return drawn


def supplies_of(
    reach: Reach, groups: Iterable[PlannedGroup], *, shares: Iterable[TrafficShare]
) -> tuple[SupplyUse, ...]:
    """Every site's draw covered from its supplies, sorted by site and supply."""
    return supply_stacks(reach.problem, draw_w(reach, groups, shares))


def cost_of(
    reach: Reach,
    *,
    groups: tuple[PlannedGroup, ...],
    shares: tuple[TrafficShare, ...],
    shed: tuple[ShedTraffic, ...],
    supplies: tuple[SupplyUse, ...],
    exposed: tuple[ExposedTraffic, ...] = (),
) -> CostBreakdown:
    """Every term of a plan's cost (USD/h). The groups must stand on pools with serving points."""
    energy, cooling, carbon = energy_usd_per_h(reach.problem, supplies)
    return CostBreakdown(
        hardware_usd_per_h=fsum(
            g.replicas * replica_price_usd_per_h(reach, g.group) for g in groups
        ),
        energy_usd_per_h=energy,
        cooling_usd_per_h=cooling,
        network_usd_per_h=fsum(
            reach.rates[s.class_id]
            * (s.basis_points / WHOLE_BP)
            * S_PER_H
            * network_usd_per_request(reach, s.class_id, site_id=s.site_id)
            for s in shares
        ),
        migration_usd_per_h=migration_usd_per_h(reach, groups),
        carbon_usd_per_h=carbon,
        shed_usd_per_h=fsum(
            shed_price_usd_per_h(reach, s.class_id) * s.basis_points / WHOLE_BP for s in shed
        ),
        site_usd_per_h=site_usd_per_h(reach.problem, groups),
        risk_usd_per_h=fsum(g.replicas * risk_price_usd_per_h(reach, g.group) for g in groups)
        + exposure_usd_per_h(reach, exposed),
    )


def energy_usd_per_h(problem: Problem, supplies: Iterable[SupplyUse]) -> tuple[float, float, float]:
    """Energy, the part of it due to PUE above 1, and carbon (USD/h) of the power taken."""
    energy = cooling = carbon = 0.0
    for use in supplies:
        site = problem.fleet.site(use.site_id)
        supply = next(s for s in site.supplies if s.supply_id == use.supply_id)
        per_w, carbon_per_w = supply_price_usd_per_w_h(problem, supply)
        energy += use.power_w * per_w
        cooling += use.power_w * per_w * (1 - 1 / site.pue)
        carbon += use.power_w * carbon_per_w
    return energy, cooling, carbon


def migration_usd_per_h(reach: Reach, groups: Iterable[PlannedGroup]) -> float:
    """Replicas started beyond what runs, each at its start price (USD/h)."""
    running = {r.group.group_id: r.replicas for r in reach.problem.running}
    total = 0.0
    for one in groups:
        started = max(0, one.replicas - running.get(one.group.group_id, 0))
        if started:
            total += started * start_price_usd_per_h(reach, one.group)
    return total


def site_usd_per_h(problem: Problem, groups: Iterable[PlannedGroup]) -> float:
    """Fixed price of every site that holds a replica (USD/h)."""
    used = {g.group.site_id for g in groups if g.replicas > 0}
    return fsum(problem.fleet.site(site_id).fixed_price_usd_per_h for site_id in sorted(used))


def relative_gap(cost_usd_per_h: float, bound_usd_per_h: float) -> float:
    """(cost - bound) / max(|cost|, 1e-9), relative."""
    return (cost_usd_per_h - bound_usd_per_h) / max(abs(cost_usd_per_h), 1e-9)


def priced_plan(
    reach: Reach,
    *,
    groups: Iterable[PlannedGroup],
    shares: Iterable[TrafficShare],
    shed: Iterable[ShedTraffic],
    bound_usd_per_h: float,
    method: str,
    hit_limit: str = "",
    survival: Iterable[SurvivalShare] = (),
    exposed: Iterable[ExposedTraffic] = (),
) -> Plan:
    """Put a plan together: sorted, powered cheapest supply first, priced, with bound and gap.

    A bound above the cost (solver tolerance, rounding) is lowered to it.
    """
    kept = tuple(sorted((g for g in groups if g.replicas > 0), key=lambda g: g.group))
    routed = tuple(sorted(shares, key=lambda s: (s.class_id, s.site_id, s.group_id)))
    unserved = tuple(sorted(shed, key=lambda s: s.class_id))
    supplies = supplies_of(reach, kept, shares=routed)
    at_risk = tuple(sorted(exposed, key=lambda e: (e.lost_site_id, e.class_id)))
    cost = cost_of(
        reach, groups=kept, shares=routed, shed=unserved, supplies=supplies, exposed=at_risk
    )
    bound = min(bound_usd_per_h, cost.total_usd_per_h)
    return Plan(
        problem_digest=reach.problem.digest,
        groups=kept,
        shares=routed,
        shed=unserved,
        supplies=supplies,
        cost=cost,
        bound_usd_per_h=bound,
        gap=relative_gap(cost.total_usd_per_h, bound),
        method=method,
        hit_limit=hit_limit,
        survival=tuple(sorted(survival, key=lambda s: (s.lost_site_id, s.class_id, s.group_id))),
        exposed=at_risk,
    )


def trivial_bound_usd_per_h(problem: Problem) -> float:
    """A floor under any plan's cost (USD/h), valid without solving anything.

    Every term is at least 0 except energy from a supply priced below 0, which at most pays for its
    whole limit.
    """
    total = 0.0
    for site in problem.fleet.sites:
        for supply in site.supplies:
            per_w = sum(supply_price_usd_per_w_h(problem, supply))
            total += min(0.0, per_w) * at_period(supply.limit_w, problem.period)
    return total
