"""For every single loss where all traffic goes, worked out ahead, and repaired when it happens.

Decides shares only, with the replicas as they stand. Protected traffic goes where the plan's
certificate says. What else a loss touches, or what has to give way, goes where it costs least
(`milp.flows`), spread over several sites; what nobody can take is shed, at the least price. Nobody
else moves, so an answer is a `Detour`: the classes that change. `optimizer.reroute` answers for
several losses at once; putting a detour into a whole plan is `detour_plan`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from optimizer.costs import network_usd_per_request, shed_price_usd_per_h
from optimizer.milp.flows import Flow, cheapest_flows
from optimizer.milp.survive_local import best_answer
from optimizer.plan import Plan, SurvivalShare
from optimizer.problem import Problem, RunningGroup
from optimizer.reach import Reach
from optimizer.supplies import by_price, supply_price_usd_per_w_h
from optimizer.survive import AfterLoss, RowKey
from optimizer.survive_plan import Survivors, Tally, whole_shares
from sites.fleet import at_period
from sites.units import S_PER_H, WHOLE_BP

MOST_AT_ONE_SITE_BP = 5_000
"""Of what moves of a class no site takes more than this part of the class, where others have room
at little more."""

SPREAD_PRICE_PART = 0.01
"""What spreading may cost, as part of the price of shedding."""

MOVING_PRICE_PART = 0.001
"""What moving a share that could stay costs, as part of the price of shedding it."""

_ROUNDS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Detour:
    """What changes when `lost_site_id` is lost: all of what each class listed then has, in basis
    points by group; what is missing of 10 000 is shed. Classes not listed keep their shares.
    """

    lost_site_id: str
    shares: Mapping[str, Mapping[str, int]]

    def shed_bp(self, class_id: str) -> int:
        """Basis points of a listed class that are shed."""
        return WHOLE_BP - sum(self.shares[class_id].values())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """A detour with what it uses of each limit beyond the plan, so that a repair starts there."""

    detour: Detour
    more: Mapping[RowKey, float] = field(default_factory=dict)


class RerouteTable:
    """The detours of one plan of one problem; each is worked out when first asked, or by `fill`.

    Holds for `problem_digest` and `plan` only: make a new one for a new plan.
    """

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.plan = plan
        self.reach = Reach(problem)
        self.all = Survivors(self.reach, plan, classes=dict(sorted(self.reach.classes.items())))
        self.protected = Survivors(self.reach, plan)
        self.holders: dict[str, set[str]] = defaultdict(set)
        for class_id, shares in self.all.held.items():
            for group_id in shares:
                self.holders[group_id].add(class_id)
        self.replicas = {g: one.replicas for g, one in sorted(self.all.groups.items())}
        self._running = tuple(RunningGroup(group=g.group, replicas=g.replicas) for g in plan.groups)
        self._certificate: dict[str, list[SurvivalShare]] = defaultdict(list)
        for entry in plan.survival:
            self._certificate[entry.lost_site_id].append(entry)
        self._exposed = {(e.lost_site_id, e.class_id) for e in plan.exposed}
        self._power = _marginal_usd_per_w_h(problem, plan)
        self._known: dict[str, _Known] = {}

    def fill(self) -> None:
        """Work out every loss that changes anything."""
        for site_id in self.all.losses():
            self.detour(site_id)

    def detour(self, lost_site_id: str) -> Detour:
        """The answer to a loss with the replicas as planned. Raises KeyError for no site."""
        return self._of(lost_site_id).detour

    def answer(
        self, lost_site_id: str, *, running: tuple[RunningGroup, ...] | None = None
    ) -> Detour:
        """The answer to a loss with the replicas seen `running` (None: as planned).

        Where fewer run than planned, what no longer fits there moves on; more are not used.
        """
        known = self._of(lost_site_id)
        if running is None or running == self._running:
            return known.detour
        seen = {r.group.group_id: r.replicas for r in running}
        fewer = {
            g: seen.get(g, 0)
            for g, planned in self.replicas.items()
            if seen.get(g, 0) < planned and self.all.groups[g].group.site_id != lost_site_id
        }
        if not fewer:
            return known.detour
        return _Repair(self, known.detour, known.more, fewer=fewer).detour()

    def _of(self, lost_site_id: str) -> _Known:
        if lost_site_id not in self._known:
            self.reach.problem.fleet.site(lost_site_id)
            work = _Work(self, lost_site_id)
            work.protect(self._certificate.get(lost_site_id), self._exposed)
            work.move_on()
            self._known[lost_site_id] = _Known(
                detour=Detour(lost_site_id=lost_site_id, shares=work.changed()),
                more=dict(work.tally.more),
            )
        return self._known[lost_site_id]

    def price(self, left: Reach, class_id: str, group_id: str) -> float:
        """Power and transfer of one basis point of a class at a group (USD/h)."""
        group = self.all.groups[group_id].group
        uses = self.all.uses(left, class_id, group_id)
        power = uses.get(("supply_limit", group.site_id), 0.0) * self._power[group.site_id]
        per_request = network_usd_per_request(left, class_id, site_id=group.site_id)
        return power + per_request * self.reach.rates[class_id] / WHOLE_BP * S_PER_H

    def shed_price(self, class_id: str) -> float:
        """Shedding one basis point of a class (USD/h)."""
        return shed_price_usd_per_h(self.reach, class_id) / WHOLE_BP


class _Work:
    """One loss being worked out: what each class that changes has, and what that uses."""

    def __init__(self, table: RerouteTable, lost_site_id: str) -> None:
        self.table, self.lost_site_id = table, lost_site_id
        self.left = AfterLoss(table.reach, lost_site_id)
        self.tally = Tally(now=table.all.now, limits=dict(table.all.limits))
        self.shares: dict[str, dict[str, int]] = {}

    def has(self, class_id: str) -> Mapping[str, int]:
        """What a class has at present: as worked out, else as planned."""
        return self.shares.get(class_id, self.table.all.held.get(class_id, {}))

    def put(self, class_id: str, shares: Mapping[str, int]) -> None:
        """Let a class have these shares instead of what it has."""
        before = self.left if class_id in self.shares else self.table.reach
        for group_id, basis_points in self.has(class_id).items():
            uses = self.table.all.uses(before, class_id, group_id)
            self.tally.add(uses, -basis_points)
        self.shares[class_id] = {g: bp for g, bp in sorted(shares.items()) if bp > 0}
        for group_id, basis_points in self.shares[class_id].items():
            uses = self.table.all.uses(self.left, class_id, group_id)
            self.tally.add(uses, basis_points)

    def protect(
        self, certificate: Sequence[SurvivalShare] | None, exposed: Collection[tuple[str, str]]
    ) -> None:
        """Protected classes go where the certificate says; without one, to the nearest sites."""
        table, survivors = self.table, self.table.protected
        touched = survivors.touched.get(self.lost_site_id, set())
        if certificate is None and touched:
            certificate = best_answer(survivors, self.lost_site_id).survival
        listed: dict[str, dict[str, int]] = defaultdict(dict)
        for entry in certificate or ():
            listed[entry.class_id][entry.group_id] = entry.basis_points
        for class_id in sorted({*touched, *listed}):
            if class_id in listed or (self.lost_site_id, class_id) in exposed:
                self.put(class_id, listed.get(class_id, {}))
            else:
                self.put(class_id, self._lawful(class_id, table.all.held[class_id]))

    def move_on(self) -> None:
        """What else the loss touches or the protected classes push out goes where it is cheapest;
        if some of it finds no room, those beside it may give way as well.
        """
        table = self.table
        free = {
            c
            for c in table.all.touched.get(self.lost_site_id, ())
            if not table.all.classes[c].protected
        }
        for class_id in sorted(free):
            self.put(class_id, self._lawful(class_id, table.all.held[class_id]))
        free |= self._pushed_out()
        for _ in range(_ROUNDS):
            if not free:
                return
            self.settle(free)
            short = [c for c in sorted(free) if self._shed_bp(c) > self._planned_shed_bp(c) + 1]
            beside = self._beside(short)
            if beside <= free:
                return
            free |= beside

    def settle(self, free: Collection[str]) -> None:
        """Give these classes the cheapest shares that fit beside everybody else's."""
        table, classes = self.table, sorted(free)
        was = {class_id: dict(self.has(class_id)) for class_id in classes}
        for class_id in classes:
            self.put(class_id, {})
        flows = [
            Flow(
                class_id=c,
                group_id=g,
                price=table.price(self.left, c, g) + (0.0 if g in was[c] else moving),
                uses=uses,
            )
            for c in classes
            if (moving := MOVING_PRICE_PART * table.shed_price(c)) >= 0
            for g in table.all.options(self.left, c)
            if self.tally.fits(uses := table.all.uses(self.left, c, g)) > 0
        ]
        parts = cheapest_flows(
            flows,
            limits={key: self.tally.left(key) for flow in flows for key in flow.uses},
            shed_price={c: table.shed_price(c) for c in classes},
        )
        for class_id in classes:
            self.put(class_id, whole_shares(parts.get(class_id, {}), wanted=WHOLE_BP))
        for class_id in classes:
            self._spread(class_id, before=was[class_id])

    def changed(self) -> dict[str, dict[str, int]]:
        """Classes whose shares or ingress are not as planned."""
        table = self.table
        return {
            class_id: shares
            for class_id, shares in sorted(self.shares.items())
            if shares != table.all.held[class_id] or self._moved_in(class_id)
        }

    def _moved_in(self, class_id: str) -> bool:
        before = self.table.reach.entry(self.table.all.classes[class_id])
        return before is not None and before.site_id == self.lost_site_id

    def _lawful(self, class_id: str, shares: Mapping[str, int]) -> dict[str, int]:
        """The shares that stay lawful: at sites left, and from where the class then enters."""
        if not self._moved_in(class_id):
            groups = self.table.all.groups
            return {
                g: bp for g, bp in shares.items() if groups[g].group.site_id != self.lost_site_id
            }
        options = set(self.table.all.options(self.left, class_id))
        return {g: bp for g, bp in shares.items() if g in options}

    def _pushed_out(self) -> set[str]:
        """Unprotected classes on groups that now hold more than they can."""
        table, out = self.table, set[str]()
        for key, more in sorted(self.tally.more.items()):
            if more > 0 and key[0] == "throughput" and self.tally.left(key) < 0:
                out |= self._unprotected(table.holders[key[1]])
        return out

    def _beside(self, short: Sequence[str]) -> set[str]:
        """Unprotected classes that hold traffic where these could go, at a lower shed price."""
        groups = {g for c in short for g in self.table.all.options(self.left, c)}
        return set(short) | self._unprotected(
            {c for g in sorted(groups) for c in self.table.holders.get(g, ())}
        )

    def _unprotected(self, class_ids: Collection[str]) -> set[str]:
        return {c for c in class_ids if not self.table.all.classes[c].protected}

    def _shed_bp(self, class_id: str) -> int:
        return WHOLE_BP - sum(self.has(class_id).values())

    def _planned_shed_bp(self, class_id: str) -> int:
        return self.table.all.shed.get(class_id, 0)

    def _spread(self, class_id: str, *, before: Mapping[str, int]) -> None:
        """Move part of what one site gained to other sites with room, if that costs little."""
        table = self.table
        gained = {
            g: bp - before.get(g, 0)
            for g, bp in self.shares[class_id].items()
            if bp > before.get(g, 0)
        }
        most = max(gained, key=lambda g: (gained[g], g), default="")
        over = gained.get(most, 0) - max(MOST_AT_ONE_SITE_BP, sum(gained.values()) // 2)
        if over <= 0:
            return
        here = table.price(self.left, class_id, most)
        allowed = here + SPREAD_PRICE_PART * table.shed_price(class_id)
        site_id = table.all.groups[most].group.site_id
        shares = dict(self.shares[class_id])
        for group_id in table.all.options(self.left, class_id):
            if over <= 0 or table.all.groups[group_id].group.site_id == site_id:
                continue
            if table.price(self.left, class_id, group_id) <= allowed:
                uses = table.all.uses(self.left, class_id, group_id)
                part = min(over, max(0, self.tally.fits(uses) - 1))
                shares[group_id] = shares.get(group_id, 0) + part
                shares[most] -= part
                over -= part
        self.put(class_id, shares)


class _Repair:
    """A known detour, mended where fewer replicas run than it counts on."""

    def __init__(
        self,
        table: RerouteTable,
        detour: Detour,
        more: Mapping[RowKey, float],
        *,
        fewer: Mapping[str, int],
    ) -> None:
        self.table, self.fewer = table, fewer
        self.work = _Work(table, detour.lost_site_id)
        self.work.shares = {c: dict(shares) for c, shares in detour.shares.items()}
        self.work.tally.more.update(more)
        for group_id, replicas in fewer.items():
            key = ("throughput", group_id)
            whole = table.all.limits[key] / table.replicas[group_id]
            self.work.tally.limits[key] = whole * replicas

    def detour(self) -> Detour:
        """The detour with what no longer fits moved on, the least important first."""
        work, table = self.work, self.table
        moved: set[str] = set()
        for group_id in sorted(self.fewer):
            key = ("throughput", group_id)
            holders = {c for c, shares in work.shares.items() if group_id in shares}
            holders |= {c for c in table.holders.get(group_id, ()) if c not in work.shares}
            order = sorted(holders, key=lambda c: _rank(table, c), reverse=True)
            for class_id in order:
                over = -work.tally.left(key)
                if over <= 0:
                    break
                each = table.all.uses(work.left, class_id, group_id)[key]
                shares = dict(work.has(class_id))
                shares[group_id] -= min(shares[group_id], int(over / each) + 1)
                work.put(class_id, shares)
                moved.add(class_id)
        if moved:
            work.settle(moved)
        return Detour(lost_site_id=work.lost_site_id, shares=work.changed())


def _marginal_usd_per_w_h(problem: Problem, plan: Plan) -> dict[str, float]:
    """What one W more costs at each site of the plan (USD/h): its cheapest supply not used up."""
    used = {(u.site_id, u.supply_id): u.power_w for u in plan.supplies}
    prices: dict[str, float] = {}
    for site_id in sorted({g.group.site_id for g in plan.groups}):
        ranked = by_price(problem, problem.fleet.site(site_id))
        free = (
            k
            for k in ranked
            if used.get((site_id, k.supply_id), 0.0) < at_period(k.limit_w, problem.period)
        )
        prices[site_id] = sum(supply_price_usd_per_w_h(problem, next(free, ranked[-1])))
    return prices


def _rank(table: RerouteTable, class_id: str) -> tuple[bool, int, str]:
    """What is served first when room is short: protected classes, then low priority numbers."""
    one = table.all.classes[class_id]
    return (not one.protected, one.priority, class_id)
