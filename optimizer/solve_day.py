"""From a problem to a schedule of consecutive hours: all at once where that is small enough, else
hour by hour with a look ahead. Checked as a whole before it leaves.

Decides which of the two, what a window sees, and what the outcome is called. The formulation is
`milp/day`'s, the judgement `verify_day`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import fsum

from optimizer.arcs import Candidates, find_arcs
from optimizer.costs import relative_gap, trivial_bound_usd_per_h
from optimizer.milp.constraints_mix import G_PER_KG
from optimizer.milp.day import (
    DeferKey,
    Horizon,
    Hour,
    HoursAnswer,
    replicas_of,
    search_hours,
)
from optimizer.milp.elastic import mending_slack
from optimizer.milp.formulate import budget_of
from optimizer.milp.highs import Budget, PointStatus
from optimizer.outcome import Outcome, SolveStatus
from optimizer.problem import Problem, RunningGroup
from optimizer.schedule import (
    DayOutcome,
    DaySchedule,
    Deferral,
    PeriodPlan,
    born_rates,
    budget_of_tenant,
    hour_problem,
    left_running,
)
from optimizer.solve import solve
from optimizer.verify_day import check_day
from sites.clock import Clock
from sites.errors import InvalidFactError, Violation
from sites.units import MS_PER_S

WHOLE_ARCS_MOST = 8_000
"""Arcs times hours up to which a day is one search: beyond, hours together are searched in vain."""

SIGHT_ARCS_MOST = 30_000
"""Arcs times hours that a window looks at: only its first hour is whole, the rest is linear."""

PERIODS_MOST = 168
"""Hours of a schedule: a week."""

_START_GAP = 0.0025
_START_NODES = 100


def solve_day(
    problem: Problem,
    *,
    periods: int,
    rolling: bool | None = None,
    clock: Clock | None = None,
) -> DayOutcome:
    """The cheapest checked schedule of `periods` hours from the problem's period on.

    One hour is `solve`'s steady state. More are planned in one search where that is small enough
    (`rolling` False), else one after the other, each looking ahead as far as the longest deferral
    (`rolling` True); None: by size. Only the whole search bounds what any schedule costs; rolling
    says so in its method. Raises InvalidFactError unless 1 <= periods <= 168, FatalError if the
    solver errs.
    """
    if not 1 <= periods <= PERIODS_MOST:
        raise InvalidFactError(f"periods: {periods} hours; give 1 to {PERIODS_MOST}")
    if periods == 1:
        return _single(problem, solve(problem, clock=clock))
    began_ms = clock.monotonic_ms() if clock else 0
    candidates = find_arcs(problem)
    arcs = len(candidates.arcs)
    if rolling or (rolling is None and arcs * periods > WHOLE_ARCS_MOST):
        window = _window(problem, arcs=arcs, periods=periods)
        outcome = _rolling(problem, candidates, periods=periods, window=window)
    else:
        outcome = _whole(problem, candidates, periods=periods)
    spent_ms = clock.monotonic_ms() - began_ms if clock else 0
    return replace(outcome, solve_s=spent_ms / MS_PER_S)


def _single(problem: Problem, outcome: Outcome) -> DayOutcome:
    plan = outcome.plan
    schedule = None
    if plan is not None:
        schedule = replace(
            _schedule(
                [PeriodPlan(problem=problem, plan=plan)],
                {},
                method=plan.method,
                hit_limit=plan.hit_limit,
            ),
            bound_usd=plan.bound_usd_per_h,
            gap=plan.gap,
        )
    return DayOutcome(
        status=outcome.status,
        schedule=schedule,
        bound_usd=outcome.bound_usd_per_h,
        nodes=outcome.nodes,
        build_s=outcome.build_s,
        solve_s=outcome.solve_s,
        message=outcome.message,
        relaxations=outcome.relaxations,
    )


def _window(problem: Problem, *, arcs: int, periods: int) -> int:
    """Hours a rolling plan sees at once: to the longest deadline, as far as size allows."""
    longest = max((c.deferrable_h for c in problem.classes), default=0)
    fitting = SIGHT_ARCS_MOST // max(1, arcs)
    return max(1, min(periods, fitting, max(3, longest + 1)))


# -- all hours in one search


def _whole(problem: Problem, candidates: Candidates, *, periods: int) -> DayOutcome:
    guess = _guess(problem, candidates, periods=periods)
    start = [replicas_of(one) for one in guess.periods] if guess else None
    first = _hour(problem, 0, running=problem.running)
    slack = mending_slack(first, candidates.arcs)
    asked = Horizon(
        hours=tuple(
            Hour(problem=_hour(problem, at, running=problem.running), slack=slack)
            for at in range(periods)
        ),
        arcs=candidates.arcs,
        left=periods,
        planned=periods,
        method=f"milp over {periods} hours at once",
    )
    outcome = DayOutcome(status=SolveStatus.NO_PLAN, schedule=None)
    for presolve in (True, False):  # presolve has known faults; the plain search is slower
        found = search_hours(asked, replace(budget_of(problem), presolve=presolve), start=start)
        outcome = replace(outcome, nodes=outcome.nodes + found.nodes, bound_usd=found.bound_usd)
        if found.status is PointStatus.INFEASIBLE and guess is None:
            infeasible = replace(outcome, status=SolveStatus.INFEASIBLE, bound_usd=None)
            return _explained(problem, infeasible, periods=periods)
        schedule = _whole_schedule(found, guess, method=asked.method)
        if schedule is None:
            message = f"no plan found before {found.hit_limit} was spent; raise it"
            return replace(outcome, bound_usd=None, message=message)
        proven = found.proven and schedule.cost_usd <= found.cost_usd
        outcome = _judged(problem, schedule, outcome=outcome, proven=proven)
        if outcome.status is not SolveStatus.FAULT:
            return outcome
    return outcome


def _guess(problem: Problem, candidates: Candidates, *, periods: int) -> DaySchedule | None:
    """Hours planned one by one, each on a small budget: where the search starts, and the worst it
    may answer. None where an hour finds no plan that way, or the chain does not hold.
    """
    budget = budget_of(problem)
    quick = replace(
        budget,
        gap=max(budget.gap / 4, _START_GAP),
        nodes=min(budget.nodes, _START_NODES),
        time_s=budget.time_s / (4 * periods),
    )
    chain = _Chain(problem, candidates, periods=periods, window=1)
    schedule = chain.run(quick)
    return schedule if schedule is not None and not check_day(problem, schedule) else None


def _whole_schedule(
    found: HoursAnswer, guess: DaySchedule | None, *, method: str
) -> DaySchedule | None:
    """The better of what the search found and where it started, with the search's bound."""
    best = guess
    if found.periods and (guess is None or found.cost_usd <= guess.cost_usd):
        best = _schedule(found.periods, found.amounts, method=method, hit_limit=found.hit_limit)
    if best is None:
        return None
    cost = best.cost_usd
    floor = fsum(trivial_bound_usd_per_h(one.problem) for one in best.periods)
    bound = min(cost, max(found.bound_usd, floor))
    # a start cut short by the clock may make another plan of the same problem
    cut = guess.hit_limit if guess is not None and guess.hit_limit == "time_limit_s" else ""
    return replace(
        best,
        bound_usd=bound,
        gap=relative_gap(cost, bound),
        method=method,
        hit_limit=found.hit_limit or cut,
    )


