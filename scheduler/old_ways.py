"""What may go on of a site's routes in force while it changes to new ones.

Decides which of the old serving groups still run and whether an old ingress role is lawful under
the new law. Many keys share shares and groups, and those are looked at once. Which phase wants the
old way, and which the new, is `phases`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from optimizer.assign_routes import split_bp
from scheduler.reconcile import GroupChange
from sites.assignment import GroupShare, Route, SiteAssignment
from sites.residency import ResidencyPolicy, may_process, may_transit


class OldWays:
    """The routes of one site before a change. They must outlive it: shares are known by identity,
    which only a living object has to itself.
    """

    def __init__(
        self,
        before: SiteAssignment | None,
        final: SiteAssignment,
        changes: Iterable[GroupChange],
    ) -> None:
        self._before = before
        self._final = final
        self._policies = {p.policy_id: p for p in final.policies}
        self._services = dict(final.services)
        self._alive = {c.group.group_id: c.group.variant_id for c in changes if c.alive}
        self._places = {p.site_id: (p.country, p.residency_tags) for p in final.peers}
        self._places[final.site_id] = (final.country, final.residency_tags)
        self._kept: dict[tuple[str, str, int], tuple[GroupShare, ...]] = {}
        self._lawful: dict[tuple[str, int, int], bool] = {}

    def groups(self, old: Route | None) -> tuple[GroupShare, ...]:
        """The old serving groups that still run, if the new law and services allow them."""
        if old is None or not old.groups:
            return ()
        key = old.key
        asked = (key.service_id, key.residency_policy_id, id(old.groups))
        if asked not in self._kept:
            self._kept[asked] = self._kept_groups(old)
        return self._kept[asked]

    def is_lawful(self, old: Route) -> bool:
        """Whether the old ingress role of a key may go on under the new law."""
        asked = (old.key.residency_policy_id, id(old.shares), id(old.backups))
        if asked not in self._lawful:
            policy = self._policies.get(old.key.residency_policy_id)
            self._lawful[asked] = policy is not None and self._may_go_on(old, policy)
        return self._lawful[asked]

    def _kept_groups(self, old: Route) -> tuple[GroupShare, ...]:
        policy = self._policies.get(old.key.residency_policy_id)
        final = self._final
        if policy is None or not may_process(
            policy, country=final.country, tags=final.residency_tags
        ):
            return ()
        variants = self._services.get(old.key.service_id, ())
        weights = {
            g.group_id: Fraction(g.basis_points)
            for g in old.groups
            if g.basis_points and self._alive.get(g.group_id) in variants
        }
        if not weights:
            return ()
        parts = split_bp(weights)
        return tuple(GroupShare(group_id=g, basis_points=parts[g]) for g in sorted(parts))

    def _may_go_on(self, old: Route, policy: ResidencyPolicy) -> bool:
        return may_transit(policy, country=self._final.country) and all(
            share.site_id in self._places
            and may_process(
                policy,
                country=self._places[share.site_id][0],
                tags=self._places[share.site_id][1],
            )
            and all(may_transit(policy, country=c) for c in share.transit_countries)
            for share in (*old.shares, *old.backups)
        )
