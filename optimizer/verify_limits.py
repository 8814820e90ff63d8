"""Judges a plan against every limit its shares and replicas have in common, from raw facts.

The checker's second part: throughput, accelerators, power, bandwidth, floors and caps, moves. Law,
totals and prices are judged in `verify`, which also states the tolerance, mixes in `verify_mix`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from optimizer.costs import busy_replicas, draw_w, possible_draw_w, usable_part
from optimizer.plan import Plan, PlannedGroup
from optimizer.reach import Reach
from sites.errors import Violation
from sites.fleet import at_period
from sites.units import BITS_PER_BYTE, WHOLE_BP

RELATIVE_TOLERANCE = 1e-6


def is_above(actual: float, limit: float, *, slack: float = 0.0) -> bool:
    """Whether a quantity passes its limit by more than the tolerance and `slack`; NaN does."""
    return not actual <= limit + slack + RELATIVE_TOLERANCE * max(1.0, abs(limit))


def differs(actual: float, expected: float) -> bool:
    """Whether a stated quantity is not the expected one, beyond the tolerance; NaN never is."""
    return not abs(actual - expected) <= RELATIVE_TOLERANCE * max(1.0, abs(expected))


def throughput(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Busy replicas of each group within its replicas x utilisation ceiling x available part."""
    groups = {g.group.group_id: g.group for g in plan.groups}
    busy = busy_replicas(reach, groups, shares=plan.shares)
    slack: dict[str, float] = defaultdict(float)
    for share in plan.shares:
        one = reach.classes[share.class_id]
        seconds = reach.replica_seconds(one, groups[share.group_id])
        slack[share.group_id] += reach.rates[share.class_id] * seconds / WHOLE_BP
    for planned in plan.groups:
        group_id = planned.group.group_id
        limit = planned.replicas * usable_part(reach, planned.group)
        if is_above(busy[group_id], limit, slack=slack[group_id]):
            yield Violation(
                code="throughput",
                subject=f'group "{group_id}"',
                limit=limit,
                actual=busy[group_id],
                unit="busy replicas",
                remedy="add replicas or route less to it",
            )


