"""Where traffic goes when sites are lost, with the replicas as they stand and without a solver.

Decides shares only, in milliseconds: what a lost site served or let in moves to lawful replicas
with room, spread over the nearest of them; where room is short, protected classes go first, then
lower priority numbers, and the others are shed. Prices do not matter here; the re-plan that
follows puts them right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from optimizer.arcs import MIX_TTFT_PARTS
from optimizer.costs import priced_plan, trivial_bound_usd_per_h
from optimizer.plan import Plan, PlannedGroup, ShedTraffic, TrafficShare
from optimizer.problem import Problem, RunningGroup
from optimizer.reach import Reach
from optimizer.reroute_detours import Detour
from optimizer.room import Room
from sites.traffic import TrafficClass
from sites.units import WHOLE_BP

FEWEST_NEIGHBOURS = 3
"""Traffic that moves is spread over at least so many sites, where so many have room."""

HEADROOM_WANTED = 2
"""Nearest sites are taken in until they have so many times the room that is needed."""


def reroute(
    problem: Problem,
    plan: Plan,
    *,
    lost_sites: Iterable[str],
    running: tuple[RunningGroup, ...] | None = None,
) -> Plan:
    """The plan's traffic on the replicas that are left; it answers `rerouted_problem`.

    `running` are the replicas seen running (None: as planned). Shares nothing happened to stay as
    they are; what the plan shed stays shed. The bound is `trivial_bound_usd_per_h`.
    """
    answered = rerouted_problem(problem, plan, lost_sites=lost_sites, running=running)
    reach = Reach(answered)
    room = Room(reach, [PlannedGroup(group=r.group, replicas=r.replicas) for r in answered.running])
    _Reroute(reach, room, plan).run()
    return priced_plan(
        reach,
        groups=room.planned(),
        shares=room.traffic(),
        shed=room.shed(c for c, rate in sorted(reach.rates.items()) if rate > 0),
        bound_usd_per_h=trivial_bound_usd_per_h(answered),
        method="reroute",
    )


def rerouted_problem(
    problem: Problem,
    plan: Plan,
    *,
    lost_sites: Iterable[str],
    running: tuple[RunningGroup, ...] | None = None,
) -> Problem:
    """The problem a reroute answers, for the checker: nothing can be started, some sites are gone.

    What replicas are left counts as running. Limits that only new replicas could meet give way:
    floors drop to what runs, a shedding cap goes. So do, until the re-plan, spread, budgets and the
    carbon cap, the means of a class (each arc keeps its own law, latency and quality floor), and
    the price of a second loss.
    """
    lost = tuple(sorted({*problem.lost_sites, *lost_sites}))
    seen = running
    if seen is None:
        seen = tuple(RunningGroup(group=g.group, replicas=g.replicas) for g in plan.groups)
    bare = replace(problem, lost_sites=lost, running=())
    reach = Reach(bare)
    left = tuple(
        r
        for r in sorted(seen, key=lambda r: r.group)
        if r.replicas > 0 and r.group.site_id not in lost and reach.point(r.group) is not None
    )
    floors = tuple(
        replace(bound, fewest=min(bound.fewest, _count(left, bound.site_id, bound.variant_id)))
        for bound in problem.plan_policy.replica_bounds
    )
    policy = replace(
        problem.plan_policy,
        replica_bounds=floors,
        max_shed_basis_points=None,
        carbon_cap_g_per_h=None,
        exposure_part=0.0,
    )
    return replace(
        bare,
        running=left,
        plan_policy=policy,
        classes=tuple(_without_means(one) for one in problem.classes),
        tenants=tuple(replace(t, budget_usd_per_h=None) for t in problem.tenants),
    )


def _count(running: tuple[RunningGroup, ...], site_id: str, variant_id: str) -> int:
    return sum(
        r.replicas
        for r in running
        if (r.group.site_id, r.group.variant_id) == (site_id, variant_id)
    )


def _without_means(one: TrafficClass) -> TrafficClass:
    """The class without spread and means; what limited each arc of a mean still does."""
    slo = one.slo
    if slo.over_mix:
        slo = replace(slo, ttft_ms=slo.ttft_ms * MIX_TTFT_PARTS, over_mix=False)
    return replace(one, slo=slo, mean_quality_floor=0.0, spread_sites=1, spread_zones=1)


def detour_plan(
    problem: Problem,
    plan: Plan,
    detour: Detour,
    *,
    running: tuple[RunningGroup, ...] | None = None,
) -> Plan:
    """The whole plan with a detour in it; it answers `rerouted_problem` of the site lost.

    `running` as the detour was asked for. The bound is `trivial_bound_usd_per_h`.
    """
    lost = (detour.lost_site_id,)
    answered = rerouted_problem(problem, plan, lost_sites=lost, running=running)
    reach = Reach(answered)
    groups = {r.group.group_id: r for r in answered.running}
    shares = [s for s in plan.shares if s.class_id not in detour.shares]
    shed = [s for s in plan.shed if s.class_id not in detour.shares]
    for class_id, parts in sorted(detour.shares.items()):
        one = reach.classes[class_id]
        entry = reach.entry(one)
        for group_id, basis_points in sorted(parts.items()):
            site_id = groups[group_id].group.site_id
            way = reach.way(one, site_id)
            assert entry is not None and way is not None, f"{class_id} has no way to {site_id}"
            shares.append(
                TrafficShare(
                    class_id=class_id,
                    group_id=group_id,
                    site_id=site_id,
                    ingress_site_id=entry.site_id,
                    basis_points=basis_points,
                    transit_countries=way.transit_countries,
                )
            )
        if detour.shed_bp(class_id) > 0:
            shed.append(ShedTraffic(class_id=class_id, basis_points=detour.shed_bp(class_id)))
    return priced_plan(
        reach,
        groups=[PlannedGroup(group=r.group, replicas=r.replicas) for r in answered.running],
        shares=shares,
        shed=shed,
        bound_usd_per_h=trivial_bound_usd_per_h(answered),
        method="reroute",
    )


class _Reroute:
    """One reroute under way: what is kept, then class by class what is still to be placed."""

    def __init__(self, reach: Reach, room: Room, plan: Plan) -> None:
        self.reach = reach
        self.room = room
        self.plan = plan
        self.shed_before = {s.class_id: s.basis_points for s in plan.shed}
        self.touched: set[str] = set()
        self.order = sorted(
            (c for c in reach.classes.values() if reach.rates[c.class_id] > 0),
            key=lambda c: (*_rank(c), c.class_id),
        )
        self._lawful: dict[str, list[str]] = {}

    def run(self) -> None:
        """Keep what stands, place what does not, most important class first."""
        self._keep()
        for one in self.order:
            self._place(one)
            if self._missing(one.class_id) > 0:
                self._displace(one)
        for class_id in sorted(self.touched):
            self.room.even_out(class_id)

    def _keep(self) -> None:
        """Shares whose site, ingress and replicas are as they were stay whole; others if they fit.

        A share stays whole even where its rounding passed the limit by a basis point.
        """
        planned = {g.group.group_id: g.replicas for g in self.plan.groups}
        rank = {c.class_id: place for place, c in enumerate(self.order)}
        shares = [s for s in self.plan.shares if s.class_id in rank]
        uncertain = []
        for share in shares:
            group_id, one = share.group_id, self.reach.classes[share.class_id]
            entry = self.reach.entry(one)
            if self.room.replicas.get(group_id, 0) == 0 or entry is None:
                self.touched.add(share.class_id)
            elif entry.site_id == share.ingress_site_id and self.room.replicas[
                group_id
            ] >= planned.get(group_id, 0):
                self.room.put(share.class_id, group_id, share.basis_points)
            else:
                self.touched.add(share.class_id)
                uncertain.append(share)
        for share in sorted(uncertain, key=lambda s: (rank[s.class_id], s.group_id)):
            one = self.reach.classes[share.class_id]
            if self.reach.refusal(one, self.room.groups[share.group_id]) is None:
                fits = self.room.fits(share.class_id, share.group_id)
                self.room.put(share.class_id, share.group_id, min(fits, share.basis_points))

    def _missing(self, class_id: str) -> int:
        shed = self.shed_before.get(class_id, 0)
        return WHOLE_BP - shed - self.room.served(class_id)

    def _may_use(self, one: TrafficClass) -> list[str]:
        """Groups that may answer the class, nearest site first."""
        if one.class_id not in self._lawful:
            found = []
            for group_id, group in sorted(self.room.groups.items()):
                if self.reach.refusal(one, group) is None:
                    way = self.reach.way(one, group.site_id)
                    assert way is not None, "refusal ruled out a missing path"
                    found.append((way.rtt_ms, group_id))
            self._lawful[one.class_id] = [group_id for _, group_id in sorted(found)]
        return self._lawful[one.class_id]

    def _site_room(self, one: TrafficClass, group_id: str) -> int:
        """What a group may still take, within what one site may take of a spread class."""
        per_site = -(-WHOLE_BP // one.spread_sites)
        here = self.room.at_site(one.class_id, self.room.groups[group_id].site_id)
        return max(0, min(self.room.fits(one.class_id, group_id), per_site - here))

    def _place(self, one: TrafficClass) -> None:
        """Spread what is missing over the nearest sites with room, by how much room each has."""
        missing = self._missing(one.class_id)
        if missing <= 0:
            return
        self.touched.add(one.class_id)
        near = self._neighbours(one, missing)
        total = sum(free for _, free in near)
        for group_id, free in near:
            part = missing * free // total
            self.room.put(one.class_id, group_id, min(part, self._site_room(one, group_id)))
        for group_id in (*[g for g, _ in near], *self._may_use(one)):
            left = self._missing(one.class_id)
            self.room.put(one.class_id, group_id, min(left, self._site_room(one, group_id)))

    def _neighbours(self, one: TrafficClass, missing: int) -> list[tuple[str, int]]:
        """(group, room) at the nearest sites: at least three, with twice the room needed."""
        near: list[tuple[str, int]] = []
        sites: set[str] = set()
        for group_id in self._may_use(one):
            site_id = self.room.groups[group_id].site_id
            enough = sum(free for _, free in near) >= HEADROOM_WANTED * missing
            if enough and len(sites) >= FEWEST_NEIGHBOURS and site_id not in sites:
                break
            free = self._site_room(one, group_id)
            if free > 0:
                near.append((group_id, free))
                sites.add(site_id)
        return near

    def _displace(self, one: TrafficClass) -> None:
        """Take room from classes that matter less, the least important first."""
        usable = self._may_use(one)
        for victim in reversed(self.order):
            if _rank(victim) <= _rank(one):
                return
            for group_id in usable:
                held = self.room.shares[victim.class_id].get(group_id, 0)
                if held > 0 and self._missing(one.class_id) > 0:
                    self._swap(one, victim, group_id, held=held)

    def _swap(self, one: TrafficClass, victim: TrafficClass, group_id: str, *, held: int) -> None:
        """Give a class what a lesser one holds at a group, no more than it needs."""
        group = self.room.groups[group_id]
        per_site = -(-WHOLE_BP // one.spread_sites)
        wanted = min(
            self._missing(one.class_id),
            per_site - self.room.at_site(one.class_id, group.site_id),
        )
        if wanted <= 0:
            return
        self.room.put(victim.class_id, group_id, -held)
        gained = min(wanted, self.room.fits(one.class_id, group_id))
        self.room.put(one.class_id, group_id, gained)
        back = min(held, self.room.fits(victim.class_id, group_id)) if gained else held
        self.room.put(victim.class_id, group_id, back)
        self.touched.add(victim.class_id)


def _rank(one: TrafficClass) -> tuple[bool, int]:
    """What is served first when room is short: protected classes, then low priority numbers."""
    return (not one.protected, one.priority)
