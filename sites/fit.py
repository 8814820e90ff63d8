"""Whether an assignment fits its site: power, accelerators, memory, residency, routes.

The small, solver-free checker of one site. It trusts nothing but the assignment itself (which
carries every figure it needs), so an agent can refuse a plan without trusting whoever made it. It
decides nothing about signatures, ranks or expiry (`agents.trusted_plan`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from sites.assignment import GroupTarget, Peer, Route, SiteAssignment, SiteShare
from sites.errors import InvalidFactError, Violation
from sites.fleet import HardwarePool
from sites.residency import ResidencyPolicy, may_process, may_transit

POWER_TOLERANCE_W = 1e-6
"""Sums of watts are floats; less than this over a budget is rounding."""


def possible_draw_w(
    targets: Iterable[GroupTarget], *, pue: float, running: Mapping[str, int] | None = None
) -> float:
    """Most W the groups can draw at full use, cooling (PUE) included.

    Per group the larger of the wanted replicas and `running[group_id]` (running, loading and
    draining copies) counts; so the sum bounds every moment of a change that starts before it
    stops. Groups in `running` that are not among `targets` cannot be priced here: pass a target
    with 0 replicas for them.
    """
    now = running or {}
    return pue * sum(
        max(t.replicas, now.get(t.group.group_id, 0)) * t.point.full_w
        for t in sorted(targets, key=lambda t: t.group)
    )


_said_by = attrgetter("decision", "shares", "backups", "shed_basis_points", "groups")


def check_fit(assignment: SiteAssignment) -> tuple[Violation, ...]:
    """Every limit of its own site the assignment breaks; empty if it fits.

    Codes: ``site_power``, ``pool_accelerators``, ``accelerator_memory``, ``wrong_accelerator``,
    ``wrong_accelerators_per_replica``, ``unknown_pool``, ``wrong_site``, ``unknown_policy``,
    ``residency``, ``transit``, ``absent_group``, ``variant_not_allowed``, ``unknown_service``,
    ``unknown_tenant``, ``unknown_peer``, ``unsound_route``.
    """
    return (
        *_check_power(assignment),
        *_check_pools(assignment),
        *_check_routes(assignment),
    )


def _check_power(assignment: SiteAssignment) -> Iterable[Violation]:
    draw_w = possible_draw_w(assignment.groups, pue=assignment.pue)
    if draw_w > assignment.power_budget_w + POWER_TOLERANCE_W:
        yield Violation(
            code="site_power",
            subject=f'site "{assignment.site_id}"',
            limit=assignment.power_budget_w,
            actual=draw_w,
            unit="W",
            remedy="want fewer replicas there or raise the power budget",
        )


def _check_pools(assignment: SiteAssignment) -> Iterable[Violation]:
    pools = {p.pool_id: p for p in assignment.pools}
    used = dict.fromkeys(pools, 0)
    for target in sorted(assignment.groups, key=lambda t: t.group):
        group = target.group
        subject = f'group "{group.group_id}"'
        if group.site_id != assignment.site_id:
            yield _refused("wrong_site", subject, assignment.site_id, group.site_id)
            continue
        pool = pools.get(group.pool_id)
        if pool is None:
            yield _refused("unknown_pool", subject, ", ".join(sorted(pools)), group.pool_id)
            continue
        used[group.pool_id] += target.replicas * group.accelerators_per_replica
        yield from _check_point(target, pool)
    for pool_id in sorted(pools):
        if used[pool_id] > pools[pool_id].count:
            yield Violation(
                code="pool_accelerators",
                subject=f'pool "{assignment.site_id}/{pool_id}"',
                limit=pools[pool_id].count,
                actual=used[pool_id],
                unit="accelerators",
                remedy="want fewer replicas in that pool",
            )


def _check_point(target: GroupTarget, pool: HardwarePool) -> Iterable[Violation]:
    subject = f'group "{target.group.group_id}"'
    if target.point.accelerator != pool.accelerator:
        yield _refused("wrong_accelerator", subject, pool.accelerator, target.point.accelerator)
    if target.point.accelerators_per_replica != target.group.accelerators_per_replica:
        yield Violation(
            code="wrong_accelerators_per_replica",
            subject=subject,
            limit=target.point.accelerators_per_replica,
            actual=target.group.accelerators_per_replica,
            unit="accelerators",
        )
    if target.point.memory_mib > pool.memory_mib_per_accelerator:
        yield Violation(
            code="accelerator_memory",
            subject=subject,
            limit=pool.memory_mib_per_accelerator,
            actual=target.point.memory_mib,
            unit="MiB",
            remedy="use more accelerators per replica or a smaller variant",
        )


def _check_routes(assignment: SiteAssignment) -> Iterable[Violation]:
    """Routes that share service, policy and all they say differ in tenants only, so each such kind
    is looked at once; it is known by the identity of what the assignment holds.
    """
    ground = _Ground.of(assignment)
    is_sound: dict[tuple[object, ...], bool] = {}
    faulty = []
    for route in assignment.routes:
        key = route.key
        kind = (key.service_id, key.residency_policy_id, *map(id, _said_by(route)))
        sound = is_sound.get(kind)
        if sound is None:
            sound = is_sound[kind] = next(iter(_check_way(ground, route)), None) is None
        if not sound or key.tenant_id not in ground.tenants:
            faulty.append(route)
    for route in sorted(faulty, key=lambda r: r.key):
        yield from _check_route(ground, route)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ground:
    """What the routes of an assignment are judged by, all of it the assignment's own."""

    assignment: SiteAssignment
    policies: Mapping[str, ResidencyPolicy]
    peers: Mapping[str, Peer]
    services: Mapping[str, tuple[str, ...]]
    tenants: frozenset[str]
    targets: Mapping[str, GroupTarget]

    @classmethod
    def of(cls, assignment: SiteAssignment) -> _Ground:
        return cls(
            assignment=assignment,
            policies={p.policy_id: p for p in assignment.policies},
            peers={p.site_id: p for p in assignment.peers},
            services=dict(assignment.services),
            tenants=frozenset(t.tenant_id for t in assignment.tenants),
            targets={t.group.group_id: t for t in assignment.groups},
        )


