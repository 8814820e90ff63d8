"""Judges a schedule from raw facts: every hour an ordinary checked plan, and what joins the hours.

Decides whether the hours are those of the problem, whether deferrals add up and keep their
deadlines, whether what starts has time to load, and whether what holds over the day holds. Knows
nothing of the formulation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from math import fsum

from optimizer.costs import busy_replicas, relative_gap, usable_part
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.schedule import (
    HOURS_PER_DAY,
    PERIOD_H,
    DaySchedule,
    PeriodPlan,
    budget_of_tenant,
    left_running,
)
from optimizer.verify import check_plan
from optimizer.verify_limits import differs, is_above
from sites.errors import Violation
from sites.units import WHOLE_BP


def check_day(problem: Problem, schedule: DaySchedule) -> tuple[Violation, ...]:
    """Every limit a schedule of consecutive hours breaks, in a fixed order; empty means it holds.

    One hour alone is the problem itself, a steady state; more are judged as hours.
    """
    if len(schedule.periods) == 1:
        only = schedule.periods[0]
        return check_plan(problem, only.plan)
    strangers = tuple(_deferrals(problem, schedule))
    if strangers:
        return strangers
    found = list(_hours(problem, schedule))
    for at, one in enumerate(schedule.periods):
        found += [_in_hour(at, v) for v in check_plan(one.problem, one.plan)]
    if not found:  # further questions take every hour to be sound in itself
        found += _loading(schedule)
        found += _day_limits(problem, schedule)
        found += _bound(schedule)
    return tuple(found)


def _in_hour(at: int, violation: Violation) -> Violation:
    return replace(violation, subject=f"hour {at}: {violation.subject}")


def _deferrals(problem: Problem, schedule: DaySchedule) -> Iterator[Violation]:
    """Deferred by classes that may, within their deadline and the schedule, and at most what is
    asked for.
    """
    classes = {c.class_id: c for c in problem.classes}
    leaving: dict[tuple[str, int], float] = defaultdict(float)
    for one in schedule.deferrals:
        subject = f'deferral of "{one.class_id}" from hour {one.from_period}'
        known = classes.get(one.class_id)
        if known is None:
            yield Violation(
                code="reference", subject=subject, limit="a traffic class", actual="none"
            )
            continue
        leaving[one.class_id, one.from_period] += one.rate_rps
        last = min(one.from_period + known.deferrable_h, len(schedule.periods) - 1)
        if one.to_period > last:
            yield Violation(
                code="deferral_window",
                subject=subject,
                limit=last,
                actual=one.to_period,
                unit="hour",
                remedy="answer it by its deadline and within the schedule",
            )
    for (class_id, at), rate in sorted(leaving.items()):
        born = _born(problem, at).get(class_id, 0.0)
        if is_above(rate, born):
            yield Violation(
                code="deferral_window",
                subject=f'deferrals of "{class_id}" from hour {at}',
                limit=born,
                actual=rate,
                unit="requests/s",
                remedy="defer no more than is asked for in the hour",
            )


def _born(problem: Problem, at: int) -> dict[str, float]:
    period = (problem.period + at) % HOURS_PER_DAY
    hour = replace(problem, period=period)
    return {c.class_id: hour.rate_rps(c) for c in problem.classes}


def _hours(problem: Problem, schedule: DaySchedule) -> Iterator[Violation]:
    """Each hour's problem is the given one in that hour, from what ran before it.

    Demand is judged apart; an hour has its own part of what is limited over the day.
    """
    running = problem.running
    for at, one in enumerate(schedule.periods):
        stated = one.problem
        due = replace(
            problem,
            period=(problem.period + at) % HOURS_PER_DAY,
            plan_policy=replace(
                problem.plan_policy,
                migration_horizon_h=PERIOD_H,
                carbon_cap_g_per_h=_kept(
                    problem.plan_policy.carbon_cap_g_per_h, stated.plan_policy.carbon_cap_g_per_h
                ),
            ),
            tenants=tuple(
                replace(t, budget_usd_per_h=_kept(t.budget_usd_per_h, own.budget_usd_per_h))
                for t, own in zip(problem.tenants, stated.tenants, strict=False)
            ),
            running=running,
            demand=stated.demand,
        )
        for part in (f for f in fields(Problem) if f.compare):
            if getattr(due, part.name) != getattr(stated, part.name):
                yield Violation(
                    code="hour_problem",
                    subject=f"hour {at}",
                    limit=f"{part.name} of the problem in that hour",
                    actual=f"another {part.name}",
                    remedy="plan again from the present problem",
                )
        yield from _demand(problem, schedule, at=at, stated=stated)
        running = left_running(one.plan)


def _kept(limit: float | None, own: float | None) -> float | None:
    """What an hour may state of a limit over the day: any part of it, nothing without one."""
    return None if limit is None else 0.0 if own is None else own


def _demand(
    problem: Problem, schedule: DaySchedule, *, at: int, stated: Problem
) -> Iterator[Violation]:
    """What an hour's plan answers is what is asked for, less what leaves, plus what arrives."""
    moved: dict[str, list[float]] = defaultdict(list)
    for one in schedule.deferrals:
        if one.from_period == at:
            moved[one.class_id].append(-one.rate_rps)
        if one.to_period == at:
            moved[one.class_id].append(one.rate_rps)
    born = _born(problem, at)
    for known in problem.classes:
        due = max(0.0, fsum([born[known.class_id], *moved[known.class_id]]))
        actual = stated.rate_rps(known)
        if differs(actual, due):
            yield Violation(
                code="demand_balance",
                subject=f'hour {at}: class "{known.class_id}"',
                limit=due,
                actual=actual,
                unit="requests/s",
                remedy="state every deferral and nothing else",
            )