def accelerators(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Accelerators of each pool, or what runs on it now where that is more."""
    wanted = _accelerators_used(plan.groups)
    now = _accelerators_used(running_groups(reach))
    for site in reach.problem.fleet.sites:
        for pool in site.pools:
            key = (site.site_id, pool.pool_id)
            if wanted.get(key, 0) > max(pool.count, now.get(key, 0)):
                yield Violation(
                    code="pool_accelerators",
                    subject=f'pool "{site.site_id}/{pool.pool_id}"',
                    limit=pool.count,
                    actual=wanted[key],
                    unit="accelerators",
                    remedy="place fewer replicas here",
                )


def site_power(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Possible draw (full draw of every replica x PUE) within the power budget."""
    now = possible_draw_w(reach, running_groups(reach))
    for site_id, actual in sorted(possible_draw_w(reach, plan.groups).items()):
        site = reach.problem.fleet.site(site_id)
        budget = at_period(site.power_budget_w, reach.problem.period)
        if is_above(actual, max(budget, now.get(site_id, 0.0))):
            yield Violation(
                code="site_power",
                subject=f'site "{site_id}"',
                limit=budget,
                actual=actual,
                unit="W",
                remedy=f"drain replicas worth {actual - budget:g} W or raise the budget",
            )


def supplies(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Each supply within its limit, and a site's supplies together cover exactly its mean draw.

    Where what runs now idles beyond all supplies, that draw is the limit of their sum.
    """
    drawn = draw_w(reach, plan.groups, plan.shares)
    idle = draw_w(reach, running_groups(reach), ())
    rounding = draw_slack_w(reach, plan)
    taken: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for use in plan.supplies:
        taken[use.site_id][use.supply_id] += use.power_w
    for site_id in sorted({*drawn, *taken}):
        site, used = reach.problem.fleet.site(site_id), taken[site_id]
        limits = {s.supply_id: at_period(s.limit_w, reach.problem.period) for s in site.supplies}
        mend = max(0.0, idle.get(site_id, 0.0) - sum(limits.values()))
        slack = mend + rounding.get(site_id, 0.0)
        for supply_id in sorted(used):
            if used[supply_id] < 0 or is_above(used[supply_id], limits[supply_id], slack=slack):
                yield _beyond_supply(
                    f'supply "{site_id}/{supply_id}"', limits[supply_id], used[supply_id]
                )
        total = sum(used.values())
        if mend > 0 and is_above(total, sum(limits.values()), slack=slack):
            yield _beyond_supply(f'site "{site_id}"', sum(limits.values()), total)
        if differs(total, drawn.get(site_id, 0.0)):
            yield Violation(
                code="supply_cover",
                subject=f'site "{site_id}"',
                limit=drawn.get(site_id, 0.0),
                actual=total,
                unit="W",
                remedy="the supplies must add up to the mean draw",
            )


def _beyond_supply(subject: str, limit_w: float, actual_w: float) -> Violation:
    return Violation(
        code="supply_limit",
        subject=subject,
        limit=limit_w,
        actual=actual_w,
        unit="W",
        remedy="route less to this site or raise the supply's limit",
    )


def draw_slack_w(reach: Reach, plan: Plan) -> dict[str, float]:
    """What one basis point more of every share would draw, by site (W)."""
    planned = {g.group.group_id: g.group for g in plan.groups}
    slack: dict[str, float] = defaultdict(float)
    for share in plan.shares:
        group, one = planned[share.group_id], reach.classes[share.class_id]
        point, site = reach.point(group), reach.site(share.site_id)
        assert point is not None and site is not None
        busy = reach.rates[share.class_id] / WHOLE_BP * reach.replica_seconds(one, group)
        slack[share.site_id] += (point.full_w - point.idle_w) * busy * site.pue
    return slack


def bandwidth(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Bytes of requests and answers over each link, both directions together, in bit/s."""
    used: dict[str, float] = defaultdict(float)
    slack: dict[str, float] = defaultdict(float)
    for share in plan.shares:
        one = reach.classes[share.class_id]
        bits = reach.rates[share.class_id] * one.bytes_per_request * BITS_PER_BYTE
        way = reach.way(one, share.site_id)
        for link in way.links if way else ():
            used[link.link_id] += bits * share.basis_points / WHOLE_BP
            slack[link.link_id] += bits / WHOLE_BP
    for link in reach.problem.fleet.links:
        if is_above(used[link.link_id], link.bandwidth_bps, slack=slack[link.link_id]):
            yield Violation(
                code="link_bandwidth",
                subject=f'link "{link.link_id}"',
                limit=link.bandwidth_bps,
                actual=used[link.link_id],
                unit="bit/s",
                remedy="serve more of it on the near side or widen the link",
            )


def replica_bounds(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Fewest and most replicas of a variant at a site; no floor at a lost site."""
    planned, now = _by_variant(plan.groups), _by_variant(running_groups(reach))
    for bound in reach.problem.plan_policy.replica_bounds:
        key = (bound.site_id, bound.variant_id)
        actual = planned.get(key, 0)
        subject = f'variant "{bound.variant_id}" at site "{bound.site_id}"'
        if actual < bound.fewest and bound.site_id not in reach.lost:
            yield Violation(
                code="replica_floor",
                subject=subject,
                limit=bound.fewest,
                actual=actual,
                unit="replicas",
            )
        if bound.most is not None and actual > max(bound.most, now.get(key, 0)):
            yield Violation(
                code="replica_cap",
                subject=subject,
                limit=bound.most,
                actual=actual,
                unit="replicas",
            )


def moves(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Replicas started plus stopped; what runs at lost sites or on vanished pools counts not."""
    limit = reach.problem.plan_policy.move_limit_replicas
    if limit is None:
        return
    planned = {g.group.group_id: g.replicas for g in plan.groups}
    running = {
        r.group.group_id: r.replicas
        for r in running_groups(reach)
        if r.group.site_id not in reach.lost
    }
    moved = sum(abs(planned.get(g, 0) - running.get(g, 0)) for g in sorted({*planned, *running}))
    if moved > limit:
        yield Violation(
            code="move_limit", subject="plan", limit=limit, actual=moved, unit="replicas"
        )


def running_groups(reach: Reach) -> tuple[PlannedGroup, ...]:
    """What runs now and still has a pool and a serving point."""
    return tuple(
        PlannedGroup(group=r.group, replicas=r.replicas)
        for r in reach.problem.running
        if reach.point(r.group) is not None
    )


def _accelerators_used(groups: tuple[PlannedGroup, ...]) -> dict[tuple[str, str], int]:
    used: dict[tuple[str, str], int] = defaultdict(int)
    for one in groups:
        key = (one.group.site_id, one.group.pool_id)
        used[key] += one.replicas * one.group.accelerators_per_replica
    return used


def _by_variant(groups: tuple[PlannedGroup, ...]) -> dict[tuple[str, str], int]:
    total: dict[tuple[str, str], int] = defaultdict(int)
    for one in groups:
        total[(one.group.site_id, one.group.variant_id)] += one.replicas
    return total
