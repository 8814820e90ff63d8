"""Hostile problems through the searches for large fleets: a clear outcome there as well."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings

from optimizer.milp.scale.solve import solve_at_scale
from optimizer.milp.whole.solve import solve_whole
from optimizer.outcome import SolveStatus
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.solve import arcs_at_most, solve
from tests.optimizer import builders as b
from tests.optimizer.hostile import hostile_problems
from tests.optimizer.scale.test_scale import plain
from tests.optimizer.test_hostile import POLICY, is_clear


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(hostile_problems())
def test_figures_at_the_ends_of_what_facts_allow_end_in_a_clear_outcome(problem: Problem) -> None:
    problem = plain(problem)
    assume(arcs_at_most(problem) > 0)
    found = solve_at_scale(problem)
    assert is_clear(problem, found)
    assert found.status is not SolveStatus.FAULT
    if found.plan is not None:
        again = solve_at_scale(problem, start=found.plan, known=found.prices)
        assert is_clear(problem, again)
        assert again.status in (SolveStatus.OPTIMAL, SolveStatus.LIMIT)


def test_a_floor_that_no_move_may_reach_is_no_plan() -> None:
    """What stood before was handed to HiGHS as a first guess below what has to stand."""
    bound = GroupBound(site_id="a", variant_id="v", fewest=3)
    policy = replace(POLICY, move_limit_replicas=0, replica_bounds=(bound,), exposure_part=0.1)
    problem = b.problem(classes=[b.traffic_class(protected=True)], plan_policy=policy)
    found = solve_at_scale(problem)
    assert found.status is SolveStatus.NO_PLAN
    assert "replica floor is 0 replicas, limit 3 replicas" in found.message


def test_a_budget_may_be_small_beside_what_an_arc_would_cost() -> None:
    """10^6 req/s of 1 000 tokens at $10^9/kWh cost 3 x 10^15 USD/h, more than HiGHS takes as a
    coefficient.
    """
    problem = b.problem(
        sites=[b.site(budget_w=1e12, pue=10.0, supplies=[b.supply(limit_w=1e12, price=1e9)])],
        classes=[b.traffic_class(rate_rps=1e6, output_tokens=1e3), b.traffic_class("d")],
        budgets={"t": 0.0},
    )
    found = solve_at_scale(problem)
    assert is_clear(problem, found)
    assert found.plan is not None
    assert [one.basis_points for one in found.plan.shed] == [10_000, 10_000]


@pytest.mark.parametrize("fixed_price", [0.0, 1.0])
def test_a_fleet_of_any_size_without_demand_has_the_empty_plan(
    fixed_price: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LARGE_ARCS", "PARTED_ARCS", "HASTY_ARCS", "HASTY_ARCS_PER_S"):
        monkeypatch.setattr(f"optimizer.solve.{name}", 0)
    sites = [b.site(fixed_price=fixed_price)]
    found = solve(b.problem(sites=sites, classes=[b.traffic_class(rate_rps=0.0)]))
    assert found.status is SolveStatus.OPTIMAL and found.plan is not None
    assert found.plan.cost.total_usd_per_h == 0.0


def test_a_floor_under_replicas_nobody_can_place_is_infeasible_to_the_tree_as_well() -> None:
    bound = GroupBound(site_id="b", variant_id="v", fewest=1)
    sites = [b.site("a", fixed_price=1.0), b.site("b", pools=[], fixed_price=1.0)]
    policy = replace(POLICY, replica_bounds=(bound,))
    found = solve_whole(b.problem(sites=sites, plan_policy=policy))
    assert found.status is SolveStatus.INFEASIBLE


def test_a_bound_below_nothing_is_still_searched_to_its_gap() -> None:
    """Where drawing power is paid for, a part of the bound is no gap until its sign is gone."""
    sites = [b.site(i, budget_w=900.0, supplies=[b.supply(price=-20.0)]) for i in "ab"]
    problem = b.problem(
        sites=sites,
        links=[b.link("a", "b")],
        markets=[b.market(accesses={"a": 5.0, "b": 20.0})],
        plan_policy=replace(POLICY, gap_limit=1e-6),
    )
    found = solve_at_scale(problem)
    assert is_clear(problem, found)
    assert found.bound_usd_per_h < 0
