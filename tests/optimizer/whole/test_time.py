"""When time ends, wherever the search for one large component is: a bound that holds, and a plan
that passes the checker or none.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fleets import facility_location
from optimizer.milp.whole import search as searches
from optimizer.milp.whole.search import take_root
from optimizer.milp.whole.solve import solve_whole
from optimizer.outcome import SolveStatus
from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from optimizer.verify import check_plan
from sites.clock import ManualClock
from tests.optimizer import builders
from tests.optimizer.whole.test_whole import ROUNDED, Looks, Watched, matrix_of, search


class _Racing(ManualClock):
    """A clock that is an hour on at every look."""

    def monotonic_ms(self) -> int:
        self._now_ms += 3_600_000
        return self._now_ms


def test_no_time_at_all_ends_at_once() -> None:
    outcome = solve_whole(facility_location(sites=12, classes=40), clock=_Racing())

    assert outcome.status in (SolveStatus.NO_PLAN, SolveStatus.LIMIT)
    assert (outcome.plan is None) == (outcome.status is SolveStatus.NO_PLAN)
    assert outcome.bound_usd_per_h > 0


class _Ticking(ManualClock):
    """A clock that is a second on at every look."""

    def monotonic_ms(self) -> int:
        self.advance_ms(1_000)
        return super().monotonic_ms()


def within(problem: Problem, limit_s: float) -> Problem:
    """The problem with another time limit, half a second more."""
    return replace(problem, plan_policy=replace(problem.plan_policy, time_limit_s=limit_s + 0.5))


def test_a_relaxation_stopped_anywhere_proves_a_bound() -> None:
    problem = facility_location(sites=20, classes=80, seed=4)
    matrix, every = matrix_of(problem), Looks(float("inf"))
    root = take_root(matrix, limit=Watched(problem, every))
    best = search(matrix, policy=problem.plan_policy).found

    bounds = []
    for most in range(0, every.asked, every.asked // 40):
        stopped = take_root(matrix, limit=Watched(problem, Looks(most)))
        assert stopped.bound <= best.cost * (1 + 1e-9)
        if stopped.relaxation is None:
            bounds.append(stopped.bound)
            made = searches.search(stopped, policy=problem.plan_policy)
            assert (made.found.values, made.hit_limit) == (None, "time_limit_s")
    assert len(bounds) > 10
    assert bounds[0] > 0 and max(bounds) > 0.9 * root.bound


def test_an_interrupt_in_the_relaxation_comes_through() -> None:
    problem = facility_location(sites=20, classes=80, seed=4)
    matrix, every = matrix_of(problem), Looks(float("inf"))
    take_root(matrix, limit=Watched(problem, every))

    for most in range(0, every.asked, every.asked // 20):
        with pytest.raises(KeyboardInterrupt):
            take_root(matrix, limit=Watched(problem, Looks(most, interrupt=True)))


def test_whenever_time_ends_there_is_a_plan_with_its_bound() -> None:
    problem = facility_location(sites=20, classes=80, seed=4)
    best = solve_whole(problem)
    assert best.plan is not None

    methods = set()
    for limit_s in (0, 1, 3, 10, 30, 60, 100, 200, 300, 400, 600, 1_000, 3_000, 10_000):
        outcome = solve_whole(within(problem, float(limit_s)), clock=_Ticking())
        assert outcome.plan is not None, outcome.message
        methods.add(outcome.plan.method)
        assert outcome.status is SolveStatus.LIMIT or outcome.plan.hit_limit == ""
        assert check_plan(within(problem, float(limit_s)), outcome.plan) == ()
        assert outcome.bound_usd_per_h <= best.plan.cost.total_usd_per_h * (1 + ROUNDED)
    assert methods == {"greedy", best.plan.method}


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    problem=builders.rich_problems(),
    part=st.sampled_from((0.0, 0.1)),
    limit_s=st.integers(0, 150),
)
def test_whenever_time_ends_what_there_is_is_honest(
    problem: Problem, part: float, limit_s: int
) -> None:
    problem = replace(problem, plan_policy=replace(problem.plan_policy, exposure_part=part))
    best = solve_whole(problem)
    hurried = within(problem, float(limit_s))

    outcome = solve_whole(hurried, clock=_Ticking())

    assert outcome.status is not SolveStatus.FAULT, outcome.message
    if best.plan is None:
        assert outcome.status in (SolveStatus.NO_PLAN, best.status)
        return
    assert outcome.bound_usd_per_h <= best.plan.cost.total_usd_per_h * (1 + ROUNDED) + 1e-6
    if outcome.plan is None:
        assert outcome.status is SolveStatus.NO_PLAN
        assert "time_limit_s" in outcome.message
        return
    assert check_plan(hurried, outcome.plan) == ()
    if outcome.status is SolveStatus.OPTIMAL:
        assert outcome.plan.gap <= problem.plan_policy.gap_limit


def test_without_time_an_earlier_plan_that_fits_is_kept() -> None:
    problem = facility_location(sites=12, classes=40)
    earlier = solve_whole(problem).plan
    assert earlier is not None

    outcome = solve_whole(within(problem, 1.0), clock=_Racing(), start=earlier)

    assert outcome.status is SolveStatus.LIMIT and outcome.plan is not None
    assert (outcome.plan.groups, outcome.plan.shares) == (earlier.groups, earlier.shares)
    assert outcome.plan.gap > 0


def test_without_time_an_earlier_plan_that_fits_no_more_is_not() -> None:
    problem = facility_location(sites=12, classes=40)
    earlier = solve_whole(problem).plan
    assert earlier is not None
    lost = earlier.groups[0].group.site_id
    gone = replace(
        problem,
        fleet=replace(
            problem.fleet,
            sites=tuple(
                replace(s, pools=()) if s.site_id == lost else s for s in problem.fleet.sites
            ),
        ),
    )

    for changed in (replace(problem, lost_sites=(lost,)), gone):
        outcome = solve_whole(changed, clock=_Racing(), start=earlier)
        assert outcome.plan is not None, outcome.message
        assert outcome.plan.method == "greedy"
        assert check_plan(changed, outcome.plan) == ()


def test_without_time_a_limit_that_greed_breaks_leaves_no_plan() -> None:
    too_late = builders.traffic_class(ttft_ms=0.5)
    problem = builders.two_sites(
        classes=[too_late], plan_policy=PlanPolicy(max_shed_basis_points=0)
    )

    outcome = solve_whole(problem, clock=_Racing())

    assert outcome.status is SolveStatus.NO_PLAN
    assert "raise it or start from a plan" in outcome.message and "shed" in outcome.message
