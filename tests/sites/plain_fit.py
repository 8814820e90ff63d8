"""What the route part of `sites.fit` is held against: every share of every route looked at anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sites.assignment import GroupTarget, Peer, Route, SiteAssignment, SiteShare
from sites.errors import Violation
from sites.fit import _listed, _refused, _unlawful
from sites.residency import ResidencyPolicy, may_process, may_transit


def plain_route_faults(assignment: SiteAssignment) -> Iterable[Violation]:
    policies = {p.policy_id: p for p in assignment.policies}
    peers = {p.site_id: p for p in assignment.peers}
    services = dict(assignment.services)
    tenants = {t.tenant_id for t in assignment.tenants}
    targets = {t.group.group_id: t for t in assignment.groups}
    for route in sorted(assignment.routes, key=lambda r: r.key):
        subject = f'site "{assignment.site_id}": route "{route.key.route_id}"'
        policy = policies.get(route.key.residency_policy_id)
        if policy is None:
            yield _refused("unknown_policy", subject, "", route.key.residency_policy_id)
            continue
        if route.key.service_id not in services:
            yield _refused("unknown_service", subject, "", route.key.service_id)
            continue
        if route.key.tenant_id not in tenants:
            yield _refused("unknown_tenant", subject, "", route.key.tenant_id)
        yield from _check_groups(assignment, route, policy, targets, subject)
        for share in (*route.shares, *route.backups):
            yield from _check_share(assignment, share, policy, peers, subject)


def _check_groups(
    assignment: SiteAssignment,
    route: Route,
    policy: ResidencyPolicy,
    targets: Mapping[str, GroupTarget],
    subject: str,
) -> Iterable[Violation]:
    allowed = dict(assignment.services)[route.key.service_id]
    if route.groups and not may_process(
        policy, country=assignment.country, tags=assignment.residency_tags
    ):
        yield _unlawful(subject, policy, assignment.country, assignment.residency_tags)
    for share in route.groups:
        target = targets.get(share.group_id)
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
