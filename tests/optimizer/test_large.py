"""Which problems go to the large search, and that one of them comes back judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from benchmarks.fleets import tier
from optimizer.arcs import find_arcs
from optimizer.milp.rounds import METHOD
from optimizer.milp.scale.solve import PASSES_SPENT
from optimizer.milp.stopping import INTERRUPT
from optimizer.outcome import SolveStatus
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.solve import PARTED_ARCS, arcs_at_most, solve
from optimizer.verify import check_plan
from sites.clock import ManualClock, SystemClock
from tests.optimizer import builders as b


@settings(max_examples=30, deadline=None)
@given(b.rich_problems())
def test_no_problem_has_more_arcs_than_counted(problem: Problem) -> None:
    assert len(find_arcs(problem).arcs) <= arcs_at_most(problem)


class _Leaping(ManualClock):
    """A clock that is an hour on at every look."""

    def monotonic_ms(self) -> int:
        self.advance_ms(3_600_000)
        return super().monotonic_ms()


def test_where_the_large_search_finds_none_the_ordinary_says_why_if_there_is_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("optimizer.solve.PARTED_ARCS", 0)
    floor = GroupBound(site_id="a", variant_id="v", fewest=9)
    problem = b.problem(plan_policy=replace(b.DEFAULT_POLICY, replica_bounds=(floor,)))

    in_time, late = solve(problem), solve(problem, clock=_Leaping())

    assert in_time.status is SolveStatus.INFEASIBLE and in_time.relaxations
    assert late.status is SolveStatus.NO_PLAN
    assert "replica floor" in late.message


def test_in_haste_a_smaller_problem_goes_to_the_large_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = b.problem()
    monkeypatch.setattr("optimizer.solve.HASTY_ARCS", 0)
    monkeypatch.setattr("optimizer.solve.HASTY_ARCS_PER_S", arcs_at_most(problem))

    def method(limit_s: float) -> str:
        policy = replace(problem.plan_policy, time_limit_s=limit_s)
        plan = solve(replace(problem, plan_policy=policy)).plan
        assert plan is not None
        return plan.method.split(":")[0]

    assert [method(2.0), method(0.5)] == [METHOD, "scale"]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(b.rich_problems())
def test_begun_at_a_large_searchs_plan_the_ordinary_one_ends_where_it_does_alone(
    problem: Problem,
) -> None:
    alone = solve(problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optimizer.solve.SCOUTED_ARCS", 0)
        begun = solve(problem)

    assert (begun.plan is None) == (alone.plan is None)
    assert alone.status is begun.status
    if alone.plan is not None and begun.plan is not None:
        assert check_plan(problem, begun.plan) == ()
        # a finished plan is in whole basis points
        assert begun.plan.cost.total_usd_per_h == pytest.approx(
            alone.plan.cost.total_usd_per_h, rel=1e-3, abs=1e-3
        )
        assert begun.arcs == alone.arcs


def test_an_interrupt_while_a_large_search_goes_ahead_ends_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = b.problem()
    found = solve(problem)
    assert found.plan is not None
    stopped = replace(
        found, status=SolveStatus.LIMIT, plan=replace(found.plan, hit_limit=INTERRUPT), arcs=()
    )
    monkeypatch.setattr("optimizer.solve.SCOUTED_ARCS", 0)
    monkeypatch.setattr("optimizer.solve.solve_at_scale", lambda *_, **__: stopped)

    ended = solve(problem)

    assert ended.plan == stopped.plan
    assert ended.arcs == found.arcs


def test_prices_outlive_an_ordinary_search_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = b.problem()
    monkeypatch.setattr("optimizer.solve.HASTY_ARCS", 0)
    monkeypatch.setattr("optimizer.solve.HASTY_ARCS_PER_S", 0)
    large = solve(problem)
    assert large.plan is not None and large.prices is not None
    ended = replace(
        large, status=SolveStatus.LIMIT, plan=replace(large.plan, hit_limit=PASSES_SPENT)
    )
    monkeypatch.setattr("optimizer.solve.solve_at_scale", lambda *_, **__: ended)

    went_on = solve(problem)

    assert went_on.status is SolveStatus.OPTIMAL and went_on.arcs
    assert went_on.prices == large.prices


@pytest.mark.slow
def test_two_hundred_sites_get_a_checked_plan_with_its_bound(data_dir: Path) -> None:
    problem = tier("M", data=data_dir)
    problem = replace(problem, plan_policy=replace(problem.plan_policy, time_limit_s=60.0))

    outcome = solve(problem, clock=SystemClock())

    assert arcs_at_most(problem) > PARTED_ARCS
    assert outcome.plan is not None, outcome.message
    assert outcome.status in (SolveStatus.OPTIMAL, SolveStatus.LIMIT)
    assert 0 < outcome.bound_usd_per_h <= outcome.plan.cost.total_usd_per_h
    assert check_plan(problem, outcome.plan) == ()
