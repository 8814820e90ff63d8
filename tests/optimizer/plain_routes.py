"""What `optimizer.assign_routes` and `assign_cut` are held against: each route on its own.

Nothing is taken over, copied for another tenant or counted in whole numbers; fractions throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeVar

from optimizer.assign import Issue, assignments_of
from optimizer.backbone import Backbone, LawfulPath, ingress_of
from optimizer.plan import Plan, TrafficShare
from optimizer.problem import Problem
from sites.assignment import (
    GroupShare,
    GroupTarget,
    Route,
    RouteDecision,
    RouteKey,
    SiteAssignment,
    SiteShare,
)
from sites.errors import InvalidFactError
from sites.fleet import Site
from sites.residency import ResidencyPolicy, may_process
from sites.units import WHOLE_BP

Key = TypeVar("Key", str, tuple[str, str])
"""What basis points are given to: an id, or a pair of them."""

_NO_REPLICA = "no lawful site holds a replica for it"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """What enters one site under one key: weights (req/s x bp) per serving site, and what is shed.

    `transit` are the countries the plan's path to each serving site crosses.
    """

    to_sites: dict[str, Fraction] = field(default_factory=dict)
    transit: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shed: list[Fraction] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Offer:
    """What a site can do for a service under a policy, whoever asks: whether it `processes` such
    data, lawful paths and the weights of what is placed at their ends, and the route of traffic
    that the plan knows nothing of there.
    """

    processes: bool
    reachable: dict[str, LawfulPath]
    placed: dict[str, Fraction]
    route: Route


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainRoutes:
    """Everything looked up while cutting one plan into routes. `offers` (site, service, policy) and
    `reached` (site, policy) fill as they are asked for: tenants multiply routes, but not these.
    """

    problem: Problem
    backbone: Backbone
    entries: dict[tuple[str, RouteKey], _Entry]
    planned: dict[tuple[str, RouteKey], dict[str, Fraction]]
    placed: dict[tuple[str, str], dict[str, Fraction]]
    offers: dict[tuple[str, str, str], _Offer] = field(default_factory=dict)
    reached: dict[tuple[str, str], dict[str, LawfulPath]] = field(default_factory=dict)

    @classmethod
    def open(
        cls, problem: Problem, plan: Plan, targets: Mapping[str, tuple[GroupTarget, ...]]
    ) -> PlainRoutes:
        """The book of one plan; `targets` are its groups with their figures, by site id."""
        allowed = {s.service_id: set(s.variant_ids) for s in problem.services}
        book = cls(
            problem=problem,
            backbone=Backbone(problem.fleet),
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

    def route(self, site: Site, key: RouteKey) -> Route:
        """What `site` does with `key`, as ingress and as serving site."""
        offer = self._offer(site, key)
        planned = self.planned.get((site.site_id, key))
        groups = _group_shares(planned) if planned and offer.processes else offer.route.groups
        entry = self.entries.get((site.site_id, key))
        if entry is None or not offer.reachable:
            return replace(offer.route, key=key, groups=groups)
        shed_bp = _shed_bp(entry)
        weights = entry.to_sites or offer.placed
        if not weights or shed_bp == WHOLE_BP:
            return _shed(key, groups, reason="the plan sheds it" if shed_bp else _NO_REPLICA)
        return _served(
            key,
            weights,
            offer,
            transit={**_transits(offer.reachable), **entry.transit},
            shed_bp=shed_bp,
            groups=groups,
        )

    def _offer(self, site: Site, key: RouteKey) -> _Offer:
        """What holds for every tenant's traffic of a service and policy at a site."""
        asked = (site.site_id, key.service_id, key.residency_policy_id)
        if asked not in self.offers:
            self.offers[asked] = self._offered(site, key)
        return self.offers[asked]

    def _offered(self, site: Site, key: RouteKey) -> _Offer:
        policy = self.problem.residency(key.residency_policy_id)
        processes = may_process(policy, country=site.country, tags=site.residency_tags)
        here = self.placed.get((site.site_id, key.service_id), {})
        groups = _group_shares(here) if here and processes else ()
        reachable = self._reachable(site, policy)
        placed = {
            s: sum(self.placed.get((s, key.service_id), {}).values(), Fraction(0))
            for s in reachable
            if s not in self.problem.lost_sites
        }
        placed = {s: weight for s, weight in placed.items() if weight > 0}
        reason = f'no site may process "{key.residency_policy_id}" data that enters here'
        route = Route(key=key, decision=RouteDecision.UNLAWFUL, groups=groups, reason=reason)
        offer = _Offer(processes=processes, reachable=reachable, placed=placed, route=route)
        if not reachable:
            return offer
        if not placed:
            return replace(offer, route=_shed(key, groups, reason=_NO_REPLICA))
        transit = _transits(reachable)
        served = _served(key, placed, offer, transit=transit, shed_bp=0, groups=groups)
        return replace(offer, route=served)

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

    def _reachable(self, site: Site, policy: ResidencyPolicy) -> dict[str, LawfulPath]:
        """Lawful paths to every site that may process, by site id."""
        asked = (site.site_id, policy.policy_id)
        if asked not in self.reached:
            self.reached[asked] = self._reaching(site, policy)
        return self.reached[asked]

    def _reaching(self, site: Site, policy: ResidencyPolicy) -> dict[str, LawfulPath]:
        return {
            target: path
            for target, path in self.backbone.paths_from(policy, site.site_id).items()
            if may_process(
                policy,
                country=self.problem.fleet.site(target).country,
                tags=self.problem.fleet.site(target).residency_tags,
            )
        }


def _group_shares(weights: Mapping[str, Fraction]) -> tuple[GroupShare, ...]:
    parts = split_bp(weights)
    return tuple(
        GroupShare(group_id=group_id, basis_points=parts[group_id])
        for group_id in sorted(parts)
        if parts[group_id]
    )


def _shed(key: RouteKey, groups: tuple[GroupShare, ...], *, reason: str) -> Route:
    return Route(
        key=key,
        decision=RouteDecision.SHED,
        shed_basis_points=WHOLE_BP,
        groups=groups,
        reason=reason,
    )


def _served(
    key: RouteKey,
    weights: Mapping[str, Fraction],
    offer: _Offer,
    *,
    transit: Mapping[str, tuple[str, ...]],
    shed_bp: int,
    groups: tuple[GroupShare, ...],
) -> Route:
    shares = _shares(weights, transit)
    return Route(
        key=key,
        decision=RouteDecision.SERVE,
        shares=shares,
        backups=_backups(offer.placed, offer.reachable, taken={s.site_id for s in shares}),
        shed_basis_points=shed_bp,
        groups=groups,
    )


def _shed_bp(entry: _Entry) -> int:
    if not entry.shed:
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


def plain_assignments(problem: Problem, plan: Plan, issue: Issue) -> dict[str, SiteAssignment]:
    """Every site's assignment: the facts about the site as they are, each route worked out."""
    cut = assignments_of(problem, plan, issue)
    book = PlainRoutes.open(problem, plan, {s: a.groups for s, a in cut.items() if a.groups})
    return {
        site_id: replace(
            one,
            routes=tuple(book.route(problem.fleet.site(site_id), r.key) for r in one.routes),
        )
        for site_id, one in cut.items()
    }
