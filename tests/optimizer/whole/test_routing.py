"""Which ordinary problems the tree over arrays takes, and that nothing else about them changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.fleets import facility_location
from optimizer.arcs import find_arcs
from optimizer.explain import explain_plan
from optimizer.milp.rounds import METHOD as PLAIN
from optimizer.milp.whole.solve import METHOD as TREE
from optimizer.milp.worth import find_worth
from optimizer.outcome import SolveStatus
from optimizer.problem import Problem
from optimizer.solve import is_of_sites, solve
from optimizer.verify import check_plan

ROUNDED = 1e-4


def question(problem: Problem) -> bool:
    """Whether sites are the question."""
    return is_of_sites(problem, find_arcs(problem).arcs)


def method(problem: Problem) -> str:
    """The method of the plan that solve makes."""
    plan = solve(problem).plan
    assert plan is not None
    return plan.method


def test_priced_sites_go_to_the_tree_with_the_same_outcome() -> None:
    problem = facility_location(sites=12, classes=60, seed=1)
    candidates = find_arcs(problem)
    outcome = solve(problem)

    assert question(problem)
    assert outcome.status is SolveStatus.OPTIMAL and outcome.plan is not None
    assert outcome.plan.method == TREE
    assert (outcome.arcs, outcome.pruned) == (candidates.arcs, candidates.pruned)
    assert check_plan(problem, outcome.plan) == ()


def freed(problem: Problem, count: int) -> Problem:
    """The last sites, so many, without a fixed price."""
    sites = problem.fleet.sites
    free = tuple(replace(site, fixed_price_usd_per_h=0.0) for site in sites[-count:])
    return replace(problem, fleet=replace(problem.fleet, sites=(*sites[:-count], *free)))


def test_where_half_the_sites_have_no_price_the_plain_search_goes_on() -> None:
    problem = facility_location(sites=12, classes=60, seed=1)

    assert question(freed(problem, 5))
    assert method(freed(problem, 5)) == TREE
    assert not question(freed(problem, 6))
    assert method(freed(problem, 6)) == PLAIN


def test_a_large_fleet_whose_campuses_have_neither_hardware_nor_price_goes_to_the_tree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LARGE_ARCS", "PARTED_ARCS", "HASTY_ARCS", "HASTY_ARCS_PER_S"):
        monkeypatch.setattr(f"optimizer.solve.{name}", 0)
    problem = facility_location(sites=12, classes=60, seed=1)

    assert {s.fixed_price_usd_per_h for s in problem.fleet.sites if not s.pools} == {0.0}
    assert method(problem) == TREE
    assert method(freed(problem, 1)) == TREE


def test_protected_classes_and_few_arcs_stay_with_the_plain_search() -> None:
    problem = facility_location(sites=12, classes=60, seed=1)
    first, *others = problem.classes
    protected = replace(problem, classes=(replace(first, protected=True), *others))

    assert not question(protected)
    assert not question(facility_location(sites=6, classes=20, seed=1))


def test_what_cannot_be_served_is_told_with_ways_out() -> None:
    problem = facility_location(sites=12, classes=60, seed=1)
    first, *others = problem.classes
    huge = replace(problem, classes=(replace(first, rate_rps=(1e6,)), *others))
    outcome = solve(huge)

    assert question(huge)
    assert outcome.status is SolveStatus.INFEASIBLE
    assert outcome.relaxations


def test_the_plan_of_the_tree_explains_itself() -> None:
    problem = facility_location(sites=12, classes=60, seed=1)
    outcome = solve(problem)
    assert outcome.plan is not None

    told = explain_plan(problem, outcome.plan, arcs=outcome.arcs, pruned=outcome.pruned)

    assert [one.class_id for one in told.classes] == sorted(c.class_id for c in problem.classes)
    assert all(sum(c.basis_points for c in one.choices) == 10_000 for one in told.classes)
    assert all(len(one.choices) + len(one.rejections) >= 12 for one in told.classes)
    assert any(one.usd_per_h > 0 for one in find_worth(problem, outcome.arcs))
