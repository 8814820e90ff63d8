"""A plan without a solver: the cheapest arc first, classes in order of priority.

A baseline and a yardstick, good as a first guess for `solve`: it decides fast and keeps every
limit, but never looks back further than one round of closing what does not pay. Best plans are the
formulation's work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from optimizer.costs import (
    cost_of,
    full_request_usd,
    priced_plan,
    replica_price_usd_per_h,
    shed_price_usd_per_h,
    supplies_of,
    trivial_bound_usd_per_h,
    usable_part,
)
from optimizer.plan import CandidateArc, Plan, PlannedGroup
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.room import Room
from optimizer.supplies import supply_price_usd_per_w_h
from optimizer.survive_plan import certified
from sites.assignment import ReplicaGroup
from sites.fleet import at_period
from sites.units import S_PER_H, WHOLE_BP

_ROUNDING = 1e-9


def greedy_plan(
    problem: Problem,
    arcs: Iterable[CandidateArc],
    *,
    more: Callable[[str], Iterable[CandidateArc]] | None = None,
    is_late: Callable[[], bool] = lambda: False,
) -> Plan:
    """Serve each class over its cheapest arcs that still fit, shed the rest.

    Keeps every limit; a replica floor or a shedding cap is met as far as the other limits let it.
    The bound is that of `lone_bound_usd_per_h`; the trivial one where `arcs` are not all: then a
    class (by id) that they leave short gets `more`. Once it `is_late` neither that nor closing is.
    """
    builder = _Builder(problem, arcs)
    builder.start()
    for class_id in builder.by_priority():
        builder.serve(class_id)
        if more is not None and builder.is_short(class_id) and not is_late():
            builder.offer(class_id, more(class_id))
            builder.serve(class_id)
    builder.close_what_does_not_pay(is_late)
    if more is not None:
        return builder.finish(trivial_bound_usd_per_h(problem))
    return builder.finish(lone_bound_usd_per_h(problem, builder.arcs))


def lone_bound_usd_per_h(problem: Problem, arcs: Iterable[CandidateArc]) -> float:
    """A floor under any plan's cost (USD/h): each class alone at the best price it could get.

    Shared limits, whole replicas, migration and fixed prices are left out, so no plan is cheaper.
    Energy priced below 0 is credited in full, wherever it is sold.
    """
    reach = Reach(problem)
    cheapest: dict[str, float] = {}
    for arc in arcs:
        price = _request_usd(reach, arc, floor_energy=True)
        cheapest[arc.class_id] = min(price, cheapest.get(arc.class_id, price))
    total = trivial_bound_usd_per_h(problem)
    for class_id, rate in sorted(reach.rates.items()):
        shed = shed_price_usd_per_h(reach, class_id)
        served = cheapest.get(class_id)
        total += shed if served is None else min(shed, served * rate * S_PER_H)
    return total


def _spare_usd(reach: Reach, arc: CandidateArc) -> float:
    """Price of one request over an arc on a replica that runs anyway (USD): energy and network."""
    point, site = reach.point(arc.group), reach.site(arc.group.site_id)
    assert point is not None and site is not None
    dearest = max(sum(supply_price_usd_per_w_h(reach.problem, s)) for s in site.supplies)
    per_h = (point.full_w - point.idle_w) * site.pue * dearest
    return per_h * arc.replica_seconds / S_PER_H + arc.network_usd_per_request


def _request_usd(reach: Reach, arc: CandidateArc, *, floor_energy: bool) -> float:
    """Price of one request over an arc on replicas used to the ceiling (USD)."""
    site = reach.site(arc.group.site_id)
    assert site is not None
    prices = [sum(supply_price_usd_per_w_h(reach.problem, s)) for s in site.supplies]
    price = max(0.0, min(prices)) if floor_energy else max(prices)
    return full_request_usd(reach, arc.class_id, group=arc.group, usd_per_w_h=price)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Option:
    """An arc with its price per request (USD): on new replicas, and on spare room of others."""

    group: ReplicaGroup
    price: float
    spare_price: float


class _Builder:
    """One greedy plan under construction."""

    def __init__(self, problem: Problem, arcs: Iterable[CandidateArc]) -> None:
        self.problem = problem
        self.reach = Reach(problem)
        self.arcs = tuple(sorted(arcs, key=lambda a: (a.class_id, a.group)))
        self.running = {
            r.group.group_id: r.replicas
            for r in problem.running
            if r.group.site_id not in self.reach.lost and self.reach.point(r.group) is not None
        }
        limit = problem.plan_policy.move_limit_replicas
        self.move_limit = float("inf") if limit is None else limit
        kept = self._kept()
        self.room = Room(self.reach, kept)
        self.held: dict[tuple[str, ...], float] = defaultdict(float)
        self.moved = sum(self.running.values()) - sum(g.replicas for g in kept)
        for one in kept:
            self._count(one.group, one.replicas)
        self.options = self._options()

    def _kept(self) -> list[PlannedGroup]:
        """Under a move limit start from what runs; without one, from nothing."""
        if self.problem.plan_policy.move_limit_replicas is None:
            return []
        return [
            PlannedGroup(group=r.group, replicas=r.replicas)
            for r in sorted(self.problem.running, key=lambda r: r.group)
            if r.group.group_id in self.running
        ]

    def _options(self) -> dict[str, list[_Option]]:
        found: dict[str, list[_Option]] = {}
        for arc in self.arcs:
            if self.reach.rates[arc.class_id] > 0:
                found.setdefault(arc.class_id, []).append(self._option(arc))
        return {c: sorted(o, key=lambda o: (o.price, o.group)) for c, o in found.items()}

    def _option(self, arc: CandidateArc) -> _Option:
        if arc.group.group_id not in self.room.groups:
            self.room.place(arc.group, 0)
        return _Option(
            group=arc.group,
            price=_request_usd(self.reach, arc, floor_energy=False),
            spare_price=_spare_usd(self.reach, arc),
        )

    def offer(self, class_id: str, arcs: Iterable[CandidateArc]) -> None:
        """Serve a class over other arcs from now on."""
        options = [self._option(arc) for arc in arcs]
        self.options[class_id] = sorted(options, key=lambda o: (o.price, o.group))

    def is_short(self, class_id: str) -> bool:
        """Whether some of a class is not served."""
        return self.room.served(class_id) < WHOLE_BP

    def start(self) -> None:
        """Stop what runs beyond a limit, then meet the floors, cheapest group first."""
        for group in self._placed():
            while self._is_over(group) and self.can_drop(group):
                self.place(group, -1)
        known = sorted({a.group for a in self.arcs} | {r.group for r in self.problem.running})
        for bound in sorted(
            self.problem.plan_policy.replica_bounds, key=lambda b: (b.site_id, b.variant_id)
        ):
            groups = [
                g
                for g in known
                if (g.site_id, g.variant_id) == (bound.site_id, bound.variant_id)
                and g.site_id not in self.reach.lost
                and self.reach.point(g) is not None
            ]
            groups.sort(key=lambda g: (replica_price_usd_per_h(self.reach, g), g))
            for group in groups:
                while self._of_variant(group) < bound.fewest and self.can_add(group):
                    self.place(group, 1)

    def by_priority(self) -> list[str]:
        """Classes with demand and an arc: shed last first, protected before others."""
        classes = [self.reach.classes[c] for c in self.options]
        classes.sort(key=lambda c: (c.priority, not c.protected, c.class_id))
        return [c.class_id for c in classes]

    def serve(self, class_id: str) -> None:
        """Route as much of a class as fits, cheapest first, and keep it spread.

        Spare room of replicas that are already planned is filled before any is added.
        """
        worth = shed_price_usd_per_h(self.reach, class_id) / (self.reach.rates[class_id] * S_PER_H)
        must = self.problem.plan_policy.max_shed_basis_points is not None
        options = self.options[class_id]
        placed = [o for o in options if self.room.replicas[o.group.group_id] > 0]
        for option in sorted(placed, key=lambda o: (o.spare_price, o.group)):
            if option.spare_price < worth or must:
                self._fill(class_id, option.group)
        twice = self.room.asks_means(class_id)  # a dear arc may make room in a mean for a cheap one
        for option in options * 2 if twice else options:
            if self.room.served(class_id) == WHOLE_BP:
                return
            if option.price < worth or must:
                self._fill_and_add(class_id, option.group)
        self.room.even_out(class_id)

    def _wanted(self, class_id: str, group: ReplicaGroup) -> int:
        """What is left of a class, within what one of its sites may take."""
        left = WHOLE_BP - self.room.served(class_id)
        return max(0, min(left, self.room.place_left(class_id, group.group_id)))

    def _fill(self, class_id: str, group: ReplicaGroup) -> bool:
        """Route what fits on the group's replicas; whether that was all that was wanted."""
        wanted = self._wanted(class_id, group)
        amount = min(wanted, self.room.fits(class_id, group.group_id))
        self.room.put(class_id, group.group_id, amount)
        return amount == wanted

    def _fill_and_add(self, class_id: str, group: ReplicaGroup) -> None:
        while not self._fill(class_id, group) and self.can_add(group):
            self.place(group, 1)
            if self.room.fits(class_id, group.group_id) == 0:
                self.place(group, -1)
                return

    def place(self, group: ReplicaGroup, more: int) -> None:
        """Add (or take away) one replica at a time and keep count."""
        step = 1 if more > 0 else -1
        for _ in range(abs(more)):
            now = self.room.replicas.get(group.group_id, 0)
            wanted = self.running.get(group.group_id, 0)
            self.moved += abs(now + step - wanted) - abs(now - wanted)
            self.room.place(group, step)
            self._count(group, step)

    def _count(self, group: ReplicaGroup, more: int) -> None:
        point, site = self.reach.point(group), self.reach.site(group.site_id)
        assert point is not None and site is not None
        accelerators = group.accelerators_per_replica * more
        self.held["pool", group.site_id, group.pool_id] += accelerators
        self.held["variant", group.site_id, group.variant_id] += more
        self.held["power", group.site_id] += point.full_w * site.pue * more

    def _spare_budget_w(self, site_id: str) -> float:
        site = self.problem.fleet.site(site_id)
        budget_w = at_period(site.power_budget_w, self.problem.period)
        return budget_w - self.held["power", site_id]

    def _pool_used(self, group: ReplicaGroup) -> float:
        return self.held["pool", group.site_id, group.pool_id]

    def _of_variant(self, group: ReplicaGroup) -> float:
        return self.held["variant", group.site_id, group.variant_id]

    def _is_over(self, group: ReplicaGroup) -> bool:
        """Whether what is placed already breaks a limit of the group's site."""
        pool = self.reach.pool(group)
        assert pool is not None
        return (
            self._spare_budget_w(group.site_id) < -_ROUNDING
            or self._pool_used(group) > pool.count
            or self._of_variant(group) > self._bounds(group)[1]
        )

    def can_add(self, group: ReplicaGroup) -> bool:
        """Whether one more replica breaks no limit."""
        site, pool, point = (
            self.problem.fleet.site(group.site_id),
            self.reach.pool(group),
            self.reach.point(group),
        )
        assert pool is not None and point is not None
        now = self.room.replicas.get(group.group_id, 0)
        moving = 1 if now >= self.running.get(group.group_id, 0) else -1
        return (
            self._pool_used(group) + group.accelerators_per_replica <= pool.count
            and point.full_w * site.pue <= self._spare_budget_w(site.site_id) + _ROUNDING
            and point.idle_w * site.pue <= self.room.spare_w(site.site_id) + _ROUNDING
            and self.moved + moving <= self.move_limit
            and self._of_variant(group) < self._bounds(group)[1]
            and not (site.cordoned and moving > 0)
        )

    def _bounds(self, group: ReplicaGroup) -> tuple[int, float]:
        fewest, most = 0, float("inf")
        for bound in self.problem.plan_policy.replica_bounds:
            if (bound.site_id, bound.variant_id) == (group.site_id, group.variant_id):
                fewest = max(fewest, bound.fewest)
                most = most if bound.most is None else min(most, bound.most)
        return fewest, most

    def can_drop(self, group: ReplicaGroup) -> bool:
        """Whether one replica less breaks no floor and no move limit."""
        now = self.room.replicas[group.group_id]
        moving = 1 if now <= self.running.get(group.group_id, 0) else -1
        return (
            now > 0
            and self.moved + moving <= self.move_limit
            and self._of_variant(group) > self._bounds(group)[0]
        )

    def close_what_does_not_pay(self, is_late: Callable[[], bool]) -> None:
        """Drop idle replicas; close groups, then sites, where that is cheaper, until it is late."""
        for group in self._placed():
            self._drop_idle(group)
        if self.problem.plan_policy.max_shed_basis_points is not None:
            return
        beside: dict[str, list[ReplicaGroup]] = defaultdict(list)
        for group in self._placed():
            beside[group.site_id].append(group)
        for group in self._placed():
            if not is_late():
                self._close([group], beside[group.site_id])
        for site in sorted(self.problem.fleet.sites, key=lambda s: s.site_id):
            if site.fixed_price_usd_per_h > 0 and not is_late():
                here = beside[site.site_id]
                self._close([g for g in here if self.room.replicas[g.group_id]], here)

    def _placed(self) -> list[ReplicaGroup]:
        return sorted(g for i, g in self.room.groups.items() if self.room.replicas[i])

    def _drop_idle(self, group: ReplicaGroup) -> None:
        usable = usable_part(self.reach, group)
        busy = self.room.busy(group.group_id)
        for _ in range(self.room.replicas[group.group_id]):
            fewer = self.room.replicas[group.group_id] - 1
            if busy > fewer * usable + _ROUNDING or not self.can_drop(group):
                return
            self.place(group, -1)

    def _close(self, groups: list[ReplicaGroup], beside: list[ReplicaGroup]) -> None:
        """Stop groups, of those `beside` at their site, and shed what they served, if that pays."""
        held = [
            (class_id, group.group_id, self.room.shares[class_id][group.group_id])
            for group in groups
            for class_id in self._served_by({group.group_id})
        ]
        hurt = sorted({class_id for class_id, _, _ in held})
        before = self._cost(beside, hurt)
        for class_id, group_id, basis_points in held:
            self.room.put(class_id, group_id, -basis_points)
        undo_replicas: list[tuple[ReplicaGroup, int]] = []
        for group in groups:
            stopped = 0
            while self.can_drop(group):
                self.place(group, -1)
                stopped += 1
            undo_replicas.append((group, stopped))
        if self._cost(beside, hurt) < before and all(self.room.keeps_mix(c) for c in hurt):
            return
        for group, stopped in undo_replicas:
            self.place(group, stopped)
        for class_id, group_id, basis_points in held:
            self.room.put(class_id, group_id, basis_points)

    def _served_by(self, group_ids: set[str]) -> list[str]:
        """Classes with a share on some of the groups, sorted."""
        shares = self.room.shares.items()
        return sorted(c for c, held in shares if not group_ids.isdisjoint(held))

    def _cost(self, beside: list[ReplicaGroup], hurt: list[str]) -> float:
        """What the groups of one site cost and what is shed of some classes (USD/h): all that
        stopping some of them changes. Only a carbon cap asks for the whole plan's, which takes a
        hundred times as long on a large fleet: it ties the sites' power together.
        """
        whole = self.problem.plan_policy.carbon_cap_g_per_h is not None
        replicas = self.room.replicas
        here = [g for g in (self._placed() if whole else beside) if replicas[g.group_id]]
        groups = tuple(PlannedGroup(group=g, replicas=replicas[g.group_id]) for g in here)
        known = {g.group_id for g in here}
        traffic = self.room.traffic(self._served_by(known))
        shares = tuple(s for s in traffic if s.group_id in known)
        return cost_of(
            self.reach,
            groups=groups,
            shares=shares,
            shed=self.room.shed(hurt),
            supplies=supplies_of(self.reach, groups, shares=shares),
        ).total_usd_per_h

    def _with_demand(self) -> list[str]:
        return sorted(c for c, rate in self.reach.rates.items() if rate > 0)

    def finish(self, bound_usd_per_h: float) -> Plan:
        """The plan as it stands, priced, with its bound and its answer to every loss."""
        plan = priced_plan(
            self.reach,
            groups=self.room.planned(),
            shares=self.room.traffic(),
            shed=self.room.shed(self._with_demand()),
            bound_usd_per_h=bound_usd_per_h,
            method="greedy",
        )
        return certified(self.reach, plan)
