"""Hours planned one after the other, each in a window of itself and the hours behind it.

Decides what an hour's search sees, what time it has and what is kept of its answer. Whether a day
is planned that way, and how it is judged and bounded, is `solve_day`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from optimizer.arcs import Candidates
from optimizer.milp.constraints_mix import G_PER_KG
from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.milp.day import DeferKey, Horizon, Hour, HoursAnswer, search_hours
from optimizer.milp.elastic import mending_slack
from optimizer.milp.formulate import formulate
from optimizer.milp.highs import Budget, PointStatus
from optimizer.milp.rounds import Found, Rounds
from optimizer.milp.stopping import INTERRUPT, TIME_LIMIT
from optimizer.milp.survive import Losses
from optimizer.outcome import Untold
from optimizer.plan import Plan
from optimizer.problem import Problem, RunningGroup
from optimizer.reach import Reach
from optimizer.schedule import (
    DaySchedule,
    Deferral,
    PeriodPlan,
    born_rates,
    budget_of_tenant,
    hour_problem,
    left_running,
    with_hour_limits,
)
from optimizer.solve import solve
from sites.clock import Clock
from sites.units import MS_PER_S

FIRST_PART = 0.2
"""Part of the hours' time that the first may take: it alone starts from nothing planned."""

ALONE_PART = 0.5
"""Part of an hour's time that the search of it alone may take, where a window starts from that; as
much again where it comes to no good plan. The window has the rest, at least what this leaves.
"""

OVERRUN = 1.5
"""What an hour that begins alone takes, in parts of its time, where its search alone is repeated
and its window is set up anew: so that hours before leave the last ones theirs.
"""

POOR_GAP = 0.15
"""Beyond this gap an hour alone is looked at once more, with another search."""


