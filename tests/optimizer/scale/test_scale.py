"""The large search: valid bounds, checked plans, one answer for any number of workers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from optimizer.arcs import find_arcs
from optimizer.milp.scale.ascent import clear, opening_prices, sampled_arcs
from optimizer.milp.scale.frame import Prices, take_frame
from optimizer.milp.scale.price_lp import relax, sweep
from optimizer.milp.scale.solve import solve_at_scale
from optimizer.milp.scale.workers import SerialWorkers, ThreadWorkers
from optimizer.milp.worth import relaxed_usd_per_h
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.tabulate import tabulate
from optimizer.verify import check_plan
from tests.optimizer.builders import problem as one_site
from tests.optimizer.builders import rich_problems
from tests.optimizer.optima import most_usd_per_h


def plain(problem: Problem) -> Problem:
    """The problem to the smallest gap."""
    return replace(problem, plan_policy=replace(problem.plan_policy, gap_limit=1e-6))


def never() -> bool:
    """No deadline."""
    return False


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(rich_problems())
def test_plans_pass_the_checker_and_no_bound_passes_the_optimum(problem: Problem) -> None:
    problem = plain(problem)
    found = solve_at_scale(problem)
    assert found.status is not SolveStatus.FAULT, found.message
    assert found.plan is None or check_plan(problem, found.plan) == ()
    assert found.bound_usd_per_h <= most_usd_per_h(problem)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(rich_problems())
def test_any_prices_give_a_bound(problem: Problem) -> None:
    problem = plain(problem)
    most = most_usd_per_h(problem)
    frame = take_frame(tabulate(problem))
    start = opening_prices(frame)
    odd = Prices(pool=start.pool + 0.7, power=start.power + 0.3, energy=start.energy * 1.7 - 0.01)
    for prices in (start, odd):
        high = np.full(len(frame.rate), np.inf)
        relaxed, _ = sweep(frame, prices, SerialWorkers(), ceiling_usd_per_h=high, count=1)
        assert relaxed <= most


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(rich_problems())
def test_the_number_of_workers_changes_nothing(problem: Problem) -> None:
    problem = plain(problem)
    one = solve_at_scale(problem, workers=SerialWorkers())
    three = solve_at_scale(problem, workers=ThreadWorkers(3))
    assert one.plan is not None and three.plan is not None
    assert one.plan.plan_digest == three.plan.plan_digest


class LateClock:
    """A clock on which every reading is an hour after the last."""

    def __init__(self) -> None:
        self._now_ms = 0

    def monotonic_ms(self) -> int:
        """Milliseconds, an hour more each time."""
        self._now_ms += 3_600_000
        return self._now_ms

    def wall_ms(self) -> int:
        """The same."""
        return self._now_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        """Waits no longer than that."""
        self._now_ms += duration_ms

    def block_ms(self, duration_ms: int) -> None:
        """Waits no longer than that."""
        self._now_ms += duration_ms


class HaltedClock(LateClock):
    """A clock that stands still but for one leap, of 0.4 of the time limit, after two readings."""

    def __init__(self, limit_s: float) -> None:
        super().__init__()
        self._left, self._leap_ms = 2, round(400 * limit_s)

    def monotonic_ms(self) -> int:
        """Milliseconds."""
        self._left -= 1
        return 0 if self._left >= 0 else self._leap_ms


@settings(max_examples=5, deadline=None, derandomize=True)
@given(rich_problems())
def test_a_plan_says_that_time_cut_the_prices_also_where_the_search_ended(problem: Problem) -> None:
    problem = plain(problem)
    found = solve_at_scale(problem, clock=HaltedClock(problem.plan_policy.time_limit_s))
    assert found.plan is not None
    assert found.plan.hit_limit == "time_limit_s"


@settings(max_examples=5, deadline=None, derandomize=True)
@given(rich_problems())
def test_out_of_time_there_is_a_plan_that_says_so(problem: Problem) -> None:
    problem = plain(problem)
    found = solve_at_scale(problem, clock=LateClock())
    assert found.plan is not None
    assert check_plan(problem, found.plan) == ()
    if found.status is SolveStatus.LIMIT:
        assert found.plan.hit_limit == "time_limit_s"


@settings(max_examples=10, deadline=None, derandomize=True)
@given(rich_problems())
def test_an_earlier_plan_is_taken_up(problem: Problem) -> None:
    problem = plain(problem)
    first = solve_at_scale(problem)
    assert first.plan is not None
    again = solve_at_scale(problem, start=first.plan)
    assert again.plan is not None
    assert check_plan(problem, again.plan) == ()
    shed = sum(one.basis_points for one in again.plan.shed)
    assert shed <= sum(one.basis_points for one in first.plan.shed)


def test_prices_clear_a_market_near_its_relaxation() -> None:
    problem = plain(one_site())
    frame = take_frame(tabulate(problem))
    start = opening_prices(frame)
    sample = sampled_arcs(frame, start, SerialWorkers())
    cleared, _ = clear(frame, sample, prices=start, steps=50)
    relaxed = relax(frame, cleared, SerialWorkers(), tolerance=1e-6, is_over=never)
    least = relaxed_usd_per_h(problem, find_arcs(problem).arcs)
    assert relaxed.bound_usd_per_h == pytest.approx(least, rel=1e-6)
