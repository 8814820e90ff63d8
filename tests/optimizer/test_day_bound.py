"""The bound of a rolled day: never above what any schedule costs, and near it where it can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from optimizer.milp import day_bound
from optimizer.milp.arrays import compile_periods
from optimizer.milp.arrays_hours import lay_out_hours
from optimizer.milp.day_bound import hours_bound_usd
from optimizer.milp.day_rows import DayRows
from optimizer.milp.day_whole import hours_in_whole_usd
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.schedule import DaySchedule, born_rates, hour_problem
from optimizer.solve_day import solve_day
from optimizer.tables import Floats
from optimizer.verify_day import check_day
from tests.optimizer import builders as b
from tests.optimizer import days
from tests.optimizer.day_oracle import cheapest_usd

SLACK = 2e-3
"""Whole basis points may save a finished plan a little against the point it came from."""


def allowed(usd: float) -> float:
    """What no bound may pass, given what some schedule costs."""
    return usd + SLACK * (1 + abs(usd))


def rolled(problem: Problem, *, periods: int = 3) -> DaySchedule:
    outcome = solve_day(problem, periods=periods, rolling=True)
    assert outcome.schedule is not None, outcome.message
    assert outcome.bound_usd == outcome.schedule.bound_usd
    assert check_day(problem, outcome.schedule) == ()
    return outcome.schedule


def relaxed(problem: Problem, *, periods: int, time_s: float = 60.0) -> float | None:
    """The bound without cuts for lost sites."""
    hours = [
        hour_problem(problem, at, rates=born_rates(problem, at), running=problem.running)
        for at in range(periods)
    ]
    return hours_bound_usd(hours, cuts=(), time_s=time_s)


@pytest.mark.parametrize("block_arcs", [day_bound.BLOCK_ARCS_MOST, 1])
@settings(max_examples=20, deadline=None)
@given(problem=days.day_problems())
def test_no_schedule_costs_less(block_arcs: int, problem: Problem) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(day_bound, "BLOCK_ARCS_MOST", block_arcs)
        chain = rolled(problem)
    whole = solve_day(problem, periods=3, rolling=False).schedule
    assert whole is not None and chain.bound_usd is not None
    assert chain.bound_usd <= allowed(min(whole.cost_usd, chain.cost_usd))


@pytest.mark.parametrize("block_arcs", [day_bound.BLOCK_ARCS_MOST, 1])
@settings(max_examples=12, deadline=None)
@given(problem=days.day_problems(max_sites=3, max_classes=2))
def test_nor_one_whose_losses_are_counted(block_arcs: int, problem: Problem) -> None:
    careful = replace(
        problem,
        plan_policy=replace(problem.plan_policy, exposure_part=1.0),
        classes=tuple(replace(c, protected=True) for c in problem.classes),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(day_bound, "BLOCK_ARCS_MOST", block_arcs)
        chain = rolled(careful)
    whole = solve_day(careful, periods=3, rolling=False).schedule
    assert whole is not None and chain.bound_usd is not None
    assert chain.bound_usd <= allowed(min(whole.cost_usd, chain.cost_usd))


@settings(max_examples=15, deadline=None)
@given(days.day_problems(limits=True))
def test_nor_one_under_limits(problem: Problem) -> None:
    chain = solve_day(problem, periods=3, rolling=True).schedule
    whole = solve_day(problem, periods=3, rolling=False).schedule
    if chain is None or whole is None:
        return
    if chain.bound_usd is None:
        assert chain.gap is None and "no bound: " in chain.method
    else:
        assert chain.bound_usd <= allowed(min(whole.cost_usd, chain.cost_usd))


@settings(max_examples=20, deadline=None)
@given(days.one_group_problems())
def test_nor_what_brute_force_finds(problem: Problem) -> None:
    bound = relaxed(problem, periods=3)
    assert bound is not None and bound <= allowed(cheapest_usd(problem, periods=3))


@pytest.mark.parametrize("block_arcs", [day_bound.BLOCK_ARCS_MOST, 2, 1])
def test_it_says_nearly_all(block_arcs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of any size: two dear hours that wait for cheap ones, all of it in whole replicas,
    so that the relaxation is the plan, 2 x 4.0 + 4 x 1.03 USD. Alone, the dear hours would serve
    what waits at their own price: only what it costs at the least of its window may count.
    """
    monkeypatch.setattr(day_bound, "BLOCK_ARCS_MOST", block_arcs)
    bound = relaxed(days.dear_then_cheap(), periods=4)
    assert bound == pytest.approx(12.12, abs=1e-6)


