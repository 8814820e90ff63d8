"""Judges a plan from raw facts alone: every limit, the sums, the prices, the gap.

Decides whether a plan may be acted on, never what a better one would be. It knows nothing of arcs
or of the formulation; paths, latency and limits are worked out again here and in `reach`. Draw and
prices are `costs`'s, as in the finished plan: a stated cost is checked against them, they are not.

Tolerance: shares are whole basis points, so each share may exceed what a flow limit allows by one
basis point of its class; everything else must hold to 1e-6 relative.

"Mend it, never worsen it": a limit that what runs now already breaks is held at what runs now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from optimizer import verify_limits as limits
from optimizer import verify_mix as mix
from optimizer.costs import cost_of, relative_gap
from optimizer.plan import Plan, PlannedGroup, PruneReason, TrafficShare
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.survive import check_survival
from optimizer.verify_limits import differs, is_above
from sites.errors import Violation
from sites.units import WHOLE_BP

_COST_TERMS = (
    "hardware_usd_per_h",
    "energy_usd_per_h",
    "cooling_usd_per_h",
    "network_usd_per_h",
    "migration_usd_per_h",
    "carbon_usd_per_h",
    "shed_usd_per_h",
    "site_usd_per_h",
    "risk_usd_per_h",
)


def check_plan(problem: Problem, plan: Plan) -> tuple[Violation, ...]:
    """Every limit of the problem the plan breaks, in a fixed order; empty means it may be used.

    A plan that names something the problem has not (a `reference` violation) is judged no further.
    """
    return judge(Reach(problem), plan)


def judge(reach: Reach, plan: Plan) -> tuple[Violation, ...]:
    """As `check_plan`, of the reach's problem: what the reach has looked up already it knows."""
    strangers = tuple(_references(reach, plan))
    if strangers:
        return strangers
    checks = (
        _digest,
        _sums,
        _groups,
        _shares,
        limits.throughput,
        limits.accelerators,
        limits.site_power,
        limits.supplies,
        limits.bandwidth,
        mix.spread,
        limits.replica_bounds,
        limits.moves,
        mix.latency_mix,
        mix.quality_floor,
        mix.tenant_budget,
        mix.carbon_cap,
        check_survival,
        _shed_cap,
        _cost,
        _bound,
    )
    return tuple(violation for check in checks for violation in check(reach, plan))


def _references(reach: Reach, plan: Plan) -> Iterator[Violation]:
    planned = {g.group.group_id: g.group for g in plan.groups}
    for group_id, group in sorted(planned.items()):
        if reach.point(group) is None:
            yield _stranger(f'group "{group_id}"', "a pool with a serving point for it")
    for share in plan.shares:
        subject = f'share of "{share.class_id}" to "{share.group_id}"'
        if share.class_id not in reach.classes:
            yield _stranger(subject, "a traffic class of the problem")
        if share.group_id not in planned:
            yield _stranger(subject, "a replica group of the plan")
        elif planned[share.group_id].site_id != share.site_id:
            yield _stranger(subject, f'site "{planned[share.group_id].site_id}"', share.site_id)
    for one in plan.shed:
        if one.class_id not in reach.classes:
            yield _stranger(f'shed of "{one.class_id}"', "a traffic class of the problem")
    for use in plan.supplies:
        site = reach.site(use.site_id)
        if site is None or use.supply_id not in {s.supply_id for s in site.supplies}:
            yield _stranger(f'supply "{use.site_id}/{use.supply_id}"', "a supply of the fleet")


def _stranger(subject: str, limit: str, actual: str = "none") -> Violation:
    return Violation(
        code="reference",
        subject=subject,
        limit=limit,
        actual=actual,
        remedy="plan again from the present fleet",
    )


def _digest(reach: Reach, plan: Plan) -> Iterator[Violation]:
    expected = reach.problem.digest
    if plan.problem_digest != expected:
        yield Violation(
            code="problem_digest",
            subject="plan",
            limit=expected,
            actual=plan.problem_digest,
            remedy="plan again: fleet, demand or what runs has changed",
        )


def _sums(reach: Reach, plan: Plan) -> Iterator[Violation]:
    total_bp: dict[str, int] = defaultdict(int)
    for share in plan.shares:
        total_bp[share.class_id] += share.basis_points
    for shed in plan.shed:
        total_bp[shed.class_id] += shed.basis_points
    for class_id in sorted(reach.classes):
        idle = reach.rates[class_id] == 0 and total_bp[class_id] == 0
        if total_bp[class_id] != WHOLE_BP and not idle:
            yield Violation(
                code="shares_sum",
                subject=f'class "{class_id}"',
                limit=WHOLE_BP,
                actual=total_bp[class_id],
                unit="bp",
                remedy="shares and shed of a class must make a whole",
            )
    seen: set[tuple[str, str]] = set()
    for share in plan.shares:
        pair = (share.class_id, share.group_id)
        if pair in seen:
            yield Violation(
                code="shares_sum",
                subject=f'class "{share.class_id}"',
                limit="one share per group",
                actual=f"two to {share.group_id}",
            )
        seen.add(pair)