# -- one hour after the other


def _rolling(problem: Problem, candidates: Candidates, *, periods: int, window: int) -> DayOutcome:
    budget = budget_of(problem)
    outcome = DayOutcome(status=SolveStatus.NO_PLAN, schedule=None)
    for presolve in (True, False):
        chain = _Chain(problem, candidates, periods=periods, window=window)
        limits = replace(budget, presolve=presolve, time_s=budget.time_s / periods)
        schedule = chain.run(limits)
        outcome = replace(outcome, nodes=outcome.nodes + chain.nodes)
        if schedule is None:
            return _stuck(problem, chain, outcome=outcome, periods=periods)
        outcome = _judged(problem, schedule, outcome=outcome, proven=False)
        if outcome.status is not SolveStatus.FAULT:
            return outcome
    return outcome


def _stuck(problem: Problem, chain: _Chain, *, outcome: DayOutcome, periods: int) -> DayOutcome:
    """A chain that ended early. That proves nothing about the hours together, unless one of them
    has no plan by itself and nothing may leave it.
    """
    if chain.hit_limit:
        message = (
            f"hour {chain.failed_period}: no plan before {chain.hit_limit} was spent; raise it"
        )
        return replace(outcome, failed_period=chain.failed_period, message=message)
    explained = _explained(problem, outcome, periods=periods)
    if explained.relaxations and not any(c.deferrable_h for c in problem.classes):
        return replace(explained, status=SolveStatus.INFEASIBLE)
    message = f"hour {chain.failed_period} has no plan after the hours before it; plan all at once"
    return replace(explained, failed_period=chain.failed_period, message=message)


