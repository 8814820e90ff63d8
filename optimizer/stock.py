"""What a plan leaves free of each shared limit, and which limit stands in the way of more.

Reads limits and uses from raw facts; decides nothing about what to do with the room.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from optimizer.costs import (
    budget_request_usd,
    busy_replicas,
    draw_w,
    possible_draw_w,
    usable_part,
)
from optimizer.plan import Plan, RejectReason
from optimizer.reach import Reach
from optimizer.supplies import cleanest_g_per_h, emission_g_per_h
from sites.assignment import ReplicaGroup
from sites.fleet import Link, at_period
from sites.units import BITS_PER_BYTE, S_PER_H, WHOLE_BP

BINDING_FROM = 0.999
"""A limit used to this part binds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tight:
    """A limit that more traffic would break: `needed` is the use after, in `unit`.

    `name` says which limit of the subject it is (a site has a power budget and its supplies).
    """

    reason: RejectReason
    subject: str
    name: str
    limit: float
    needed: float
    unit: str

    @property
    def short(self) -> float:
        """What is missing."""
        return self.needed - self.limit


class Stock:
    """Limits of a problem and what a plan uses of them."""

    def __init__(self, reach: Reach, plan: Plan) -> None:
        self.reach = reach
        self._replicas = {g.group.group_id: g.replicas for g in plan.groups}
        groups = {g.group.group_id: g.group for g in plan.groups}
        self._busy = busy_replicas(reach, groups, shares=plan.shares)
        self._accelerators: dict[tuple[str, str], int] = defaultdict(int)
        for one in plan.groups:
            key = (one.group.site_id, one.group.pool_id)
            self._accelerators[key] += one.replicas * one.group.accelerators_per_replica
        self._possible_w = possible_draw_w(reach, plan.groups)
        self._drawn_w = draw_w(reach, plan.groups, plan.shares)
        self._emitted_g = emission_g_per_h(reach.problem, plan.supplies)
        self._budgets = {t.tenant_id: t.budget_usd_per_h for t in reach.problem.tenants}
        self._spent: dict[str, float] = defaultdict(float)
        self._bits: dict[str, float] = defaultdict(float)
        for share in plan.shares:
            one_class = reach.classes[share.class_id]
            way = reach.way(one_class, share.site_id)
            rate = reach.rates[share.class_id] * share.basis_points / WHOLE_BP
            for link in way.links if way else ():
                self._bits[link.link_id] += rate * one_class.bytes_per_request * BITS_PER_BYTE
            if self._budgets[one_class.tenant_id] is not None and share.group_id in groups:
                price = budget_request_usd(reach, share.class_id, group=groups[share.group_id])
                self._spent[one_class.tenant_id] += rate * S_PER_H * price

    def spare_busy(self, group: ReplicaGroup) -> float:
        """Busy replicas a group could still take on the replicas it has."""
        room = self._replicas.get(group.group_id, 0) * usable_part(self.reach, group)
        return max(0.0, room - self._busy.get(group.group_id, 0.0))

    def in_the_way(self, class_id: str, group: ReplicaGroup) -> tuple[Tight, ...]:
        """Limits that one request/s more of the class would break, a replica more if need be."""
        need = self.reach.replica_seconds(self.reach.classes[class_id], group)
        replicas = 0 if self.spare_busy(group) >= need else 1
        return self.short_of(class_id, group, replicas=replicas, rate_rps=1.0)

    def short_of(
        self, class_id: str, group: ReplicaGroup, *, replicas: int, rate_rps: float
    ) -> tuple[Tight, ...]:
        """Limits that so many replicas and so much traffic more would break."""
        one = self.reach.classes[class_id]
        busy = rate_rps * self.reach.replica_seconds(one, group)
        found = [*self._short_site(group, replicas=replicas, busy=busy)]
        way = self.reach.way(one, group.site_id)
        more_bits = rate_rps * one.bytes_per_request * BITS_PER_BYTE
        for link in way.links if way else ():
            found.append(self._link(link, more_bits))
        found += self._budget_of(class_id, group, rate_rps=rate_rps)
        return tuple(t for t in found if t.short > 1e-9 * max(1.0, t.limit))

    def _short_site(self, group: ReplicaGroup, *, replicas: int, busy: float) -> list[Tight]:
        site, pool, point = (
            self.reach.problem.fleet.site(group.site_id),
            self.reach.pool(group),
            self.reach.point(group),
        )
        assert pool is not None and point is not None
        idle_w = point.idle_w * replicas * site.pue
        more_w = idle_w + (point.full_w - point.idle_w) * busy * site.pue
        accelerators = replicas * group.accelerators_per_replica
        return [
            self._budget(group.site_id, point.full_w * replicas * site.pue),
            self._supply(group.site_id, more_w),
            self._pool(group.site_id, group.pool_id, accelerators),
            *self._carbon(group.site_id, more_w),
        ]

    def _budget_of(self, class_id: str, group: ReplicaGroup, *, rate_rps: float) -> list[Tight]:
        """The tenant's budget, where it has one."""
        tenant_id = self.reach.classes[class_id].tenant_id
        if self._budgets[tenant_id] is None:
            return []
        price = budget_request_usd(self.reach, class_id, group=group)
        return [self._spending(tenant_id, rate_rps * S_PER_H * price)]

    def _spending(self, tenant_id: str, more_usd_per_h: float) -> Tight:
        return Tight(
            reason=RejectReason.BUDGET,
            subject=tenant_id,
            name="budget",
            limit=self._budgets[tenant_id] or 0.0,
            needed=self._spent[tenant_id] + more_usd_per_h,
            unit="USD/h",
        )

    def _carbon(self, site_id: str, more_w: float) -> list[Tight]:
        """The carbon cap, where there is one, if the site drew so much more at its cleanest."""
        problem = self.reach.problem
        cap = problem.plan_policy.carbon_cap_g_per_h
        if cap is None:
            return []
        site, drawn = problem.fleet.site(site_id), self._drawn_w.get(site_id, 0.0)
        more = cleanest_g_per_h(problem, site, watts=drawn + more_w)
        more -= cleanest_g_per_h(problem, site, watts=drawn)
        return [self._emission(cap, more)]

    def _emission(self, cap_g_per_h: float, more_g_per_h: float) -> Tight:
        return Tight(
            reason=RejectReason.CARBON,
            subject="fleet",
            name="carbon cap",
            limit=cap_g_per_h,
            needed=self._emitted_g + more_g_per_h,
            unit="gCO2e/h",
        )

    def _pool(self, site_id: str, pool_id: str, more: int) -> Tight:
        pool = self.reach.problem.fleet.site(site_id).pool(pool_id)
        return Tight(
            reason=RejectReason.ACCELERATORS,
            subject=f"{site_id}/{pool_id}",
            name="accelerators",
            limit=float(pool.count),
            needed=float(self._accelerators[site_id, pool_id] + more),
            unit=f"×{pool.accelerator}",
        )

    def _budget(self, site_id: str, more_w: float) -> Tight:
        site = self.reach.problem.fleet.site(site_id)
        return Tight(
            reason=RejectReason.POWER,
            subject=site_id,
            name="power budget",
            limit=at_period(site.power_budget_w, self.reach.problem.period),
            needed=self._possible_w.get(site_id, 0.0) + more_w,
            unit="W",
        )

    def _supply(self, site_id: str, more_w: float) -> Tight:
        site, period = self.reach.problem.fleet.site(site_id), self.reach.problem.period
        return Tight(
            reason=RejectReason.POWER,
            subject=site_id,
            name="power supply",
            limit=sum(at_period(s.limit_w, period) for s in site.supplies),
            needed=self._drawn_w.get(site_id, 0.0) + more_w,
            unit="W",
        )

    def _link(self, link: Link, more_bits: float) -> Tight:
        return Tight(
            reason=RejectReason.BANDWIDTH,
            subject=link.link_id,
            name="bandwidth",
            limit=link.bandwidth_bps,
            needed=self._bits[link.link_id] + more_bits,
            unit="bit/s",
        )

    def binding(self) -> tuple[Tight, ...]:
        """Limits the plan uses up, fullest first."""
        found: list[Tight] = []
        for site in self.reach.problem.fleet.sites:
            found += [self._budget(site.site_id, 0.0), self._supply(site.site_id, 0.0)]
            found += [self._pool(site.site_id, pool.pool_id, 0) for pool in site.pools]
        found += [self._link(link, 0.0) for link in self.reach.problem.fleet.links]
        found += [self._spending(t, 0.0) for t, b in sorted(self._budgets.items()) if b is not None]
        cap = self.reach.problem.plan_policy.carbon_cap_g_per_h
        found += [] if cap is None else [self._emission(cap, 0.0)]
        full = [t for t in found if t.needed > 0 and t.needed >= BINDING_FROM * t.limit]
        return tuple(sorted(full, key=lambda t: (-t.needed / max(t.limit, 1e-9), t.subject)))