def _groups(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Groups at lost sites, new replicas at cordoned ones, replicas that do not fit memory."""
    running = _running(reach)
    for one in plan.groups:
        group, replicas = one.group, one.replicas
        site, pool, point = reach.site(group.site_id), reach.pool(group), reach.point(group)
        assert site is not None and pool is not None and point is not None
        subject = f'group "{group.group_id}"'
        if group.site_id in reach.lost and replicas > 0:
            yield Violation(
                code=PruneReason.SITE_UNAVAILABLE.value,
                subject=subject,
                limit="available",
                actual="lost",
            )
        if site.cordoned and replicas > running.get(group.group_id, 0):
            yield Violation(
                code=PruneReason.SITE_UNAVAILABLE.value,
                subject=subject,
                limit=running.get(group.group_id, 0),
                actual=replicas,
                unit="replicas",
                remedy=f'uncordon site "{site.site_id}" or place them elsewhere',
            )
        if point.memory_mib > pool.memory_mib_per_accelerator:
            yield Violation(
                code=PruneReason.MEMORY.value,
                subject=subject,
                limit=pool.memory_mib_per_accelerator,
                actual=point.memory_mib,
                unit="MiB",
                remedy="use more accelerators per replica or a smaller variant",
            )


def _shares(reach: Reach, plan: Plan) -> Iterator[Violation]:
    """Law, way and quality of each share, its ingress, and the transit countries it states."""
    planned = {g.group.group_id: g for g in plan.groups}
    for share in plan.shares:
        one, target = reach.classes[share.class_id], planned[share.group_id]
        subject = f'class "{share.class_id}" at "{share.group_id}"'
        refusal = reach.refusal(one, target.group)
        if refusal is not None and _is_of_group(reach, target, reason=refusal.reason):
            continue  # already said of the group
        if refusal is not None:
            yield Violation(
                code=refusal.reason.value,
                subject=subject,
                limit=refusal.limit,
                actual=refusal.actual,
                unit=refusal.unit,
            )
            continue
        yield from _way(reach, share, subject=subject)
        if target.replicas == 0:
            yield Violation(code="throughput", subject=subject, limit=1, actual=0, unit="replicas")


def _is_of_group(reach: Reach, planned: PlannedGroup, *, reason: PruneReason) -> bool:
    """Whether what is refused is the group: its replicas do not fit, whoever they would serve."""
    if reason is not PruneReason.MEMORY:
        return False
    pool, point = reach.pool(planned.group), reach.point(planned.group)
    assert pool is not None and point is not None
    return point.memory_mib > pool.memory_mib_per_accelerator


def _way(reach: Reach, share: TrafficShare, *, subject: str) -> Iterator[Violation]:
    one = reach.classes[share.class_id]
    entry, way = reach.entry(one), reach.way(one, share.site_id)
    assert entry is not None and way is not None, "refusal ruled out a missing path"
    if share.ingress_site_id != entry.site_id:
        yield Violation(
            code="ingress", subject=subject, limit=entry.site_id, actual=share.ingress_site_id
        )
    if set(share.transit_countries) != set(way.transit_countries):
        yield Violation(
            code=PruneReason.TRANSIT.value,
            subject=subject,
            limit=" ".join(way.transit_countries) or "none",
            actual=" ".join(share.transit_countries) or "none",
            remedy="a share states the countries its lawful path crosses",
        )


def _shed_cap(reach: Reach, plan: Plan) -> Iterator[Violation]:
    limit = reach.problem.plan_policy.max_shed_basis_points
    if limit is None:
        return
    for one in plan.shed:
        if one.basis_points > limit + 1 and reach.rates[one.class_id] > 0:
            yield Violation(
                code="shed_cap",
                subject=f'class "{one.class_id}"',
                limit=limit,
                actual=one.basis_points,
                unit="bp",
            )


def _cost(reach: Reach, plan: Plan) -> Iterator[Violation]:
    expected = cost_of(
        reach,
        groups=plan.groups,
        shares=plan.shares,
        shed=plan.shed,
        supplies=plan.supplies,
        exposed=plan.exposed,
    )
    for term in _COST_TERMS:
        stated, due = getattr(plan.cost, term), getattr(expected, term)
        if differs(stated, due):
            yield Violation(
                code="cost",
                subject=f"plan: {term.removesuffix('_usd_per_h')}",
                limit=due,
                actual=stated,
                unit="USD/h",
                remedy="the stated cost must be what the plan costs",
            )


def _bound(_reach: Reach, plan: Plan) -> Iterator[Violation]:
    cost = plan.cost.total_usd_per_h
    if is_above(plan.bound_usd_per_h, cost):
        yield Violation(
            code="bound", subject="plan", limit=cost, actual=plan.bound_usd_per_h, unit="USD/h"
        )
    expected = relative_gap(cost, plan.bound_usd_per_h)
    if differs(plan.gap, expected):
        yield Violation(code="gap", subject="plan", limit=expected, actual=plan.gap)


def _running(reach: Reach) -> dict[str, int]:
    return {r.group.group_id: r.replicas for r in reach.problem.running}