class _Chain:
    """Plans hour after hour, each in a window of it and the hours behind; keeps the first.

    What it has fixed so far is its state; after `run`, `nodes`, `hit_limit` and, without a
    schedule, `failed_period` say what happened.
    """

    def __init__(
        self, problem: Problem, candidates: Candidates, *, periods: int, window: int
    ) -> None:
        self._problem = problem
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

    def run(self, budget: Budget) -> DaySchedule | None:
        """The whole chain, or None where an hour has no plan after those before it."""
        method = f"milp hour by hour, {self._window} h in sight; no bound over all hours"
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
            found = search_hours(asked, budget)
            self.nodes += found.nodes
            self.hit_limit = self.hit_limit or found.hit_limit
            if not found.periods:
                self.failed_period = at
                return None
            self._planned.append(found.periods[0])
            self._running = left_running(found.periods[0].plan)
            self._take(found, at=at)
        return _schedule(self._planned, self._amounts, method=method, hit_limit=self.hit_limit)

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
        problem = _hour(self._problem, at, running=self._running)
        slack: dict[tuple[str, str], float] = {}
        if at == first:
            slack = mending_slack(problem, self._arcs) | self._unspent()
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


# -- what both share


def _hour(problem: Problem, at: int, *, running: tuple[RunningGroup, ...]) -> Problem:
    return hour_problem(problem, at, rates=born_rates(problem, at), running=running)


def _schedule(
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


def _judged(
    problem: Problem, schedule: DaySchedule, *, outcome: DayOutcome, proven: bool
) -> DayOutcome:
    violations = check_day(problem, schedule)
    if violations:
        message = _fault_message(violations)
        return replace(outcome, status=SolveStatus.FAULT, schedule=None, message=message)
    message = ""
    if schedule.bound_usd is None:
        message = schedule.method
    elif not proven:
        message = f"stopped by {schedule.hit_limit}; gap {schedule.gap:.2%}"
    return replace(
        outcome,
        status=SolveStatus.OPTIMAL if proven else SolveStatus.LIMIT,
        schedule=schedule,
        bound_usd=schedule.bound_usd,
        message=message,
    )


def _fault_message(violations: tuple[Violation, ...]) -> str:
    head = f"the checker refused the solver's schedule ({len(violations)} violations): "
    return head + "; ".join(v.message() for v in violations[:5])


def _explained(problem: Problem, outcome: DayOutcome, *, periods: int) -> DayOutcome:
    """Which hour has no plan even by itself and what to relax there, else that the hours clash."""
    free = replace(problem.plan_policy, move_limit_replicas=None)
    for at in range(periods):
        alone = _hour(problem, at, running=problem.running)
        one = solve(alone if at == 0 else replace(alone, running=(), plan_policy=free))
        if one.status is SolveStatus.INFEASIBLE:
            return replace(
                outcome,
                failed_period=at,
                message=f"hour {at}: {one.message}",
                relaxations=one.relaxations,
            )
    message = (
        "every hour has a plan by itself, the hours together have none: raise move_limit_replicas, "
        "the carbon cap or the tenants' budgets, or allow shedding"
    )
    return replace(outcome, message=message)