class Chain:
    """Plans hour after hour, each in a window of it and the hours behind; keeps the first.

    With `begins_alone` each window starts from the plan of its hour alone, and ends with no worse.

    What it has fixed so far is its state; after `run`, `nodes`, `hit_limit` and, without a
    schedule, `failed_period` say what happened; `cuts` of lost sites hold for every plan of each
    hour; `mends`: what ran was above some limit and a move limit kept it there.
    """

    def __init__(
        self,
        problem: Problem,
        candidates: Candidates,
        *,
        periods: int,
        window: int,
        clock: Clock | None = None,
        begins_alone: bool = False,
    ) -> None:
        self._problem = problem
        self._begins_alone = begins_alone
        self._clock = clock
        self._arcs = candidates.arcs
        self._count = periods
        self._window = window
        self._planned: list[PeriodPlan] = []
        self._amounts: dict[DeferKey, float] = {}
        self._pending: dict[str, dict[int, float]] = {}
        self._running = problem.running
        self.nodes = 0
        self.hit_limit = ""
        self.failed_period: int | None = None
        self.cuts: list[tuple[SurvivalCut, ...]] = []
        self.mends = False

    def run(self, budget: Budget) -> DaySchedule | None:
        """The whole chain within a budget of all its hours, or None where an hour has no plan after
        those before it. Raises KeyboardInterrupt where one came before the last hour.
        """
        method = f"milp hour by hour, {self._window} h in sight"
        since_s = since(self._clock)
        for at in range(self._count):
            ahead = range(at, min(at + self._window, self._count))
            asked = Horizon(
                hours=tuple(self._hour(u, first=at) for u in ahead),
                arcs=self._arcs,
                left=self._count - at,
                planned=1,
                method=method,
                pending={
                    class_id: {at - since: rate for since, rate in sorted(rates.items())}
                    for class_id, rates in sorted(self._pending.items())
                },
            )
            found = self._search(asked, self._share(budget, at=at, spent_s=since_s()))
            self.nodes += found.nodes
            if found.hit_limit == INTERRUPT and at + 1 < self._count:
                raise KeyboardInterrupt  # hours without the rest are no schedule
            self.hit_limit = self.hit_limit or found.hit_limit
            if not found.periods:
                self.failed_period = at
                return None
            self.cuts += found.cuts
            self._planned.append(found.periods[0])
            self._running = left_running(found.periods[0].plan)
            self._take(found, at=at)
        return schedule_of(self._planned, self._amounts, method=method, hit_limit=self.hit_limit)

    def _share(self, budget: Budget, *, at: int, spent_s: float) -> Budget:
        """An hour's part of the time; with a clock, of what those before it left."""
        others = self._count - 1
        first_s = budget.time_s * FIRST_PART if others else budget.time_s
        if at == 0:
            return replace(budget, time_s=first_s)
        if self._clock is None:
            return replace(budget, time_s=(budget.time_s - first_s) / others)
        left_s = max(0.0, budget.time_s - spent_s) / (self._count - at)
        return replace(budget, time_s=left_s / OVERRUN if self._begins_alone else left_s)

    def _search(self, asked: Horizon, budget: Budget) -> HoursAnswer:
        """An hour's plan among what the hour before runs and the relaxation uses, starting from
        the former, or from the hour's own plan; where that finds none, among all groups. An hour
        that begins alone and comes to no plan that way may keep what the hour before runs.
        """
        runs = {r.group.group_id: r.replicas for r in self._running} if self._planned else {}
        since_s = since(self._clock)
        alone = self._alone(asked, budget, since_s) if self._begins_alone else None
        least_s = budget.time_s * (1 - ALONE_PART)
        left = replace(budget, time_s=max(least_s, budget.time_s - since_s()))
        start = runs if alone is None else alone.replicas
        known = alone.cuts if alone else None
        if start:
            found = search_hours(
                asked,
                left,
                start=[start],
                near={*runs, *start},
                keeps_start=self._begins_alone,
                known=known,
                clock=self._clock,
            )
            if found.periods or found.hit_limit:
                return found
        return search_hours(asked, left, known=known, clock=self._clock)

    def _alone(self, asked: Horizon, budget: Budget, since_s: Callable[[], float]) -> _Alone | None:
        """The hour at hand as a steady state by itself, starting from the hour before; None where
        it has no such plan. It answers what must be answered now and defers nothing.
        """
        time_s = budget.time_s * ALONE_PART
        if time_s <= 0:
            return None
        at, hour = len(self._planned), asked.hours[0].problem
        born, rates = born_rates(self._problem, at), born_rates(self._problem, at)
        deadlines = {c.class_id: c.deferrable_h for c in hour.classes}
        for class_id, waiting in sorted(asked.pending.items()):
            due = [r for ago, r in waiting.items() if ago >= deadlines[class_id] or asked.left == 1]
            rates[class_id] = fsum([rates[class_id], *due])
        problem = hour_problem(self._problem, at, rates=rates, running=self._running)
        problem = with_hour_limits(problem, self._limits_left())
        problem = replace(problem, plan_policy=replace(problem.plan_policy, time_limit_s=time_s))
        plan, cuts = self._steady(problem, since_s, presolve=budget.presolve)
        if plan is None:
            return None
        self._note(plan.hit_limit)
        replicas = {g.group.group_id: g.replicas for g in plan.groups}
        before = None if cuts is None else (tuple(_before(cut, rates, born) for cut in cuts),)
        return _Alone(replicas=replicas, cuts=before)

    def _steady(
        self, problem: Problem, since_s: Callable[[], float], *, presolve: bool
    ) -> tuple[Plan | None, tuple[SurvivalCut, ...] | None]:
        """An hour's plan as a steady state, if any, and the cuts it knows of. `solve`'s ordinary
        search does best from the hour before's plan, whatever the size and the time, unless demand
        has changed much; where it comes to no good plan, and in the first hour, `solve` says.
        """
        if not self._planned:
            return self._solved(problem, start=None), None
        before = self._planned[-1].plan
        found = self._searched(problem, since_s, start=before, presolve=presolve)
        self.nodes += found.nodes
        if found.point.status is PointStatus.INFEASIBLE:
            return None, None
        plan = found.plan
        self._note(found.hit_limit)
        if plan is None or plan.gap > POOR_GAP:
            other = self._solved(problem, start=before)
            if plan is None or (other is not None and _cost(other) < _cost(plan)):
                plan = other
        return plan, found.cuts

    def _note(self, hit_limit: str) -> None:
        """What cut an hour alone short; an interrupt is for the whole day, not for its hour."""
        if hit_limit == INTERRUPT:
            raise KeyboardInterrupt
        if hit_limit == TIME_LIMIT:
            self.hit_limit = self.hit_limit or hit_limit

    def _solved(self, problem: Problem, *, start: Plan | None) -> Plan | None:
        outcome = solve(problem, clock=self._clock, start=start)
        self.nodes += outcome.nodes
        return outcome.plan

    def _searched(
        self, problem: Problem, since_s: Callable[[], float], *, start: Plan, presolve: bool
    ) -> Found:
        slack = mending_slack(problem, self._arcs)
        first = formulate(problem, self._arcs, slack=slack)
        groups = [facts.option.group for facts in first.inputs.groups.values()]
        search = Rounds(
            problem=problem,
            arcs=self._arcs,
            slack=slack,
            first=first,
            losses=Losses(Reach(problem), groups),
            start=start,
            held=None,
            since_s=since_s,
            progress=Untold(),
        )
        return search.run(presolve=presolve)

    def _limits_left(self) -> dict[tuple[str, str], float]:
        """The most that the hour at hand may take of limits over the day: its own part and what
        those before it left (tenants: USD/h, carbon: g/h).
        """
        unspent = self._unspent()
        limits = {
            ("tenant_budget", t.tenant_id): max(
                0.0, t.budget_usd_per_h + unspent["tenant_budget", t.tenant_id]
            )
            for t in self._problem.tenants
            if t.budget_usd_per_h is not None
        }
        cap_g = self._problem.plan_policy.carbon_cap_g_per_h
        if cap_g is not None:
            left_g = cap_g + unspent["carbon_cap", "fleet"] * G_PER_KG
            limits["carbon_cap", "fleet"] = max(0.0, left_g)
        return limits

    def _take(self, found: HoursAnswer, *, at: int) -> None:
        """Keep what is answered in hour `at` of earlier demand; what else it defers stays open."""
        self._pending = {}
        for (class_id, start, to), rate in found.amounts.items():
            if to == 0:
                self._amounts[class_id, at + start, at] = rate
            elif start <= 0:
                waiting = self._pending.setdefault(class_id, {})
                waiting[at + start] = waiting.get(at + start, 0.0) + rate

    def _hour(self, at: int, *, first: int) -> Hour:
        problem = hour_of(self._problem, at, running=self._running)
        slack: dict[tuple[str, str], float] = {}
        if at == first:
            mending = mending_slack(problem, self._arcs)
            self.mends |= any(excess > 0 for excess in mending.values())
            slack = mending | self._unspent()
        return Hour(problem=problem, slack=slack)

    def _unspent(self) -> dict[tuple[str, str], float]:
        """What the hours so far left of limits over the day (tenants: USD/h, carbon: kg/h)."""
        given = [one.problem for one in self._planned]
        unspent: dict[tuple[str, str], float] = {}
        for tenant in self._problem.tenants:
            if tenant.budget_usd_per_h is not None:
                taken = fsum(budget_of_tenant(p, tenant.tenant_id) for p in given)
                unspent["tenant_budget", tenant.tenant_id] = (
                    tenant.budget_usd_per_h * len(given) - taken
                )
        cap_g = self._problem.plan_policy.carbon_cap_g_per_h
        if cap_g is not None:
            taken = fsum(p.plan_policy.carbon_cap_g_per_h or 0.0 for p in given)
            unspent["carbon_cap", "fleet"] = (cap_g * len(given) - taken) / G_PER_KG
        return unspent


