"""The checker of days: a sound schedule passes, each doctored one is refused for what it breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from optimizer.costs import priced_plan
from optimizer.plan import PlannedGroup
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.schedule import DaySchedule, Deferral, PeriodPlan, left_running
from optimizer.solve_day import solve_day
from optimizer.verify_day import check_day
from sites.traffic import Demand, Tenant
from tests.optimizer import builders as b
from tests.optimizer import days

PROBLEM = replace(
    days.dear_then_cheap(start_ms=1_800_000.0),
    tenants=(Tenant(tenant_id="t", residency_policy_id="any", budget_usd_per_h=50.0),),
    plan_policy=replace(b.DEFAULT_POLICY, carbon_cap_g_per_h=1e6),
)


def sound() -> DaySchedule:
    schedule = solve_day(PROBLEM, periods=4).schedule
    assert schedule is not None
    return schedule


def codes(schedule: DaySchedule, problem: Problem = PROBLEM) -> set[str]:
    return {violation.code for violation in check_day(problem, schedule)}


def with_hour(schedule: DaySchedule, at: int, hour: PeriodPlan) -> DaySchedule:
    periods = list(schedule.periods)
    periods[at] = hour
    return replace(schedule, periods=tuple(periods))


def under(
    hour: PeriodPlan, problem: Problem, *, groups: dict[str, int] | None = None
) -> PeriodPlan:
    """The hour's plan priced again for another problem, with other replicas if given."""
    plan = hour.plan
    planned = plan.groups
    if groups is not None:
        planned = tuple(PlannedGroup(group=b.group(g), replicas=n) for g, n in groups.items())
    priced = priced_plan(
        Reach(problem),
        groups=planned,
        shares=plan.shares,
        shed=plan.shed,
        bound_usd_per_h=plan.bound_usd_per_h,
        method=plan.method,
    )
    return PeriodPlan(problem=problem, plan=priced)


def test_a_sound_schedule_passes() -> None:
    assert check_day(PROBLEM, sound()) == ()


def test_a_deferral_past_its_deadline_is_refused() -> None:
    one = replace(
        sound(), deferrals=(Deferral(class_id="later", from_period=0, to_period=3, rate_rps=1),)
    )
    assert codes(one) == {"deferral_window"}


def test_a_deferral_out_of_the_schedule_is_refused() -> None:
    one = replace(
        sound(), deferrals=(Deferral(class_id="later", from_period=3, to_period=4, rate_rps=1),)
    )
    assert codes(one) == {"deferral_window"}


def test_what_may_not_wait_is_not_deferred() -> None:
    one = replace(
        sound(), deferrals=(Deferral(class_id="now", from_period=0, to_period=1, rate_rps=1),)
    )
    assert codes(one) == {"deferral_window"}


def test_no_more_is_deferred_than_asked_for() -> None:
    first, *rest = sound().deferrals
    one = replace(sound(), deferrals=(replace(first, rate_rps=10.5), *rest))
    assert codes(one) == {"deferral_window"}


def test_a_class_nobody_knows_is_refused() -> None:
    one = replace(
        sound(), deferrals=(Deferral(class_id="x", from_period=0, to_period=1, rate_rps=1),)
    )
    assert codes(one) == {"reference"}


def test_demand_that_vanishes_between_hours_is_refused() -> None:
    assert "demand_balance" in codes(replace(sound(), deferrals=sound().deferrals[1:]))


def _lost_policy(one: Problem) -> Problem:
    return replace(one, plan_policy=replace(one.plan_policy, shed_usd_per_mtok=0.0))


def _other_hour(one: Problem) -> Problem:
    demand = tuple(Demand(class_id=d.class_id, period=9, rate_rps=d.rate_rps) for d in one.demand)
    return replace(one, period=9, demand=demand)


@pytest.mark.parametrize("change", [_lost_policy, _other_hour])
def test_an_hour_of_another_problem_is_refused(change: Callable[[Problem], Problem]) -> None:
    schedule = sound()
    hour = schedule.periods[2]
    assert codes(with_hour(schedule, 2, under(hour, change(hour.problem)))) >= {"hour_problem"}


def test_hours_must_begin_with_what_the_hour_before_left() -> None:
    schedule = sound()
    hour = schedule.periods[2]
    other = under(hour, replace(hour.problem, running=()))
    assert codes(with_hour(schedule, 2, other)) == {"hour_problem"}


def test_an_hours_plan_is_judged_as_any_plan() -> None:
    schedule = sound()
    hour = schedule.periods[1]
    cheaper = replace(hour.plan.cost, energy_usd_per_h=0.0)
    doctored = PeriodPlan(problem=hour.problem, plan=replace(hour.plan, cost=cheaper))
    found = check_day(PROBLEM, with_hour(schedule, 1, doctored))
    assert found
    assert all(v.subject.startswith("hour 1: ") for v in found)


def test_what_still_loads_does_not_serve() -> None:
    """One replica started in hour 0 for 10 req/s: half the hour is gone with loading."""
    schedule = sound()
    periods = []
    running = PROBLEM.running
    for hour in schedule.periods:
        busy = 1 if len(hour.plan.shares) == 1 else 3
        again = under(hour, replace(hour.problem, running=running), groups={"a/p/v/x1": busy})
        periods.append(again)
        running = left_running(again.plan)
    tight = replace(schedule, periods=tuple(periods), bound_usd=None, gap=None)

    found = check_day(PROBLEM, tight)
    assert {(v.code, v.subject) for v in found} == {("loading", 'hour 0: group "a/p/v/x1"')}
    assert found[0].limit == pytest.approx(0.5)
    assert found[0].actual == pytest.approx(1.0)


def _richer(one: Problem) -> Problem:
    return replace(one, tenants=tuple(replace(t, budget_usd_per_h=201.0) for t in one.tenants))


def _dirtier(one: Problem) -> Problem:
    return replace(one, plan_policy=replace(one.plan_policy, carbon_cap_g_per_h=4.1e6))


@pytest.mark.parametrize(("change", "code"), [(_richer, "tenant_budget"), (_dirtier, "carbon_cap")])
def test_hours_get_no_more_than_the_day_has(
    change: Callable[[Problem], Problem], code: str
) -> None:
    schedule = sound()
    hour = schedule.periods[0]
    assert codes(with_hour(schedule, 0, under(hour, change(hour.problem)))) == {code}


def test_an_hour_may_not_drop_a_limit_of_the_day() -> None:
    schedule = sound()
    hour = schedule.periods[0]
    free = replace(hour.problem, tenants=(Tenant(tenant_id="t", residency_policy_id="any"),))
    assert codes(with_hour(schedule, 0, under(hour, free))) == {"hour_problem"}


def test_a_bound_above_the_cost_or_a_wrong_gap_is_refused() -> None:
    schedule = sound()
    assert "bound" in codes(replace(schedule, bound_usd=schedule.cost_usd + 1))
    assert codes(replace(schedule, gap=0.5)) == {"gap"}
    assert codes(replace(schedule, bound_usd=None)) == {"gap"}