def _check_route(ground: _Ground, route: Route) -> Iterable[Violation]:
    subject = _subject(ground, route)
    is_known = (
        route.key.residency_policy_id in ground.policies and route.key.service_id in ground.services
    )
    if is_known and route.key.tenant_id not in ground.tenants:
        yield _refused("unknown_tenant", subject, "", route.key.tenant_id)
    yield from _check_way(ground, route)


def _check_way(ground: _Ground, route: Route) -> Iterable[Violation]:
    """Everything but who asks."""
    subject = _subject(ground, route)
    policy = ground.policies.get(route.key.residency_policy_id)
    if policy is None:
        yield _refused("unknown_policy", subject, "", route.key.residency_policy_id)
        return
    if route.key.service_id not in ground.services:
        yield _refused("unknown_service", subject, "", route.key.service_id)
        return
    try:
        route.require_sound()
    except InvalidFactError as fault:  # a copy for another tenant is not judged when it is made
        yield _refused("unsound_route", subject, "shares that sum up", str(fault))
    yield from _check_groups(ground, route, policy, subject)
    for share in (*route.shares, *route.backups):
        yield from _check_share(ground.assignment, share, policy, ground.peers, subject)


def _subject(ground: _Ground, route: Route) -> str:
    return f'site "{ground.assignment.site_id}": route "{route.key.route_id}"'


def _check_groups(
    ground: _Ground, route: Route, policy: ResidencyPolicy, subject: str
) -> Iterable[Violation]:
    assignment, allowed = ground.assignment, ground.services[route.key.service_id]
    if route.groups and not may_process(
        policy, country=assignment.country, tags=assignment.residency_tags
    ):
        yield _unlawful(subject, policy, assignment.country, assignment.residency_tags)
    for share in route.groups:
        target = ground.targets.get(share.group_id)
        if target is None or target.replicas < 1:
            yield Violation(
                code="absent_group",
                subject=subject,
                limit="a group with at least 1 replica",
                actual=share.group_id,
                remedy="route only to groups the assignment keeps",
            )
        elif target.group.variant_id not in allowed:
            yield _refused(
                "variant_not_allowed", subject, ", ".join(allowed), target.group.variant_id
            )


def _check_share(
    assignment: SiteAssignment,
    share: SiteShare,
    policy: ResidencyPolicy,
    peers: Mapping[str, Peer],
    subject: str,
) -> Iterable[Violation]:
    if share.site_id == assignment.site_id:
        country, tags = assignment.country, assignment.residency_tags
    elif share.site_id in peers:
        country, tags = peers[share.site_id].country, peers[share.site_id].residency_tags
    else:
        yield _refused("unknown_peer", subject, ", ".join(sorted(peers)), share.site_id)
        return
    if not may_process(policy, country=country, tags=tags):
        yield _unlawful(f'{subject} to "{share.site_id}"', policy, country, tags)
    for crossed in share.transit_countries:
        if not may_transit(policy, country=crossed):
            yield Violation(
                code="transit",
                subject=f'{subject} to "{share.site_id}"',
                limit=_listed(policy.transit_countries),
                actual=crossed,
                remedy=f'policy "{policy.policy_id}" must allow crossing {crossed}',
            )


def _unlawful(
    subject: str, policy: ResidencyPolicy, country: str, tags: tuple[str, ...]
) -> Violation:
    needed = "".join(f" +{tag}" for tag in sorted(policy.required_tags))
    carried = "".join(f" +{tag}" for tag in sorted(tags))
    return Violation(
        code="residency",
        subject=subject,
        limit=_listed(policy.processing_countries) + needed,
        actual=country + carried,
        remedy=f'policy "{policy.policy_id}" must allow processing there',
    )


def _listed(countries: tuple[str, ...] | None) -> str:
    return "any country" if countries is None else ", ".join(countries) or "no country"


def _refused(code: str, subject: str, limit: str, actual: str) -> Violation:
    return Violation(code=code, subject=subject, limit=limit or "what it names", actual=actual)
