"""From a problem to a schedule of consecutive hours: all at once where that is small enough, else
hour by hour with a look ahead. Checked as a whole before it leaves.

Decides which of the two, what a window sees, and what the outcome is called. The formulation is
`milp/day`'s, the judgement `verify_day`'s.
"""

from __future__ import annotations

from dataclasses import replace
from math import fsum

from optimizer.arcs import Candidates, find_arcs
from optimizer.costs import relative_gap, trivial_bound_usd_per_h
from optimizer.day_chain import Chain, hour_of, schedule_of
from optimizer.milp.day import (
    Horizon,
    Hour,
    HoursAnswer,
    replicas_of,
    search_hours,
)
from optimizer.milp.day_bound import hours_bound_usd
from optimizer.milp.elastic import mending_slack
from optimizer.milp.formulate import budget_of
from optimizer.milp.highs import PointStatus
from optimizer.outcome import Outcome, SolveStatus
from optimizer.problem import Problem
from optimizer.schedule import (
    DayOutcome,
    DaySchedule,
    PeriodPlan,
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

ALONE_ARCS = 1_000
"""From so many arcs each hour of a rolling plan starts from what it would be alone: a search of two
hours that knows little of what losses cost comes to no good plan in its time.
"""

PERIODS_MOST = 168
"""Hours of a schedule: a week."""

BOUND_PART = 0.15
"""Part of the time limit that the bound of a rolling plan may take; the hours share the rest."""

_SIGHT_H = 2
"""Hours a window sees where nothing waits: what loads ahead of the next is started in time."""

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
    (`rolling` True); None: by size. Either way the schedule has a bound, which its method names; a
    rolling one may lack it, and says why. With a clock the time an hour leaves is that of the hours
    after it. Raises InvalidFactError unless 1 <= periods <= 168, FatalError if the solver errs.
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
        outcome = _rolling(problem, candidates, periods=periods, window=window, clock=clock)
    else:
        outcome = _whole(problem, candidates, periods=periods)
    spent_ms = clock.monotonic_ms() - began_ms if clock else 0
    return replace(outcome, solve_s=spent_ms / MS_PER_S)


def _single(problem: Problem, outcome: Outcome) -> DayOutcome:
    plan = outcome.plan
    schedule = None
    if plan is not None:
        schedule = replace(
            schedule_of(
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
    return max(1, min(periods, fitting, max(_SIGHT_H, longest + 1)))


# -- all hours in one search


def _whole(problem: Problem, candidates: Candidates, *, periods: int) -> DayOutcome:
    guess = _guess(problem, candidates, periods=periods)
    start = [replicas_of(one) for one in guess.periods] if guess else None
    first = hour_of(problem, 0, running=problem.running)
    slack = mending_slack(first, candidates.arcs)
    asked = Horizon(
        hours=tuple(
            Hour(problem=hour_of(problem, at, running=problem.running), slack=slack)
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
        time_s=budget.time_s / 4,
    )
    chain = Chain(problem, candidates, periods=periods, window=1)
    schedule = chain.run(quick)
    return schedule if schedule is not None and not check_day(problem, schedule) else None


def _whole_schedule(
    found: HoursAnswer, guess: DaySchedule | None, *, method: str
) -> DaySchedule | None:
    """The better of what the search found and where it started, with the search's bound."""
    best = guess
    if found.periods and (guess is None or found.cost_usd <= guess.cost_usd):
        best = schedule_of(found.periods, found.amounts, method=method, hit_limit=found.hit_limit)
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


def _rolling(
    problem: Problem,
    candidates: Candidates,
    *,
    periods: int,
    window: int,
    clock: Clock | None,
) -> DayOutcome:
    budget = budget_of(problem)
    bound_s = budget.time_s * BOUND_PART
    outcome = DayOutcome(status=SolveStatus.NO_PLAN, schedule=None)
    for presolve in (True, False):
        chain = Chain(
            problem,
            candidates,
            periods=periods,
            window=window,
            clock=clock,
            begins_alone=len(candidates.arcs) >= ALONE_ARCS,
        )
        limits = replace(budget, presolve=presolve, time_s=budget.time_s - bound_s)
        schedule = chain.run(limits)
        outcome = replace(outcome, nodes=outcome.nodes + chain.nodes)
        if schedule is None:
            return _stuck(problem, chain, outcome=outcome, periods=periods)
        schedule = _bounded(problem, schedule, chain, time_s=bound_s)
        proven = schedule.gap is not None and schedule.gap <= budget.gap
        outcome = _judged(problem, schedule, outcome=outcome, proven=proven)
        if outcome.status is not SolveStatus.FAULT:
            return outcome
    return outcome


def _bounded(
    problem: Problem, schedule: DaySchedule, chain: Chain, *, time_s: float
) -> DaySchedule:
    """A rolled schedule with a bound on any schedule that keeps every limit, or with the reason why
    it has none. What rounding to basis points saved is no bound's fault.
    """
    if chain.mends:
        why = "a move limit lets what runs stand above other limits"
        return replace(schedule, method=f"{schedule.method}; no bound: {why}")
    hours = [hour_of(problem, at, running=problem.running) for at in range(len(schedule.periods))]
    found = hours_bound_usd(hours, cuts=chain.cuts, time_s=time_s)
    if found is None:
        why = "the relaxation of no hour was solved in its time; raise time_limit_s"
        return replace(schedule, method=f"{schedule.method}; no bound: {why}")
    cost, floor = schedule.cost_usd, fsum(trivial_bound_usd_per_h(one) for one in hours)
    bound = min(cost, max(found, floor))
    return replace(
        schedule,
        bound_usd=bound,
        gap=relative_gap(cost, bound),
        method=f"{schedule.method}; bound by its hours in whole replicas at prices of all relaxed",
    )


def _stuck(problem: Problem, chain: Chain, *, outcome: DayOutcome, periods: int) -> DayOutcome:
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


# -- what both share


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
        how = f"stopped by {schedule.hit_limit}" if schedule.hit_limit else schedule.method
        message = f"{how}; gap {schedule.gap:.2%}"
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
        alone = hour_of(problem, at, running=problem.running)
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
