"""A plan cut into one self-contained assignment per site.

Decides what each site's gateway does with every (service, tenant, policy) it may ever see: the
plan's own shares where classes enter, sensible shares over what is placed where none does, backups
in order of distance, and a clear no where nothing is lawful or nothing is placed. Which replicas
and shares there are is the plan's decision; in which order sites get there is the rollout's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeVar

from optimizer.backbone import Backbone, LawfulPath, ingress_of
from optimizer.plan import Plan, PlannedGroup, TrafficShare
from optimizer.problem import Problem
from sites.assignment import (
    GroupShare,
    GroupTarget,
    Peer,
    ReplicaGroup,
    Route,
    RouteDecision,
    RouteKey,
    SiteAssignment,
    SiteShare,
    TenantBinding,
)
from sites.digest import digest
from sites.errors import InvalidFactError
from sites.fleet import Site, SiteGateway, at_period
from sites.residency import ResidencyPolicy, is_at_least_as_strict, may_process
from sites.units import WHOLE_BP

Key = TypeVar("Key", str, tuple[str, str])
"""What basis points are given to: an id, or a pair of them."""

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


def split_bp(weights: Mapping[Key, Fraction]) -> dict[Key, int]:
    """Basis points in proportion to `weights` that sum to exactly 10 000 (largest remainder).

    Ties go to the smaller key. A key of weight 0 gets 0. Raises InvalidFactError where all
    weights are 0.
    """
    total = sum(weights.values(), Fraction(0))
    if total <= 0:
        raise InvalidFactError("cannot split by weights that are all 0")
    exact = {key: weights[key] * WHOLE_BP / total for key in sorted(weights)}
    parts = {key: int(value) for key, value in exact.items()}
    missing = WHOLE_BP - sum(parts.values())
    by_remainder = sorted(exact, key=lambda key: (parts[key] - exact[key], key))
    for key in by_remainder[:missing]:
        parts[key] += 1
    return parts


def route_keys(problem: Problem) -> tuple[RouteKey, ...]:
    """Every (service, tenant, policy) a gateway may see, sorted.

    A tenant may ask for the services some class of it uses, under its own policy or any at least
    as strict; the policies of its classes count as well.
    """
    bound = {t.tenant_id: problem.residency(t.residency_policy_id) for t in problem.tenants}
    keys = set()
    for one in problem.classes:
        asked = {one.residency_policy_id}
        asked |= {
            p.policy_id for p in problem.policies if is_at_least_as_strict(p, bound[one.tenant_id])
        }
        keys |= {
            RouteKey(
                service_id=one.service_id, tenant_id=one.tenant_id, residency_policy_id=policy_id
            )
            for policy_id in asked
        }
    return tuple(sorted(keys))


def assignments_of(problem: Problem, plan: Plan, issue: Issue) -> dict[str, SiteAssignment]:
    """One assignment per site of the fleet, by site id; every site carries every route key.

    Lost sites get one too (it says what they would do once back); whoever sends decides. Raises
    InvalidFactError where the plan wants a group without a serving point or an unknown pool.
    """
    book = _Book.open(problem, plan)
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
    keys = route_keys(problem)
    return {
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
            groups=book.targets_at(site.site_id),
            routes=tuple(book.route(site, key) for key in keys),
            services=services,
            tenants=tenants,
            policies=policies,
            peers=_peers_of(problem, site),
            api_key_jwks=issue.api_key_jwks,
        )
        for site in sorted(problem.fleet.sites, key=lambda s: s.site_id)
    }


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


def _peers_of(problem: Problem, site: Site) -> tuple[Peer, ...]:
    return tuple(
        Peer(
            site_id=other.site_id,
            country=other.country,
            residency_tags=other.residency_tags,
            peer_address=(other.gateway or NO_GATEWAY).peer_address,
        )
        for other in sorted(problem.fleet.sites, key=lambda s: s.site_id)
        if other.site_id != site.site_id
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """What enters one site under one key: weights (req/s x bp) per serving site, and what is shed.

    `transit` are the countries the plan's path to each serving site crosses.
    """

    to_sites: dict[str, Fraction] = field(default_factory=dict)
    transit: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shed: list[Fraction] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Book:
    """Everything looked up while cutting one plan."""

    problem: Problem
    backbone: Backbone
    targets: dict[str, tuple[GroupTarget, ...]]
    entries: dict[tuple[str, RouteKey], _Entry]
    planned: dict[tuple[str, RouteKey], dict[str, Fraction]]
    placed: dict[tuple[str, str], dict[str, Fraction]]

    @classmethod
    def open(cls, problem: Problem, plan: Plan) -> _Book:
        targets = _targets(problem, plan.groups)
        allowed = {s.service_id: set(s.variant_ids) for s in problem.services}
        book = cls(
            problem=problem,
            backbone=Backbone(problem.fleet),
            targets=targets,
            entries={},
            planned={},
            placed={
                (site_id, service_id): {
                    t.group.group_id: Fraction(t.replicas) * Fraction(t.point.decode_tok_s)
                    for t in held
                    if t.group.variant_id in variants and t.replicas
                }
                for site_id, held in targets.items()
                for service_id, variants in allowed.items()
            },
        )
        book._read_shares(plan)
        return book

    def targets_at(self, site_id: str) -> tuple[GroupTarget, ...]:
        return self.targets.get(site_id, ())

    def route(self, site: Site, key: RouteKey) -> Route:
        """What `site` does with `key`, as ingress and as serving site."""
        policy = self.problem.residency(key.residency_policy_id)
        groups = self._groups(site, key, policy)
        reachable = self._reachable(site, policy)
        placed = {
            s: sum(self.placed.get((s, key.service_id), {}).values(), Fraction(0))
            for s in reachable
            if s not in self.problem.lost_sites
        }
        placed = {s: weight for s, weight in placed.items() if weight > 0}
        entry = self.entries.get((site.site_id, key))
        if not reachable:
            reason = f'no site may process "{key.residency_policy_id}" data that enters here'
            return Route(key=key, decision=RouteDecision.UNLAWFUL, groups=groups, reason=reason)
        shed_bp = _shed_bp(entry)
        weights = entry.to_sites if entry is not None and entry.to_sites else placed
        if not weights or shed_bp == WHOLE_BP:
            reason = "the plan sheds it" if shed_bp else "no lawful site holds a replica for it"
            return Route(
                key=key,
                decision=RouteDecision.SHED,
                shed_basis_points=WHOLE_BP,
                groups=groups,
                reason=reason,
            )
        shares = _shares(weights, {**_transits(reachable), **(entry.transit if entry else {})})
        return Route(
            key=key,
            decision=RouteDecision.SERVE,
            shares=shares,
            backups=_backups(placed, reachable, taken={s.site_id for s in shares}),
            shed_basis_points=shed_bp,
            groups=groups,
        )

    def _read_shares(self, plan: Plan) -> None:
        classes = {c.class_id: c for c in self.problem.classes}
        for share in sorted(plan.shares, key=lambda s: (s.class_id, s.group_id)):
            one = classes[share.class_id]
            key = RouteKey(
                service_id=one.service_id,
                tenant_id=one.tenant_id,
                residency_policy_id=one.residency_policy_id,
            )
            weight = Fraction(self.problem.rate_rps(one)) * share.basis_points
            self._count(share, key, weight)
        for shed in plan.shed:
            one = classes[shed.class_id]
            access = ingress_of(self.problem, one)
            if access is None:
                continue  # enters nowhere lawfully, so no gateway can shed it
            key = RouteKey(
                service_id=one.service_id,
                tenant_id=one.tenant_id,
                residency_policy_id=one.residency_policy_id,
            )
            weight = Fraction(self.problem.rate_rps(one)) * shed.basis_points
            self.entries.setdefault((access.site_id, key), _Entry()).shed.append(weight)

    def _count(self, share: TrafficShare, key: RouteKey, weight: Fraction) -> None:
        if weight <= 0:
            return
        entry = self.entries.setdefault((share.ingress_site_id, key), _Entry())
        entry.to_sites[share.site_id] = entry.to_sites.get(share.site_id, Fraction(0)) + weight
        entry.transit[share.site_id] = share.transit_countries
        groups = self.planned.setdefault((share.site_id, key), {})
        groups[share.group_id] = groups.get(share.group_id, Fraction(0)) + weight

    def _groups(self, site: Site, key: RouteKey, policy: ResidencyPolicy) -> tuple[GroupShare, ...]:
        if not may_process(policy, country=site.country, tags=site.residency_tags):
            return ()
        weights = self.planned.get((site.site_id, key)) or self.placed.get(
            (site.site_id, key.service_id), {}
        )
        if not weights:
            return ()
        parts = split_bp(weights)
        return tuple(
            GroupShare(group_id=group_id, basis_points=parts[group_id])
            for group_id in sorted(parts)
            if parts[group_id]
        )

    def _reachable(self, site: Site, policy: ResidencyPolicy) -> dict[str, LawfulPath]:
        """Lawful paths to every site that may process, by site id."""
        return {
            target: path
            for target, path in self.backbone.paths_from(policy, site.site_id).items()
            if may_process(
                policy,
                country=self.problem.fleet.site(target).country,
                tags=self.problem.fleet.site(target).residency_tags,
            )
        }


def _targets(
    problem: Problem, groups: Iterable[PlannedGroup]
) -> dict[str, tuple[GroupTarget, ...]]:
    by_site: dict[str, list[GroupTarget]] = {}
    for one in sorted(groups, key=lambda g: g.group):
        target = target_of(problem, one.group, one.replicas)
        by_site.setdefault(one.group.site_id, []).append(target)
    return {site_id: tuple(targets) for site_id, targets in by_site.items()}


def _shed_bp(entry: _Entry | None) -> int:
    if entry is None or not entry.shed:
        return 0
    shed = sum(entry.shed, Fraction(0))
    served = sum(entry.to_sites.values(), Fraction(0))
    if shed + served <= 0:
        return 0
    return round(shed * WHOLE_BP / (shed + served))


def _transits(reachable: Mapping[str, LawfulPath]) -> dict[str, tuple[str, ...]]:
    return {site_id: path.transit_countries for site_id, path in reachable.items()}


def _shares(
    weights: Mapping[str, Fraction], transit: Mapping[str, tuple[str, ...]]
) -> tuple[SiteShare, ...]:
    parts = split_bp(weights)
    return tuple(
        SiteShare(
            site_id=site_id,
            basis_points=parts[site_id],
            transit_countries=transit.get(site_id, ()),
        )
        for site_id in sorted(parts)
        if parts[site_id]
    )


def _backups(
    placed: Mapping[str, Fraction], reachable: Mapping[str, LawfulPath], *, taken: set[str]
) -> tuple[SiteShare, ...]:
    """Other lawful sites that hold the service, nearest first, weighted by their throughput."""
    left = {site_id: weight for site_id, weight in placed.items() if site_id not in taken}
    if not left:
        return ()
    parts = split_bp(left)
    return tuple(
        SiteShare(
            site_id=site_id,
            basis_points=max(1, parts[site_id]),
            transit_countries=reachable[site_id].transit_countries,
        )
        for site_id in sorted(left, key=lambda s: (reachable[s].rtt_ms, s))
    )
