"""What each site does with each (service, tenant, policy) under a plan.

Decides shares, backups and refusals: the plan's own shares where classes enter, sensible shares
over what is placed where none does, backups in order of distance, and a clear no where nothing is
lawful or nothing is placed. What no tenant changes is worked out once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeVar

from optimizer.backbone import Backbone, LawfulPath, ingress_of
from optimizer.plan import Plan, TrafficShare
from optimizer.problem import Problem
from sites.assignment import (
    GroupShare,
    GroupTarget,
    Route,
    RouteDecision,
    RouteKey,
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
    # the same proportions in whole numbers: fractions take many times as long
    scale = math.lcm(*(w.denominator for w in weights.values()))
    whole = {key: w.numerator * (scale // w.denominator) for key, w in weights.items()}
    total = sum(whole.values())
    if total <= 0:
        raise InvalidFactError("cannot split by weights that are all 0")
    parts, left = {}, {}
    for key in sorted(whole):
        parts[key], left[key] = divmod(whole[key] * WHOLE_BP, total)
    missing = WHOLE_BP - sum(parts.values())
    for key in sorted(left, key=lambda key: (-left[key], key))[:missing]:
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
class RouteBook:
    """Everything looked up while cutting one plan into routes.

    `entries` and `planned` hold what the plan says of a (site, key); `placed` the throughput of
    the groups placed at a (site, service), `standing` that of every site not lost, by service.
    `reached` (site, policy) and `offers`, by service and (site, policy), fill as they are asked
    for: tenants multiply routes, but not these.
    """

    problem: Problem
    backbone: Backbone
    placed: dict[tuple[str, str], dict[str, Fraction]]
    standing: dict[str, dict[str, Fraction]]
    entries: dict[tuple[str, RouteKey], _Entry] = field(default_factory=dict)
    planned: dict[tuple[str, RouteKey], dict[str, Fraction]] = field(default_factory=dict)
    reached: dict[tuple[str, str], dict[str, LawfulPath]] = field(default_factory=dict)
    offers: dict[str, dict[tuple[str, str], Route]] = field(default_factory=dict)

    @classmethod
    def open(
        cls, problem: Problem, plan: Plan, targets: Mapping[str, tuple[GroupTarget, ...]]
    ) -> RouteBook:
        """The book of one plan; `targets` are its groups with their figures, by site id."""
        allowed = {s.service_id: set(s.variant_ids) for s in problem.services}
        placed = {
            (site_id, service_id): {
                t.group.group_id: Fraction(t.replicas) * Fraction(t.point.decode_tok_s)
                for t in held
                if t.group.variant_id in variants and t.replicas
            }
            for site_id, held in targets.items()
            for service_id, variants in allowed.items()
        }
        standing: dict[str, dict[str, Fraction]] = {service_id: {} for service_id in allowed}
        for (site_id, service_id), weights in placed.items():
            weight = sum(weights.values(), Fraction(0))
            if weight > 0 and site_id not in problem.lost_sites:
                standing[service_id][site_id] = weight
        book = cls(
            problem=problem, backbone=Backbone(problem.fleet), placed=placed, standing=standing
        )
        book._read_shares(plan)
        return book

    def route(self, site: Site, key: RouteKey) -> Route:
        """What `site` does with `key`, as ingress and as serving site."""
        offer = self.offer(site, key)
        entry = self.entries.get((site.site_id, key))
        planned = self.planned.get((site.site_id, key))
        if entry is None and planned is None:
            return offer.under(key)
        policy = self.problem.residency(key.residency_policy_id)
        groups = offer.groups
        if planned and may_process(policy, country=site.country, tags=site.residency_tags):
            groups = _group_shares(planned)
        reachable = self.reachable(site, policy)
        if entry is None or not reachable:
            return replace(offer, key=key, groups=groups)
        shed_bp = _shed_bp(entry)
        placed = self._placed(key.service_id, reachable)
        weights = entry.to_sites or placed
        if not weights or shed_bp == WHOLE_BP:
            return _shed(key, groups, reason="the plan sheds it" if shed_bp else _NO_REPLICA)
        shares = _shares(weights, reachable, planned=entry.transit)
        return Route(
            key=key,
            decision=RouteDecision.SERVE,
            shares=shares,
            backups=_backups(placed, reachable, taken={s.site_id for s in shares}),
            shed_basis_points=shed_bp,
            groups=groups,
        )

    def offer(self, site: Site, key: RouteKey) -> Route:
        """What a site does with a service's traffic under a policy, whoever asks, where the plan
        knows nothing of it. Its key is that of any tenant.
        """
        known = self.offers.setdefault(key.service_id, {})
        asked = (site.site_id, key.residency_policy_id)
        if asked not in known:
            known[asked] = self._offered(site, key)
        return known[asked]

    def reachable(self, site: Site, policy: ResidencyPolicy) -> dict[str, LawfulPath]:
        """Lawful paths to every site that may process, by site id."""
        asked = (site.site_id, policy.policy_id)
        if asked not in self.reached:
            self.reached[asked] = self._reaching(site, policy)
        return self.reached[asked]

    def _offered(self, site: Site, key: RouteKey) -> Route:
        policy = self.problem.residency(key.residency_policy_id)
        processes = may_process(policy, country=site.country, tags=site.residency_tags)
        here = self.placed.get((site.site_id, key.service_id), {})
        groups = _group_shares(here) if here and processes else ()
        reachable = self.reachable(site, policy)
        if not reachable:
            reason = f'no site may process "{key.residency_policy_id}" data that enters here'
            return Route(key=key, decision=RouteDecision.UNLAWFUL, groups=groups, reason=reason)
        placed = self._placed(key.service_id, reachable)
        if not placed:
            return _shed(key, groups, reason=_NO_REPLICA)
        shares = _shares(placed, reachable, planned={})
        taken = {s.site_id for s in shares}
        return Route(
            key=key,
            decision=RouteDecision.SERVE,
            shares=shares,
            backups=_backups(placed, reachable, taken=taken),
            groups=groups,
        )

    def _placed(self, service_id: str, reachable: Mapping[str, LawfulPath]) -> dict[str, Fraction]:
        standing = self.standing[service_id]
        return {site_id: weight for site_id, weight in standing.items() if site_id in reachable}

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


def _shed_bp(entry: _Entry) -> int:
    if not entry.shed:
        return 0
    shed = sum(entry.shed, Fraction(0))
    served = sum(entry.to_sites.values(), Fraction(0))
    if shed + served <= 0:
        return 0
    return round(shed * WHOLE_BP / (shed + served))


def _shares(
    weights: Mapping[str, Fraction],
    reachable: Mapping[str, LawfulPath],
    *,
    planned: Mapping[str, tuple[str, ...]],
) -> tuple[SiteShare, ...]:
    """Shares in proportion to `weights`, over the `planned` paths and else the lawful ones."""
    parts = split_bp(weights)
    return tuple(
        SiteShare(
            site_id=site_id,
            basis_points=parts[site_id],
            transit_countries=planned[site_id]
            if site_id in planned
            else reachable[site_id].transit_countries
            if site_id in reachable
            else (),
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