def test_an_hour_nobody_asks_anything_of_is_no_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is born in a dear hour waits for one without demand: 10 req/s cost $1.03 there."""
    monkeypatch.setattr(day_bound, "BLOCK_ARCS_MOST", 1)
    base = days.dear_then_cheap()
    problem = replace(base, classes=(days.class_at("later", [0.0, 10.0], deferrable_h=2),))
    assert relaxed(problem, periods=4) == pytest.approx(1.03, rel=1e-6)
    assert rolled(problem, periods=4).gap == pytest.approx(0.0, abs=SLACK)


def test_replicas_are_whole_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hour asks for a replica and a half in three classes: the relaxation pays for no more,
    any plan for two. Where no time is left for whole ones, the relaxation is what is proven.
    """
    base = days.dear_then_cheap()
    problem = replace(base, classes=tuple(days.class_at(c, [5.0] * 4) for c in "abc"))
    cost = rolled(problem, periods=4).cost_usd
    whole = relaxed(problem, periods=4)

    def at_once(day: DayRows, proving: Floats, *, time_s: float) -> float:
        return hours_in_whole_usd(day, proving, time_s=0.0 * time_s)

    monkeypatch.setattr(day_bound, "hours_in_whole_usd", at_once)
    parts = relaxed(problem, periods=4)
    assert parts is not None and whole is not None
    assert 0.5 * cost < parts < 0.9 * cost
    assert whole == pytest.approx(cost, rel=1e-4)


def test_an_hour_that_starts_everything_counts_the_starts() -> None:
    problem = replace(
        days.dear_then_cheap(), plan_policy=replace(b.DEFAULT_POLICY, migration_usd_per_gib=7.0)
    )
    chain = rolled(problem, periods=4)
    assert chain.bound_usd is not None and chain.bound_usd > 12.12 + 7.0
    assert chain.gap is not None and chain.gap < 0.05


def test_a_rolled_day_within_its_gap_is_as_good_as_proven() -> None:
    base = days.dear_then_cheap()
    outcome = solve_day(
        replace(base, plan_policy=replace(base.plan_policy, gap_limit=0.01)),
        periods=4,
        rolling=True,
    )
    assert outcome.schedule is not None
    assert outcome.status is SolveStatus.OPTIMAL
    assert "bound by its hours in whole replicas" in outcome.schedule.method


def test_power_sold_below_nothing_is_in_it() -> None:
    problem = replace(
        days.dear_then_cheap(),
        fleet=b.problem(
            sites=[b.site("a", supplies=[days.supply_at([-5.0, -5.0])], pools=[b.pool(count=4)])]
        ).fleet,
    )
    chain = rolled(problem, periods=3)
    assert chain.bound_usd is not None and chain.bound_usd < 0
    assert chain.bound_usd <= allowed(chain.cost_usd)


def test_hours_without_whole_columns_prove_what_their_prices_do() -> None:
    """Power is paid for, so that costs are below nothing, and nothing has to be whole: of such a
    search HiGHS tells a bound of 0.
    """
    problem = replace(
        days.dear_then_cheap(),
        fleet=b.problem(
            sites=[b.site("a", supplies=[days.supply_at([-5.0, -5.0])], pools=[b.pool(count=4)])]
        ).fleet,
    )
    hours = [
        hour_problem(problem, at, rates=born_rates(problem, at), running=()) for at in range(2)
    ]
    matrix = compile_periods(lay_out_hours(hours, pending={}))
    day = DayRows(replace(matrix, whole=np.zeros_like(matrix.whole)))
    nothing = day.proving(np.zeros(day.rows.count))
    assert hours_in_whole_usd(day, nothing, time_s=60.0) < 0


def test_no_time_is_no_bound() -> None:
    assert relaxed(days.dear_then_cheap(), periods=3, time_s=0.0) is None


def test_what_a_move_limit_lets_stand_has_no_bound_and_says_so() -> None:
    """Six replicas on a pool of four, of which one a plan may stop one."""
    base = days.dear_then_cheap()
    problem = replace(
        base,
        plan_policy=replace(base.plan_policy, move_limit_replicas=1),
        running=b.problem(running={"a/p/v/x1": 6}).running,
    )
    chain = rolled(problem)
    assert (chain.bound_usd, chain.gap) == (None, None)
    assert chain.method.endswith("a move limit lets what runs stand above other limits")
