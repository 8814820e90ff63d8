"""Days: what moves, what waits, what loads; against brute force, and what must never cost more."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from math import fsum
from pathlib import Path

import pytest
from hypothesis import given, settings

from optimizer.outcome import SolveStatus
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.schedule import DayOutcome, DaySchedule
from optimizer.solve import solve
from optimizer.solve_day import PERIODS_MOST, solve_day
from optimizer.verify_day import check_day
from sites.clock import SystemClock
from sites.errors import InvalidFactError
from sites.traffic import Tenant
from tests.optimizer import builders as b
from tests.optimizer import days
from tests.optimizer.day_oracle import cheapest_usd

SLACK = 2e-3
"""Whole basis points cost a finished plan a little more than the point it came from."""


def schedule_of(outcome: DayOutcome) -> DaySchedule:
    assert outcome.schedule is not None, outcome.message
    return outcome.schedule


def day(problem: Problem, *, periods: int = 4, rolling: bool | None = None) -> DaySchedule:
    return schedule_of(solve_day(problem, periods=periods, rolling=rolling))


def replicas(schedule: DaySchedule) -> list[int]:
    return [sum(g.replicas for g in one.plan.groups) for one in schedule.periods]


@pytest.mark.parametrize("rolling", [False, True])
def test_traffic_that_may_wait_goes_to_the_cheap_hours(rolling: bool) -> None:
    schedule = day(days.dear_then_cheap(), rolling=rolling)

    moved = {(d.from_period, d.to_period): d.rate_rps for d in schedule.deferrals}
    assert sum(moved.values()) == pytest.approx(20.0)
    assert {to for _, to in moved} <= {2, 3}
    assert replicas(schedule)[:2] == [1, 1]
    assert sum(replicas(schedule)) == 6
    # two dear hours of one replica (1 + 10 x 0.3), four more cheap replica-hours (1 + 0.1 x 0.3)
    assert schedule.cost_usd == pytest.approx(2 * 4.0 + 4 * 1.03, abs=SLACK)


@pytest.mark.parametrize("rolling", [False, True])
def test_nothing_waits_longer_than_its_deadline(rolling: bool) -> None:
    schedule = day(days.dear_then_cheap(deferrable_h=1), rolling=rolling)

    assert {(d.from_period, d.to_period) for d in schedule.deferrals} == {(1, 2)}
    assert replicas(schedule)[:2] == [2, 1]


def test_one_hour_is_the_steady_state() -> None:
    problem = days.dear_then_cheap(start_ms=1_800_000.0)
    alone, outcome = solve(problem), solve_day(problem, periods=1)

    schedule = schedule_of(outcome)
    assert alone.plan is not None
    assert schedule.periods[0].plan.plan_digest == alone.plan.plan_digest
    assert schedule.periods[0].problem == problem
    assert (schedule.bound_usd, outcome.status) == (alone.plan.bound_usd_per_h, alone.status)


def test_what_starts_loads_before_it_serves() -> None:
    problem = replace(
        days.dear_then_cheap(start_ms=1_800_000.0),
        classes=(days.class_at("now", [10.0, 10.0, 30.0]),),
    )
    schedule = day(problem, periods=3)

    # an hour's work of one replica, half of it gone with loading: two start, one goes on
    assert replicas(schedule)[0] == 2
    # before the busy hour: three must serve whole, so what is started for it starts before
    started = replicas(schedule)[2] - 0.5 * max(0, replicas(schedule)[2] - replicas(schedule)[1])
    assert started >= 3.0
    assert not any(one.plan.shed for one in schedule.periods)


def test_a_start_is_paid_whole_in_its_hour() -> None:
    problem = replace(
        days.dear_then_cheap(),
        plan_policy=replace(b.DEFAULT_POLICY, migration_usd_per_gib=7.0, migration_horizon_h=24.0),
        classes=(days.class_at("now", [10.0, 0.0, 10.0]),),
    )
    problem = replace(
        problem,
        fleet=replace(problem.fleet, sites=(b.site("a", pools=[b.pool(price=1.0)]),)),
    )
    schedule = day(problem, periods=3)

    # idling through the empty hour costs 1 + 0.01 USD, a second start of 1 GiB 7 USD
    assert replicas(schedule) == [1, 1, 1]
    assert fsum(p.plan.cost.migration_usd_per_h for p in schedule.periods) == pytest.approx(7.0)


@pytest.mark.parametrize("rolling", [False, True])
def test_the_move_limit_holds_in_every_hour(rolling: bool) -> None:
    problem = replace(
        days.dear_then_cheap(),
        plan_policy=replace(b.DEFAULT_POLICY, move_limit_replicas=1),
        classes=(days.class_at("now", [40.0] * 4),),
    )
    assert replicas(day(problem, rolling=rolling)) == [1, 2, 3, 4]


@pytest.mark.parametrize("rolling", [False, True])
def test_a_budget_holds_over_the_day_not_by_the_hour(rolling: bool) -> None:
    base = replace(days.dear_then_cheap(), classes=(days.class_at("now", [10.0, 30.0, 0.0]),))
    cheap = replace(base, fleet=replace(base.fleet, sites=(b.site("a"),)))
    # 10 req/s cost 1 (hardware) + 0.03 (power) USD/h: 4.12 USD in all
    tight = replace(
        cheap,
        tenants=(Tenant(tenant_id="t", residency_policy_id="any", budget_usd_per_h=4.12 / 3),),
    )
    poor = replace(
        cheap,
        tenants=(Tenant(tenant_id="t", residency_policy_id="any", budget_usd_per_h=3.09 / 3),),
    )
    short = day(poor, periods=3, rolling=rolling)

    if not rolling:  # hour by hour, the later hours' part is kept for them
        assert not any(p.plan.shed for p in day(tight, periods=3).periods)
    served = [
        (1 - sum(s.basis_points for s in p.plan.shed) / 10_000) * p.problem.demand[0].rate_rps
        for p in short.periods
    ]
    assert fsum(served) <= 30.0 + SLACK
    assert fsum(served) >= (30.0 if not rolling else 20.0) - SLACK
    assert not check_day(poor, short)


def test_the_carbon_cap_holds_over_the_day() -> None:
    supplies = [
        b.supply("coal", price=0.05, carbon_g=1_000.0),
        b.supply("wind", price=0.5, carbon_g=0.0),
    ]
    problem = replace(
        days.dear_then_cheap(),
        fleet=replace(days.dear_then_cheap().fleet, sites=(b.site("a", supplies=supplies),)),
        classes=(days.class_at("now", [10.0, 10.0]),),
        plan_policy=replace(b.DEFAULT_POLICY, carbon_cap_g_per_h=150.0),
    )
    schedule = day(problem, periods=2)

    taken = [{u.supply_id: u.power_w for u in p.plan.supplies} for p in schedule.periods]
    assert fsum(one.get("coal", 0.0) for one in taken) == pytest.approx(300.0, rel=1e-3)
    assert fsum(one.get("wind", 0.0) for one in taken) == pytest.approx(300.0, rel=1e-3)


def test_protected_classes_are_certified_in_every_hour() -> None:
    base = b.two_sites(classes=[days.class_at("c", [10.0, 20.0, 10.0], protected=True)])
    schedule = day(base, periods=3)

    assert not check_day(base, schedule)
    assert all(p.plan.survival or p.plan.exposed for p in schedule.periods if p.plan.shares)


@settings(max_examples=25, deadline=None)
@given(days.day_problems())
def test_random_days_pass_the_checker(problem: Problem) -> None:
    for rolling in (False, True):
        outcome = solve_day(problem, periods=3, rolling=rolling)
        schedule = schedule_of(outcome)

        assert check_day(problem, schedule) == ()
        if not rolling:
            assert outcome.status is SolveStatus.OPTIMAL
            assert schedule.gap is not None and schedule.gap <= SLACK


@settings(max_examples=15, deadline=None)
@given(days.day_problems(limits=True))
def test_random_days_under_limits_have_a_checked_plan_or_none(problem: Problem) -> None:
    for rolling in (False, True):
        outcome = solve_day(problem, periods=3, rolling=rolling)

        assert outcome.status is not SolveStatus.FAULT, outcome.message
        if outcome.schedule is not None:
            assert check_day(problem, outcome.schedule) == ()
        else:
            assert outcome.message


@settings(max_examples=20, deadline=None)
@given(days.day_problems(max_sites=2, max_classes=2))
def test_all_at_once_never_costs_more_than_hour_by_hour(problem: Problem) -> None:
    whole, chain = day(problem, periods=3, rolling=False), day(problem, periods=3, rolling=True)

    assert whole.bound_usd is not None
    assert whole.bound_usd <= chain.cost_usd * (1 + SLACK) + SLACK
    assert whole.cost_usd <= chain.cost_usd + SLACK * abs(chain.cost_usd) + SLACK


@settings(max_examples=15, deadline=None)
@given(days.day_problems(max_sites=3, max_classes=2))
def test_cuts_for_lost_sites_hold_for_every_schedule(problem: Problem) -> None:
    policy = replace(problem.plan_policy, exposure_part=1.0)
    classes = tuple(replace(c, protected=True) for c in problem.classes)
    careful = replace(problem, plan_policy=policy, classes=classes)
    whole, chain = day(careful, periods=2, rolling=False), day(careful, periods=2, rolling=True)

    assert whole.bound_usd is not None and whole.gap is not None
    assert whole.bound_usd <= chain.cost_usd * (1 + SLACK) + SLACK
    assert whole.gap <= SLACK or whole.hit_limit == "survival_rounds"


@settings(max_examples=20, deadline=None)
@given(days.day_problems(max_sites=2, max_classes=2))
def test_a_longer_deadline_never_costs_more(problem: Problem) -> None:
    longer = days.with_deadlines(problem, {c.class_id: c.deferrable_h + 1 for c in problem.classes})
    short, long = day(problem, periods=3), day(longer, periods=3)

    assert long.bound_usd is not None
    assert long.bound_usd <= short.cost_usd + SLACK * abs(short.cost_usd) + SLACK


@settings(max_examples=20, deadline=None)
@given(days.one_group_problems())
def test_a_day_costs_what_brute_force_finds(problem: Problem) -> None:
    schedule, best = day(problem, periods=3, rolling=False), cheapest_usd(problem, periods=3)

    assert schedule.bound_usd is not None
    assert schedule.bound_usd <= best + SLACK * (1 + abs(best))
    assert schedule.cost_usd == pytest.approx(best, rel=SLACK, abs=SLACK)


def test_an_hour_without_a_plan_says_which_and_what_to_relax() -> None:
    problem = replace(
        days.dear_then_cheap(),
        plan_policy=replace(
            b.DEFAULT_POLICY, replica_bounds=(GroupBound(site_id="a", variant_id="v", fewest=5),)
        ),
    )
    outcome = solve_day(problem, periods=3)

    assert outcome.status is SolveStatus.INFEASIBLE
    assert outcome.failed_period == 0
    assert {r.code for r in outcome.relaxations} >= {"replica_floor", "pool_accelerators"}


def test_hours_that_only_clash_together_say_so() -> None:
    problem = replace(
        days.dear_then_cheap(),
        plan_policy=replace(b.DEFAULT_POLICY, move_limit_replicas=1, max_shed_basis_points=0),
        classes=(days.class_at("now", [10.0, 40.0]),),
    )
    outcome = solve_day(problem, periods=2)

    assert outcome.status is SolveStatus.INFEASIBLE
    assert outcome.schedule is None
    assert "move_limit_replicas" in outcome.message


@pytest.mark.parametrize("periods", [0, -1, PERIODS_MOST + 1])
def test_a_day_of_no_hours_is_refused(periods: int) -> None:
    with pytest.raises(InvalidFactError, match="1 to"):
        solve_day(days.dear_then_cheap(), periods=periods)


def test_a_day_without_demand_places_nothing() -> None:
    problem = replace(days.dear_then_cheap(), classes=(days.class_at("now", [0.0]),))
    for rolling in (False, True):
        schedule = day(problem, periods=3, rolling=rolling)
        assert replicas(schedule) == [0, 0, 0]
        assert schedule.cost_usd == 0.0


def test_a_day_that_ran_out_of_time_says_so() -> None:
    base = days.dear_then_cheap()
    problem = replace(base, plan_policy=replace(base.plan_policy, time_limit_s=1e-6))
    for rolling in (False, True):
        outcome = solve_day(problem, periods=3, rolling=rolling)
        assert outcome.status in (SolveStatus.NO_PLAN, SolveStatus.LIMIT)
        assert "time_limit_s" in outcome.message


def test_wall_seconds_are_only_stated_with_a_clock() -> None:
    problem = days.dear_then_cheap()

    assert solve_day(problem, periods=2).solve_s == 0.0
    assert solve_day(problem, periods=2, clock=SystemClock()).solve_s >= 0.0


def test_the_hours_of_a_day_begin_at_the_problems_period() -> None:
    problem = replace(days.dear_then_cheap(), period=23)
    schedule = day(problem, periods=3)

    assert [one.problem.period for one in schedule.periods] == [23, 0, 1]


def test_the_same_day_under_every_hash_seed() -> None:
    code = (
        "from tests.optimizer import days\n"
        "from optimizer.solve_day import solve_day\n"
        "for rolling in (False, True):\n"
        "    one = solve_day(days.dear_then_cheap(), periods=4, rolling=rolling)\n"
        "    print(one.schedule.schedule_digest)"
    )
    root = Path(__file__).parents[2]
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for seed in ("1", "4242")
    }

    assert len(texts) == 1
