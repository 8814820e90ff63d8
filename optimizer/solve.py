"""From a problem to an outcome: arcs, formulation, point, plan, and the checker's word on it.

Decides which solves to make and what the outcome is called. A plan the independent checker refuses
never leaves here as a plan. Time is measured only where a clock is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from optimizer.arcs import Candidates, find_arcs
from optimizer.milp.elastic import mending_slack, relaxations
from optimizer.milp.extract import extract_plan
from optimizer.milp.formulate import Attempt, attempt, formulate
from optimizer.milp.highs import PointStatus
from optimizer.outcome import Outcome, Relaxation, SolveStatus
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.verify import check_plan
from sites.clock import Clock
from sites.errors import Violation
from sites.units import MS_PER_S

METHOD = "milp"


def solve(problem: Problem, *, clock: Clock | None = None, start: Plan | None = None) -> Outcome:
    """The cheapest checked plan of a problem within its policy's gap and node budget.

    `start` (a greedy or earlier plan) is a first guess. `clock` fills `build_s` and `solve_s`.
    Infeasible problems come back with what to relax. Raises FatalError if the solver errs.
    """
    watch = _Watch(clock)
    candidates = find_arcs(problem)
    slack = mending_slack(problem, candidates.arcs)
    formulation = formulate(problem, candidates.arcs, slack=slack)
    build_s = watch.lap_s()
    guess = _replicas(start)
    made = attempt(formulation, start=guess)
    outcome = _judge(problem, candidates, made)
    if outcome.status is SolveStatus.FAULT:  # presolve has known faults; the plain search is slower
        outcome = _judge(problem, candidates, attempt(formulation, presolve=False, start=guess))
    return replace(outcome, build_s=build_s, solve_s=watch.lap_s())


def _judge(problem: Problem, candidates: Candidates, made: Attempt) -> Outcome:
    point = made.point
    outcome = Outcome(
        status=SolveStatus.NO_PLAN,
        plan=None,
        arcs=candidates.arcs,
        pruned=candidates.pruned,
        bound_usd_per_h=point.bound,
        nodes=point.nodes,
    )
    if point.status is PointStatus.INFEASIBLE:
        ways = relaxations(problem, candidates.arcs)
        return replace(
            outcome,
            status=SolveStatus.INFEASIBLE,
            message=_infeasible_message(ways),
            relaxations=tuple(relaxation for way in ways for relaxation in way),
        )
    if point.status is PointStatus.NONE:
        message = f"no plan found before {point.hit_limit} was spent; raise it or start from a plan"
        return replace(outcome, message=message)
    plan = extract_plan(made.inputs, point, method=METHOD)
    violations = check_plan(problem, plan)
    if violations:
        return replace(outcome, status=SolveStatus.FAULT, message=_fault_message(violations))
    proven = point.status is PointStatus.PROVEN
    return replace(
        outcome,
        status=SolveStatus.OPTIMAL if proven else SolveStatus.LIMIT,
        plan=plan,
        bound_usd_per_h=plan.bound_usd_per_h,
        message="" if proven else f"stopped by {point.hit_limit}; gap {plan.gap:.2%}",
    )


def _replicas(plan: Plan | None) -> Mapping[str, int] | None:
    if plan is None:
        return None
    return {one.group.group_id: one.replicas for one in plan.groups}


def _infeasible_message(ways: tuple[tuple[Relaxation, ...], ...]) -> str:
    if not ways:
        return "infeasible, whatever limit of the plan policy or the sites gives way"
    told = [" and ".join(_relaxation_text(r) for r in way) for way in ways]
    return "infeasible; any one of these is enough: " + "; or ".join(told)


def _relaxation_text(one: Relaxation) -> str:
    price = f" (${one.price_usd_per_h:.2f}/h)" if one.price_usd_per_h else ""
    figures = f"from {one.limit:g} to {one.needed:g} {one.unit}"
    return f'{one.code} of "{one.subject}" {figures}{price}: {one.remedy}'


def _fault_message(violations: tuple[Violation, ...]) -> str:
    head = f"the checker refused the solver's plan ({len(violations)} violations): "
    return head + "; ".join(v.message() for v in violations[:5])


class _Watch:
    """Seconds between laps; always 0 without a clock."""

    def __init__(self, clock: Clock | None) -> None:
        self._clock = clock
        self._last_ms = clock.monotonic_ms() if clock else 0

    def lap_s(self) -> float:
        if self._clock is None:
            return 0.0
        now_ms = self._clock.monotonic_ms()
        lap_ms, self._last_ms = now_ms - self._last_ms, now_ms
        return lap_ms / MS_PER_S
