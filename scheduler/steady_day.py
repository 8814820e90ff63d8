"""A schedule found for one set of hours, taken over for another where it holds and costs no more.

Of two days that differ in a price or a limit the search may miss on one side what it finds on the
other: without this the change would look cheap, or dear, for what the search did.
"""

from __future__ import annotations

import dataclasses
from math import fsum

from optimizer.costs import priced_plan, relative_gap, trivial_bound_usd_per_h
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.schedule import (
    DayOutcome,
    DaySchedule,
    PeriodPlan,
    born_rates,
    hour_problem,
    left_running,
    with_hour_limits,
)
from optimizer.verify_day import check_day
from scheduler.steady import TIE, is_known

_NOISE = 1e-12


def steadied_day(
    problem: Problem, outcome: DayOutcome, *, before: DaySchedule | None
) -> DayOutcome:
    """The outcome with `before` in place of its schedule, if that holds and costs no more.

    `before`, of as many hours, is priced and judged again under `problem`; the bound stays the
    outcome's.
    """
    found = outcome.schedule
    if before is None or found is None:
        return outcome
    classes = {c.class_id for c in problem.classes}
    known = all(is_known(problem, one.plan) for one in before.periods)
    if not known or not {d.class_id for d in before.deferrals} <= classes:
        return outcome
    kept = _carried(problem, before, found=found)
    if kept is None:
        return outcome
    cost, asked = kept.cost_usd, found.cost_usd
    if cost > asked + TIE * abs(asked) or check_day(problem, kept):
        return outcome
    if cost >= asked - TIE * abs(asked):  # equally good: what the search says of its own stands
        return dataclasses.replace(outcome, schedule=kept, bound_usd=kept.bound_usd)
    close = kept.gap is not None and kept.gap <= problem.plan_policy.gap_limit
    proven = close or outcome.status is SolveStatus.OPTIMAL
    told = "no bound" if kept.gap is None else f"gap {kept.gap:.2%}"
    return dataclasses.replace(
        outcome,
        status=SolveStatus.OPTIMAL if proven else SolveStatus.LIMIT,
        schedule=kept,
        bound_usd=kept.bound_usd,
        message=f"found for the hours it is compared with, and better here too; {told}",
    )


def _carried(problem: Problem, before: DaySchedule, *, found: DaySchedule) -> DaySchedule | None:
    """The same replicas, shares and deferrals under another problem; None where more is deferred
    than that asks for.
    """
    running, periods = problem.running, []
    for at, one in enumerate(before.periods):
        rates = _rates(problem, before, at=at)
        if any(rate < 0 for rate in rates.values()):
            return None
        stated = problem
        if len(before.periods) > 1:
            stated = hour_problem(problem, at, rates=rates, running=running)
            stated = with_hour_limits(stated, _parts(problem, one.problem))
        plan = priced_plan(
            Reach(stated),
            groups=one.plan.groups,
            shares=one.plan.shares,
            shed=one.plan.shed,
            bound_usd_per_h=trivial_bound_usd_per_h(stated),
            method=found.method,
            hit_limit=one.plan.hit_limit,
            survival=one.plan.survival,
            exposed=one.plan.exposed,
        )
        periods.append(PeriodPlan(problem=stated, plan=plan))
        running = left_running(plan)
    kept = dataclasses.replace(found, periods=tuple(periods), deferrals=before.deferrals)
    if found.bound_usd is None:
        return kept
    bound = min(found.bound_usd, kept.cost_usd)
    return dataclasses.replace(kept, bound_usd=bound, gap=relative_gap(kept.cost_usd, bound))


def _rates(problem: Problem, before: DaySchedule, *, at: int) -> dict[str, float]:
    """What each class asks of an hour once what is deferred has moved (requests/s); the last digits
    that a class leaves behind which moved whole are no demand.
    """
    parts = {class_id: [rate] for class_id, rate in born_rates(problem, at).items()}
    for one in before.deferrals:
        sign = (one.to_period == at) - (one.from_period == at)
        parts[one.class_id].append(sign * one.rate_rps)
    rests = {class_id: fsum(some) for class_id, some in parts.items()}
    return {
        class_id: 0.0 if abs(rest) <= _NOISE * max(parts[class_id]) else rest
        for class_id, rest in rests.items()
    }


def _parts(problem: Problem, hour: Problem) -> dict[tuple[str, str], float]:
    """An hour's part of every limit over the day: as it stood, or as much as every other hour where
    there was no such limit. Whether the parts add up is the checker's to say.
    """
    own = {t.tenant_id: t.budget_usd_per_h for t in hour.tenants}
    parts = {}
    for tenant in problem.tenants:
        if tenant.budget_usd_per_h is not None:
            part = own.get(tenant.tenant_id)
            parts["tenant_budget", tenant.tenant_id] = (
                tenant.budget_usd_per_h if part is None else part
            )
    cap_g = problem.plan_policy.carbon_cap_g_per_h
    if cap_g is not None:
        part = hour.plan_policy.carbon_cap_g_per_h
        parts["carbon_cap", "fleet"] = cap_g if part is None else part
    return parts