@dataclass(frozen=True, kw_only=True, slots=True)
class _Alone:
    """An hour by itself: replicas by group id, and cuts for lost sites where its search told any,
    as windows take them.
    """

    replicas: Mapping[str, int]
    cuts: tuple[tuple[SurvivalCut, ...]] | None


def _cost(plan: Plan) -> float:
    return plan.cost.total_usd_per_h


def _before(cut: SurvivalCut, rates: Mapping[str, float], born: Mapping[str, float]) -> SurvivalCut:
    """A cut made for rates after deferral, given for those before it."""
    moved = [price * (born[c] - rates[c]) for c, price in sorted(cut.per_rps.items())]
    return replace(cut, least=fsum([cut.least, *moved]))


def hour_of(problem: Problem, at: int, *, running: tuple[RunningGroup, ...]) -> Problem:
    return hour_problem(problem, at, rates=born_rates(problem, at), running=running)


def schedule_of(
    planned: Sequence[PeriodPlan],
    amounts: Mapping[DeferKey, float],
    *,
    method: str,
    hit_limit: str,
) -> DaySchedule:
    """A schedule without a bound."""
    return DaySchedule(
        periods=tuple(planned),
        deferrals=tuple(
            Deferral(class_id=class_id, from_period=start, to_period=to, rate_rps=rate)
            for (class_id, start, to), rate in sorted(amounts.items())
        ),
        bound_usd=None,
        gap=None,
        method=method,
        hit_limit=hit_limit,
    )


def since(clock: Clock | None) -> Callable[[], float]:
    """Seconds from now on, always 0 without a clock."""
    if clock is None:
        return float
    began_ms = clock.monotonic_ms()
    return lambda: (clock.monotonic_ms() - began_ms) / MS_PER_S
