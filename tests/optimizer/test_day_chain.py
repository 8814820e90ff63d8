"""Hours that start from what they would be alone: never worse, lawful, with or without time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from optimizer import day_chain
from optimizer import solve_day as days_solved
from optimizer.arcs import find_arcs
from optimizer.day_chain import hour_of
from optimizer.milp import day, day_rounds, highs
from optimizer.milp.day import Horizon, Hour, HoursAnswer, search_hours
from optimizer.milp.formulate import budget_of
from optimizer.milp.highs import Point, PointStatus
from optimizer.milp.stopping import INTERRUPT
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.schedule import DaySchedule
from optimizer.solve import solve
from optimizer.solve_day import solve_day
from optimizer.verify_day import check_day
from sites.clock import ManualClock
from sites.traffic import Tenant
from tests.optimizer import builders as b
from tests.optimizer import days

SLACK = 2e-3
"""Whole basis points cost a finished plan a little more than the point it came from."""


def from_alone(problem: Problem, *, periods: int = 3) -> DaySchedule:
    """A rolled day whose hours start from what they are alone, whatever the size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(days_solved, "ALONE_ARCS", 0)
        outcome = solve_day(problem, periods=periods, rolling=True)
    assert outcome.schedule is not None, outcome.message
    return outcome.schedule


def window_of(problem: Problem, *, hours: int = 2) -> Horizon:
    return Horizon(
        hours=tuple(
            Hour(problem=hour_of(problem, at, running=problem.running)) for at in range(hours)
        ),
        arcs=find_arcs(problem).arcs,
        left=hours,
        planned=1,
        method="test",
    )


def alone(problem: Problem) -> dict[str, int]:
    plan = solve(hour_of(problem, 0, running=problem.running)).plan
    assert plan is not None
    return {g.group.group_id: g.replicas for g in plan.groups}


def searched(problem: Problem, start: dict[str, int]) -> HoursAnswer:
    return search_hours(
        window_of(problem), budget_of(problem), start=[start], near=start, keeps_start=True
    )


def only_start(problem: Problem, start: dict[str, int]) -> HoursAnswer:
    """The answer of the first round, which is the start itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(day, "_MOST_ROUNDS", 0)
        return searched(problem, start)


def replicas(found: HoursAnswer) -> dict[str, int]:
    return {g.group.group_id: g.replicas for g in found.periods[0].plan.groups if g.replicas}


@settings(max_examples=25, deadline=None)
@given(problem=days.day_problems(limits=True))
def test_a_window_is_never_worse_than_its_start(problem: Problem) -> None:
    plan = solve(hour_of(problem, 0, running=problem.running)).plan
    if plan is None:
        return
    start = {g.group.group_id: g.replicas for g in plan.groups}
    held, found = only_start(problem, start), searched(problem, start)
    if held.periods:
        assert found.periods
        assert found.horizon_usd <= held.horizon_usd + SLACK * (1 + abs(held.horizon_usd))


@settings(max_examples=25, deadline=None)
@given(problem=days.day_problems(limits=True))
def test_a_day_from_its_hours_alone_is_lawful(problem: Problem) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(days_solved, "ALONE_ARCS", 0)
        schedule = solve_day(problem, periods=3, rolling=True).schedule
    if schedule is not None:
        assert check_day(problem, schedule) == ()


def test_without_time_to_search_the_start_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = days.dear_then_cheap()
    start = alone(problem)
    run, calls = highs.run, []

    def once(*args: Any, **how: Any) -> Point:
        calls.append(how)
        if len(calls) > 1:
            return Point(status=PointStatus.NONE, hit_limit="time_limit_s")
        return run(*args, **how)

    monkeypatch.setattr(day_rounds, "run", once)
    found = searched(problem, start)

    assert len(calls) == 2
    assert replicas(found) == start
    assert found.hit_limit == "time_limit_s"
    assert not found.proven


class _Rushing(ManualClock):
    """A clock on which every look takes 20 s."""

    def monotonic_ms(self) -> int:
        self.advance_ms(20_000)
        return super().monotonic_ms()


def test_hours_after_the_time_is_spent_have_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep the replicas of the hour before and place its traffic: a day whose machine is too
    slow for it is a dearer one, not none.
    """
    monkeypatch.setattr(days_solved, "ALONE_ARCS", 0)
    base = days.dear_then_cheap()
    problem = replace(base, plan_policy=replace(base.plan_policy, time_limit_s=30.0))
    schedule = solve_day(problem, periods=4, rolling=True, clock=_Rushing()).schedule
    assert schedule is not None and len(schedule.periods) == 4
    assert check_day(problem, schedule) == ()
    assert schedule.hit_limit == "time_limit_s"