def _loading(schedule: DaySchedule) -> Iterator[Violation]:
    """Busy replicas within what has loaded: a replica started in an hour serves the rest of it."""
    for at, one in enumerate(schedule.periods):
        reach = Reach(one.problem)
        ran = {r.group.group_id: r.replicas for r in one.problem.running}
        busy = busy_replicas(
            reach, {g.group.group_id: g.group for g in one.plan.groups}, shares=one.plan.shares
        )
        slack = _share_slack(reach, one)
        for planned in one.plan.groups:
            group_id, point = planned.group.group_id, reach.point(planned.group)
            assert point is not None, "check_plan refused a group without a serving point"
            started = max(0, planned.replicas - ran.get(group_id, 0))
            able = planned.replicas - min(1.0, point.start_h / PERIOD_H) * started
            limit = able * usable_part(reach, planned.group)
            if is_above(busy[group_id], limit, slack=slack[group_id]):
                yield Violation(
                    code="loading",
                    subject=f'hour {at}: group "{group_id}"',
                    limit=limit,
                    actual=busy[group_id],
                    unit="busy replicas",
                    remedy="start replicas an hour earlier or route less to them at first",
                )


def _share_slack(reach: Reach, one: PeriodPlan) -> Mapping[str, float]:
    """Busy replicas of one basis point more of every share, by group."""
    groups = {g.group.group_id: g.group for g in one.plan.groups}
    slack: dict[str, float] = defaultdict(float)
    for share in one.plan.shares:
        seconds = reach.replica_seconds(reach.classes[share.class_id], groups[share.group_id])
        slack[share.group_id] += reach.rates[share.class_id] * seconds / WHOLE_BP
    return slack


def _day_limits(problem: Problem, schedule: DaySchedule) -> Iterator[Violation]:
    """What the hours' own tenant budgets and carbon caps add up to: as many as there are hours.

    That each hour keeps its own is `check_plan`'s.
    """
    hours = len(schedule.periods)
    given = [one.problem for one in schedule.periods]
    for tenant in sorted(problem.tenants, key=lambda t: t.tenant_id):
        if tenant.budget_usd_per_h is not None:
            parts = [budget_of_tenant(p, tenant.tenant_id) for p in given]
            yield from _over_the_day(
                "tenant_budget",
                f'tenant "{tenant.tenant_id}" over {hours} hours',
                limit=tenant.budget_usd_per_h * hours,
                parts=parts,
                unit="USD",
            )
    cap_g = problem.plan_policy.carbon_cap_g_per_h
    if cap_g is not None:
        parts = [p.plan_policy.carbon_cap_g_per_h or 0.0 for p in given]
        yield from _over_the_day(
            "carbon_cap", f"{hours} hours", limit=cap_g * hours, parts=parts, unit="gCO2e"
        )


def _over_the_day(
    code: str, subject: str, *, limit: float, parts: list[float], unit: str
) -> Iterator[Violation]:
    if is_above(fsum(parts), limit):
        yield Violation(
            code=code,
            subject=subject,
            limit=limit,
            actual=fsum(parts),
            unit=unit,
            remedy="give the hours no more than the day has",
        )


def _bound(schedule: DaySchedule) -> Iterator[Violation]:
    cost = schedule.cost_usd
    if schedule.bound_usd is None:
        if schedule.gap is not None:
            yield Violation(code="gap", subject="schedule", limit="none", actual=schedule.gap)
        return
    if is_above(schedule.bound_usd, cost):
        yield Violation(
            code="bound", subject="schedule", limit=cost, actual=schedule.bound_usd, unit="USD"
        )
    due = relative_gap(cost, schedule.bound_usd)
    if schedule.gap is None or differs(schedule.gap, due):
        yield Violation(code="gap", subject="schedule", limit=due, actual=schedule.gap or "none")
