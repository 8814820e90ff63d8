"""The formulation against brute force on tiny problems, and every plan against its bound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from optimizer.arcs import find_arcs
from optimizer.costs import shed_price_usd_per_h
from optimizer.greedy import greedy_plan, lone_bound_usd_per_h
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.reach import Reach
from optimizer.solve import solve
from optimizer.verify import check_plan
from sites.units import WHOLE_BP
from tests.optimizer import builders as b
from tests.optimizer.optima import optimum_usd_per_h
from tests.optimizer.oracle import cheapest_usd_per_h

ROUNDING = 1e-3
"""Relative: what rounding every share to whole basis points may change."""

ROUNDED_BP = 2
"""Basis points of a class that a plan of whole ones may serve beyond a limit."""


def rounded_usd_per_h(problem: Problem) -> float:
    """What rounding may change of what is shed: limits have the slack of whole basis points, and a
    basis point of a class may cost hundreds of times more than serving it.
    """
    reach = Reach(problem)
    shed = sum(shed_price_usd_per_h(reach, one) for one in reach.classes)
    return ROUNDED_BP / WHOLE_BP * shed + 1e-6


@settings(max_examples=60, deadline=None)
@given(b.small_problems(max_sites=2, max_classes=3, max_count=2))
def test_the_formulation_finds_what_brute_force_finds(problem: Problem) -> None:
    assert optimum_usd_per_h(problem) == pytest.approx(
        cheapest_usd_per_h(problem), rel=1e-6, abs=1e-6
    )


@settings(max_examples=80, deadline=None)
@given(b.rich_problems(max_sites=2, max_classes=3, max_count=2))
def test_with_every_family_on_the_formulation_finds_what_brute_force_finds(
    problem: Problem,
) -> None:
    assert optimum_usd_per_h(problem) == pytest.approx(
        cheapest_usd_per_h(problem), rel=1e-6, abs=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(b.rich_problems(max_sites=3, max_classes=4))
def test_with_every_family_on_a_solved_plan_is_clean_and_costs_what_the_solver_said(
    problem: Problem,
) -> None:
    outcome = solve(problem)
    assert outcome.status is SolveStatus.OPTIMAL, outcome.message
    assert outcome.plan is not None
    assert check_plan(problem, outcome.plan) == ()
    assert outcome.plan.cost.total_usd_per_h == pytest.approx(
        optimum_usd_per_h(problem), rel=ROUNDING, abs=rounded_usd_per_h(problem)
    )


@settings(max_examples=60, deadline=None)
@given(b.rich_problems(max_sites=3, max_classes=4))
def test_with_every_family_on_the_greedy_plan_is_clean_and_no_cheaper(problem: Problem) -> None:
    arcs = find_arcs(problem).arcs
    plan = greedy_plan(problem, arcs)
    assert check_plan(problem, plan) == ()
    optimum = optimum_usd_per_h(problem)
    assert lone_bound_usd_per_h(problem, arcs) <= optimum + 1e-6
    assert optimum <= plan.cost.total_usd_per_h * (1 + ROUNDING) + rounded_usd_per_h(problem)


@settings(max_examples=60, deadline=None)
@given(b.small_problems(max_sites=3, max_classes=5))
def test_a_solved_plan_is_clean_optimal_and_costs_what_the_solver_said(problem: Problem) -> None:
    outcome = solve(problem)
    assert outcome.status is SolveStatus.OPTIMAL, outcome.message
    assert outcome.plan is not None
    assert check_plan(problem, outcome.plan) == ()
    assert outcome.plan.cost.total_usd_per_h == pytest.approx(
        optimum_usd_per_h(problem), rel=ROUNDING, abs=rounded_usd_per_h(problem)
    )


@settings(max_examples=60, deadline=None)
@given(b.small_problems(max_sites=3, max_classes=5))
def test_the_optimum_lies_between_the_lone_bound_and_the_greedy_plan(problem: Problem) -> None:
    arcs = find_arcs(problem).arcs
    optimum = optimum_usd_per_h(problem)
    assert lone_bound_usd_per_h(problem, arcs) <= optimum + 1e-6
    assert optimum <= greedy_plan(problem, arcs).cost.total_usd_per_h * (1 + ROUNDING) + 1e-6