def test_a_start_that_no_hour_may_run_is_left_aside() -> None:
    problem = days.dear_then_cheap()
    capped = replace(
        problem,
        plan_policy=replace(
            problem.plan_policy,
            replica_bounds=(GroupBound(site_id="a", variant_id="v", most=1),),
        ),
    )
    found = searched(capped, {"a/p/v/x1": 4})

    assert found.periods
    assert sum(replicas(found).values()) <= 1


def test_the_groups_of_a_start_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """HiGHS refuses a first guess with replicas where none are allowed."""
    problem = days.dear_then_cheap()
    start, run, among = alone(problem), highs.run, []

    def heard(*args: Any, **how: Any) -> Point:
        among.append(how["near"])
        return run(*args, **how)

    monkeypatch.setattr(day_rounds, "run", heard)
    search_hours(window_of(problem), budget_of(problem), start=[start], near=(), keeps_start=True)

    assert among[0] is None
    assert among[1:] and all(near >= set(start) for near in among[1:])


def test_what_waits_is_answered_in_the_cheap_hours() -> None:
    problem = days.dear_then_cheap()
    schedule = from_alone(problem, periods=4)

    assert check_day(problem, schedule) == ()
    assert schedule.deferrals and {d.to_period for d in schedule.deferrals} <= {2, 3}
    assert schedule.cost_usd == pytest.approx(2 * 4.0 + 4 * 1.03, abs=SLACK)


def test_limits_over_the_day_hold() -> None:
    base = days.dear_then_cheap()
    problem = replace(
        base,
        fleet=replace(base.fleet, sites=(b.site("a"),)),
        classes=(days.class_at("now", [10.0, 30.0, 0.0]),),
        tenants=(Tenant(tenant_id="t", residency_policy_id="any", budget_usd_per_h=1.03),),
        plan_policy=replace(base.plan_policy, carbon_cap_g_per_h=1e3),
    )
    assert check_day(problem, from_alone(problem)) == ()


def test_the_move_limit_holds_in_every_hour() -> None:
    base = days.dear_then_cheap()
    problem = replace(
        base,
        plan_policy=replace(base.plan_policy, move_limit_replicas=1),
        classes=(days.class_at("now", [40.0] * 4),),
    )
    schedule = from_alone(problem, periods=4)

    assert [sum(g.replicas for g in p.plan.groups) for p in schedule.periods] == [1, 2, 3, 4]


@settings(max_examples=15, deadline=None)
@given(problem=days.day_problems(max_sites=3, max_classes=2))
def test_cuts_of_hours_alone_hold_for_every_schedule(problem: Problem) -> None:
    policy = replace(problem.plan_policy, exposure_part=1.0)
    classes = tuple(replace(c, protected=True) for c in problem.classes)
    careful = replace(problem, plan_policy=policy, classes=classes)
    chain, whole = from_alone(careful), solve_day(careful, periods=3, rolling=False).schedule

    assert check_day(careful, chain) == ()
    assert whole is not None and chain.bound_usd is not None
    assert chain.bound_usd <= whole.cost_usd + SLACK * (1 + abs(whole.cost_usd))


@pytest.mark.parametrize("alone_arcs", [0, 10**9])
def test_an_interrupt_ends_the_day_and_not_its_hour(
    alone_arcs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day went on with its next hour after Ctrl-C."""
    real = day_chain.search_hours

    def cut(*args: Any, **how: Any) -> HoursAnswer:
        return replace(real(*args, **how), hit_limit=INTERRUPT)

    monkeypatch.setattr(days_solved, "ALONE_ARCS", alone_arcs)
    monkeypatch.setattr(day_chain, "search_hours", cut)
    with pytest.raises(KeyboardInterrupt):
        solve_day(b.two_sites(classes=[b.traffic_class()]), periods=3, rolling=True)
