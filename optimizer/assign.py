"""A plan cut into one self-contained assignment per site.

Decides which (service, tenant, policy) each site's gateway carries and what else its assignment
holds; what it does with each is `assign_routes`'s. Which replicas and shares there are is the
plan's decision; in which order sites get there is the rollout's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from optimizer.assign_cut import RouteCut, cut_routes
from optimizer.assign_routes import RouteBook
from optimizer.plan import Plan, PlannedGroup
from optimizer.problem import Problem
from sites.assignment import (
    GroupTarget,
    Peer,
    ReplicaGroup,
    RouteKey,
    SiteAssignment,
    TenantBinding,
)
from sites.digest import digest
from sites.errors import InvalidFactError
from sites.fleet import SiteGateway, at_period
from sites.residency import is_at_least_as_strict

NO_GATEWAY = SiteGateway(client_address="", peer_address="")
"""Stands for the gateway of a site that was described without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Issue:
    """What an assignment carries besides the plan: rank, times (wall ms), keys and parents.

    `parent_digests`: digest of the assignment each site had before ("" if none);
    `pseudonym_keys`: hex HMAC key by tenant id; `plan_digest` overrides the plan's own digest
    (intermediate plans of one rollout carry the digest of the plan they lead to).
    """

    epoch: int
    version: int
    now_ms: int
    ttl_ms: int
    parent_digests: Mapping[str, str] = field(default_factory=dict)
    api_key_jwks: str = '{"keys":[]}'
    pseudonym_keys: Mapping[str, str] = field(default_factory=dict)
    plan_digest: str = ""


def policy_digest(problem: Problem) -> str:
    """Digest of the residency policies and of which tenant is bound to which."""
    bindings = sorted((t.tenant_id, t.residency_policy_id) for t in problem.tenants)
    policies = sorted(problem.policies, key=lambda p: p.policy_id)
    return digest({"policies": policies, "tenants": bindings})


def route_keys(problem: Problem) -> tuple[RouteKey, ...]:
    """Every (service, tenant, policy) a gateway may see, sorted.

    A tenant may ask for the services some class of it uses, under its own policy or any at least
    as strict; the policies of its classes count as well.
    """
    bound = {
        t.tenant_id: tuple(
            p.policy_id
            for p in problem.policies
            if is_at_least_as_strict(p, problem.residency(t.residency_policy_id))
        )
        for t in problem.tenants
    }
    asked = {
        (one.service_id, one.tenant_id, policy_id)
        for one in problem.classes
        for policy_id in (one.residency_policy_id, *bound[one.tenant_id])
    }
    return tuple(
        RouteKey(service_id=service_id, tenant_id=tenant_id, residency_policy_id=policy_id)
        for service_id, tenant_id, policy_id in sorted(asked)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """One assignment per site of the fleet, by site id, and the routes they hold."""

    assignments: dict[str, SiteAssignment]
    routes: RouteCut


def assignments_of(problem: Problem, plan: Plan, issue: Issue) -> dict[str, SiteAssignment]:
    """One assignment per site of the fleet, by site id; every site carries every route key.

    Lost sites get one too (it says what they would do once back); whoever sends decides. Raises
    InvalidFactError where the plan wants a group without a serving point or an unknown pool.
    """
    return cut_plan(problem, plan, issue).assignments


def cut_plan(problem: Problem, plan: Plan, issue: Issue, *, earlier: RouteCut | None = None) -> Cut:
    """`assignments_of`, sooner where most routes are those of an `earlier` cut."""
    targets = _targets(problem, plan.groups)
    routes = cut_routes(
        RouteBook.open(problem, plan, targets), route_keys(problem), earlier=earlier
    )
    services = tuple((s.service_id, s.variant_ids) for s in problem.services)
    tenants = tuple(
        TenantBinding(
            tenant_id=t.tenant_id,
            residency_policy_id=t.residency_policy_id,
            pseudonym_key=issue.pseudonym_keys.get(t.tenant_id, ""),
            purpose=t.purpose,
            data_category=t.data_category,
        )
        for t in sorted(problem.tenants, key=lambda t: t.tenant_id)
    )
    policies = tuple(sorted(problem.policies, key=lambda p: p.policy_id))
    plan_digest = issue.plan_digest or plan.plan_digest
    law_digest = policy_digest(problem)
    peers = _peers(problem)
    assignments = {
        site.site_id: SiteAssignment(
            site_id=site.site_id,
            country=site.country,
            residency_tags=site.residency_tags,
            legal_entity=site.legal_entity,
            gateway=site.gateway or NO_GATEWAY,
            epoch=issue.epoch,
            version=issue.version,
            plan_digest=plan_digest,
            policy_digest=law_digest,
            issued_at_ms=issue.now_ms,
            expires_at_ms=issue.now_ms + issue.ttl_ms,
            parent_digest=issue.parent_digests.get(site.site_id, ""),
            power_budget_w=at_period(site.power_budget_w, problem.period),
            pue=site.pue,
            pools=site.pools,
            groups=targets.get(site.site_id, ()),
            routes=routes.routes[site.site_id],
            services=services,
            tenants=tenants,
            policies=policies,
            peers=tuple(p for p in peers if p.site_id != site.site_id),
            api_key_jwks=issue.api_key_jwks,
        )
        for site in sorted(problem.fleet.sites, key=lambda s: s.site_id)
    }
    return Cut(assignments=assignments, routes=routes)


def target_of(problem: Problem, group: ReplicaGroup, replicas: int) -> GroupTarget:
    """`replicas` of a group with the figures its site needs; raises InvalidFactError without."""
    try:
        pool = problem.fleet.site(group.site_id).pool(group.pool_id)
        variant = problem.catalog.variant(group.variant_id)
    except KeyError as missing:
        raise InvalidFactError(f"group {group.group_id}: not in the fleet: {missing}") from missing
    for point in problem.catalog.serving_points:
        if (point.variant_id, point.accelerator, point.accelerators_per_replica) == (
            group.variant_id,
            pool.accelerator,
            group.accelerators_per_replica,
        ):
            return GroupTarget(group=group, replicas=replicas, point=point, variant=variant)
    raise InvalidFactError(
        f"group {group.group_id}: no serving point of {group.variant_id} on "
        f"{group.accelerators_per_replica} x {pool.accelerator}"
    )


def _peers(problem: Problem) -> tuple[Peer, ...]:
    return tuple(
        Peer(
            site_id=other.site_id,
            country=other.country,
            residency_tags=other.residency_tags,
            peer_address=(other.gateway or NO_GATEWAY).peer_address,
        )
        for other in sorted(problem.fleet.sites, key=lambda s: s.site_id)
    )


def _targets(
    problem: Problem, groups: Iterable[PlannedGroup]
) -> dict[str, tuple[GroupTarget, ...]]:
    by_site: dict[str, list[GroupTarget]] = {}
    for one in sorted(groups, key=lambda g: g.group):
        target = target_of(problem, one.group, one.replicas)
        by_site.setdefault(one.group.site_id, []).append(target)
    return {site_id: tuple(targets) for site_id, targets in by_site.items()}
