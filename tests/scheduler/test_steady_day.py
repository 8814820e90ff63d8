"""A schedule stands on both sides of a comparison where it holds and costs no more, only then."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings

from optimizer.costs import priced_plan, relative_gap
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.schedule import DayOutcome, DaySchedule, left_running
from optimizer.solve_day import solve_day
from optimizer.verify_day import check_day
from optimizer.whatif import what_if
from scheduler.steady_day import steadied_day
from tests.optimizer import days


def schedule_of(outcome: DayOutcome) -> DaySchedule:
    assert outcome.schedule is not None, outcome.message
    return outcome.schedule


def idling(outcome: DayOutcome) -> DayOutcome:
    """The same schedule with a replica too many in its last hour: it holds and costs more."""
    schedule = schedule_of(outcome)
    last = schedule.periods[-1]
    more = tuple(dataclasses.replace(g, replicas=g.replicas + 1) for g in last.plan.groups)
    plan = priced_plan(
        Reach(last.problem), groups=more, shares=last.plan.shares, shed=last.plan.shed,
        bound_usd_per_h=last.plan.bound_usd_per_h, method=last.plan.method,
    )  # fmt: skip
    periods = (*schedule.periods[:-1], dataclasses.replace(last, plan=plan))
    spoilt = dataclasses.replace(schedule, periods=periods)
    assert spoilt.bound_usd is not None
    gap = relative_gap(spoilt.cost_usd, spoilt.bound_usd)
    return dataclasses.replace(outcome, schedule=dataclasses.replace(spoilt, gap=gap))


def test_the_better_schedule_of_the_other_side_stands_here_too() -> None:
    problem = days.dear_then_cheap()
    dearer = what_if(problem, ["price a +1%"])
    found = solve_day(dearer, periods=4)
    careless = idling(solve_day(problem, periods=4))

    mended = steadied_day(problem, careless, before=schedule_of(found))
    assert schedule_of(mended).cost_usd < schedule_of(careless).cost_usd
    assert schedule_of(mended).cost_usd < schedule_of(found).cost_usd
    assert schedule_of(mended).bound_usd == schedule_of(careless).bound_usd
    assert check_day(problem, schedule_of(mended)) == ()
    assert mended.status is SolveStatus.OPTIMAL
    assert mended.message.startswith("found for the hours it is compared with, and better here")
    assert [left_running(p.plan) for p in schedule_of(mended).periods[:-1]] == [
        p.problem.running for p in schedule_of(mended).periods[1:]
    ]


@pytest.mark.parametrize(
    "change",
    [
        "site a power = 300 W",  # one replica's
        "class later deferrable = 0 h",
        "demand class now +50%",
        "demand class later -50%",
        "site a accelerators p = 1",
    ],
)
def test_what_no_longer_holds_is_not_taken(change: str) -> None:
    problem = days.dear_then_cheap()
    changed = what_if(problem, [change])
    found = solve_day(changed, periods=4)
    assert steadied_day(changed, found, before=schedule_of(solve_day(problem, periods=4))) == found


def test_nothing_is_taken_from_nothing_or_for_nothing() -> None:
    problem = days.dear_then_cheap()
    found = solve_day(problem, periods=4)
    none = DayOutcome(status=SolveStatus.INFEASIBLE, schedule=None)
    assert steadied_day(problem, found, before=None) == found
    assert steadied_day(problem, none, before=schedule_of(found)) == none
    fewer = dataclasses.replace(problem, classes=problem.classes[:1])
    alone = solve_day(fewer, periods=4)
    assert steadied_day(fewer, alone, before=schedule_of(found)) == alone


@pytest.mark.parametrize("periods", [1, 3])
@settings(max_examples=12, deadline=None)
@given(problem=days.day_problems(limits=True, max_classes=2))
def test_whatever_is_taken_holds_and_costs_no_more(periods: int, problem: Problem) -> None:
    dearer = what_if(problem, [f"price {s.site_id} +20%" for s in problem.fleet.sites])
    first, then = (solve_day(one, periods=periods) for one in (problem, dearer))
    kept = steadied_day(dearer, then, before=first.schedule)
    if then.schedule is None:
        assert kept == then
        return
    assert check_day(dearer, schedule_of(kept)) == ()
    assert schedule_of(kept).cost_usd <= then.schedule.cost_usd * (1 + 1e-5) + 1e-9
    assert kept.bound_usd is None or kept.bound_usd <= schedule_of(kept).cost_usd + 1e-9
