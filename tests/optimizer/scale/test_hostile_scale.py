"""Hostile problems through the searches for large fleets: a clear outcome there as well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from optimizer.milp.scale.solve import solve_at_scale
from optimizer.milp.whole.matrix import take_whole
from optimizer.milp.whole.relaxation import Relaxation
from optimizer.milp.whole.solve import solve_whole
from optimizer.outcome import SolveStatus
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.solve import arcs_at_most, solve
from tests.optimizer import builders as b
from tests.optimizer.hostile import hostile_problems
from tests.optimizer.scale.test_scale import plain
from tests.optimizer.test_hostile import POLICY, is_clear
from tests.optimizer.whole.test_whole import matrix_of


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


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(hostile_problems())
def test_to_the_tree_over_arrays_as_well(problem: Problem) -> None:
    problem = plain(problem)
    found = solve_whole(problem)
    assert is_clear(problem, found)
    assert found.status in (SolveStatus.OPTIMAL, SolveStatus.LIMIT, SolveStatus.INFEASIBLE)


def test_prices_of_a_billion_are_scaled_in_the_tree() -> None:
    """Traffic left out is penalised by up to 10^7 times the dearest column: HiGHS gave up there."""
    problem = b.problem(
        sites=[b.site(pools=[b.pool(count=1, price=1e9)])],
        classes=[b.traffic_class(priority=0), b.traffic_class("d", rate_rps=1e-6)],
        plan_policy=replace(POLICY, shed_usd_per_mtok=1e9),
    )
    found = solve_whole(problem)
    assert found.status is SolveStatus.OPTIMAL and found.plan is not None
    # one replica, which "c" fills: "d" is shed, at $1 800/h, and a billion hides that from solvers
    assert found.bound_usd_per_h == pytest.approx(1e9, rel=1e-5)
    assert found.plan.cost.total_usd_per_h == pytest.approx(1e9, rel=1e-5)


def test_a_problem_without_rows_has_the_empty_plan_in_the_tree() -> None:
    found = solve_whole(b.problem(classes=[]))
    assert found.status is SolveStatus.OPTIMAL and found.plan is not None


def test_what_next_to_no_traffic_breaks_is_seen_by_the_tree() -> None:
    """The limit of its spread is 1e-6 req/s: measured by a coefficient, all at one site kept it."""
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=1e-6, spread_sites=2)])
    matrix = matrix_of(problem)
    whole = take_whole(matrix)
    relaxation = Relaxation(whole, first=np.zeros(0, dtype=np.intp))
    values = np.zeros(whole.columns)
    values[matrix.horizon[0].column("x")[0]] = 1e-6
    assert relaxation.breaks(values)


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
