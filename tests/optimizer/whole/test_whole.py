"""The search for one large component against published optima and against the plain search."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from benchmarks.fleets import CFLP_INSTANCES, cflp, facility_location
from optimizer.milp.arrays import Matrix, compile_arrays
from optimizer.milp.stopping import never
from optimizer.milp.whole import relaxation as relaxations
from optimizer.milp.whole import search as searches
from optimizer.milp.whole.ascent import first_columns
from optimizer.milp.whole.limit import Limit
from optimizer.milp.whole.matrix import take_whole
from optimizer.milp.whole.relaxation import Relaxation
from optimizer.milp.whole.search import Searched, take_root
from optimizer.milp.whole.solve import solve_whole
from optimizer.outcome import SolveStatus
from optimizer.policy import PlanPolicy
from optimizer.problem import Problem
from optimizer.solve import solve
from optimizer.sweep import Sweep
from optimizer.tabulate import tabulate
from optimizer.verify import check_plan
from tests.optimizer import builders

RELATIVE = 1e-6
ROUNDED = 1e-4
"""What whole basis points may cost a plan."""


def matrix_of(problem: Problem) -> Matrix:
    """The problem's matrix over all its arcs."""
    tables = tabulate(problem)
    return compile_arrays(tables, Sweep(tables).table())


class Watched(Limit):
    """A limit whose every part is over when a callable says so."""

    def __init__(self, problem: Problem, is_over: Callable[[], bool]) -> None:
        super().__init__(problem, None)
        self._is_over = is_over

    def is_over(self) -> bool:
        return self._is_over()

    is_part_over = is_spent = is_over


def search(matrix: Matrix, *, policy: PlanPolicy, is_over: Callable[[], bool] = never) -> Searched:
    """A matrix searched from its root on."""
    limit = Watched(matrix.horizon[0].tables.problem, is_over)
    return searches.search(take_root(matrix, limit=limit), policy=policy, limit=limit)


@pytest.mark.parametrize("name", CFLP_INSTANCES)
def test_published_optimum(data_dir: Path, name: str) -> None:
    folder = data_dir / "cflp"
    with (folder / "optima.csv").open(encoding="utf-8", newline="") as table:
        optima = {row["instance"]: float(row["optimum"]) for row in csv.DictReader(table)}
    problem = cflp(folder / f"{name}.txt")

    made = search(matrix_of(problem), policy=problem.plan_policy, is_over=never)

    assert made.hit_limit == ""
    assert made.found.cost == pytest.approx(optima[name], rel=RELATIVE)
    assert made.found.bound == pytest.approx(optima[name], rel=RELATIVE)


def test_a_whole_plan_costs_the_optimum_but_for_rounding(data_dir: Path) -> None:
    problem = cflp(data_dir / "cflp" / "cap71.txt")

    outcome = solve_whole(problem)

    assert outcome.status is SolveStatus.OPTIMAL, outcome.message
    assert outcome.plan is not None
    assert outcome.plan.cost.total_usd_per_h == pytest.approx(932_615.75, rel=ROUNDED)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(problem=builders.rich_problems())
def test_random_problems_cost_what_the_plain_search_says(problem: Problem) -> None:
    problem = replace(problem, plan_policy=replace(problem.plan_policy, gap_limit=1e-6))
    plain, whole = solve(problem), solve_whole(problem)

    assert whole.status is not SolveStatus.FAULT, whole.message
    assert (whole.plan is None) == (plain.plan is None)
    if whole.plan is None or plain.plan is None:
        assert whole.status is plain.status
        return
    assert check_plan(problem, whole.plan) == ()
    # a plan whose basis points round to less than the optimum lowers its own bound to its cost
    ours = min(whole.bound_usd_per_h, plain.plan.cost.total_usd_per_h)
    theirs = min(plain.bound_usd_per_h, whole.plan.cost.total_usd_per_h)
    assert ours == pytest.approx(theirs, rel=5e-6, abs=1e-6)


def test_pricing_and_lazy_rows_give_the_optimum_of_everything() -> None:
    matrix = matrix_of(facility_location(sites=12, classes=40, seed=3))
    whole = take_whole(matrix)
    everything = matrix.horizon[0].column("x").astype(np.intp)

    first = first_columns(matrix, upper=whole.upper).columns
    few = Relaxation(whole, first=first).solve(whole.lower, whole.upper)
    none = Relaxation(whole, first=everything[:0]).solve(whole.lower, whole.upper)
    every = Relaxation(whole, first=everything).solve(whole.lower, whole.upper)

    assert few.bound == pytest.approx(every.bound, rel=1e-9)
    assert none.bound == pytest.approx(every.bound, rel=1e-9)


def test_the_same_problem_gives_the_same_plan() -> None:
    problem = facility_location(sites=10, classes=40, seed=1)

    first, second = solve_whole(problem), solve_whole(problem)

    assert first.plan is not None and second.plan is not None
    assert first.plan.plan_digest == second.plan.plan_digest
    assert first.nodes == second.nodes


def test_an_earlier_plan_is_a_first_guess() -> None:
    problem = facility_location(sites=10, classes=40, seed=2)
    earlier = solve_whole(problem).plan
    assert earlier is not None

    again = solve_whole(problem, start=earlier)

    assert again.plan is not None
    assert again.plan.cost.total_usd_per_h == pytest.approx(
        earlier.cost.total_usd_per_h, rel=problem.plan_policy.gap_limit
    )


def test_spent_nodes_leave_a_plan_with_its_bound() -> None:
    problem = facility_location(sites=20, classes=60, seed=2, gap_limit=0.0)
    problem = replace(problem, plan_policy=replace(problem.plan_policy, node_limit=1))
    best = solve_whole(facility_location(sites=20, classes=60, seed=2, gap_limit=1e-6))

    outcome = solve_whole(problem)

    assert outcome.status is SolveStatus.LIMIT and outcome.plan is not None
    assert outcome.plan.hit_limit == "node_limit"
    assert best.plan is not None
    cheapest = best.plan.cost.total_usd_per_h
    assert outcome.bound_usd_per_h <= cheapest * (1 + ROUNDED)
    assert outcome.plan.cost.total_usd_per_h >= best.bound_usd_per_h * (1 - ROUNDED)


def test_the_time_limit_changes_nothing_without_a_clock() -> None:
    problem = facility_location(sites=20, classes=80, seed=4)
    hurried = replace(problem, plan_policy=replace(problem.plan_policy, time_limit_s=1e-6))

    first, second = solve_whole(problem), solve_whole(hurried)

    assert first.plan is not None and second.plan is not None
    assert second.plan.hit_limit == ""
    assert (first.nodes, first.plan.groups, first.plan.shares) == (
        second.nodes,
        second.plan.groups,
        second.plan.shares,
    )


class Looks:
    """Time that is over, or an interrupt that comes, at the look after so many."""

    def __init__(self, most: float, *, interrupt: bool = False) -> None:
        self._most, self._interrupt = most, interrupt
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        if self._interrupt and self.asked > self._most:
            raise KeyboardInterrupt
        return self.asked > self._most


def test_what_time_cuts_short_says_so() -> None:
    problem = facility_location(sites=20, classes=80, seed=4)
    matrix, every = matrix_of(problem), Looks(float("inf"))
    whole = search(matrix, policy=problem.plan_policy, is_over=every)
    assert whole.found.values is not None and whole.hit_limit == ""
    assert every.asked > 10

    for most in (*range(0, every.asked, every.asked // 30), every.asked):
        looks = Looks(most)
        made = search(matrix, policy=problem.plan_policy, is_over=looks)
        assert (made.hit_limit == "time_limit_s") == (looks.asked > most)
        assert made.found.bound <= whole.found.cost * (1 + 1e-9)
        if made.hit_limit == "":
            assert made.found.nodes == whole.found.nodes
            assert made.found.values is not None
            assert np.array_equal(made.found.values, whole.found.values)


def test_an_interrupt_keeps_the_best_point() -> None:
    problem = facility_location(sites=20, classes=80, seed=4)
    matrix, every = matrix_of(problem), Looks(float("inf"))
    best = search(matrix, policy=problem.plan_policy, is_over=every).found

    late = Looks(every.asked - 1, interrupt=True)
    made = search(matrix, policy=problem.plan_policy, is_over=late)

    assert made.hit_limit == "interrupt"
    assert made.found.bound <= best.cost * (1 + 1e-9)
    assert best.cost * (1 - 1e-4) <= made.found.cost < float("inf")
    with pytest.raises(KeyboardInterrupt):
        search(matrix, policy=problem.plan_policy, is_over=Looks(0, interrupt=True))


def test_an_interrupt_inside_the_solver_keeps_what_the_solver_has() -> None:
    problem = facility_location(sites=20, classes=80, seed=4, gap_limit=0.0)
    matrix, every = matrix_of(problem), Looks(float("inf"))
    best = search(matrix, policy=problem.plan_policy, is_over=every).found

    kept = 0
    for most in range(1, every.asked, every.asked // 40):
        try:
            looks = Looks(most, interrupt=True)
            made = search(matrix, policy=problem.plan_policy, is_over=looks)
        except KeyboardInterrupt:
            continue
        kept += 1
        assert made.hit_limit == "interrupt"
        assert made.found.bound <= best.cost * (1 + 1e-9) <= made.found.cost * (1 + 2e-9)
    assert kept > 0


def test_nothing_can_be_served() -> None:
    too_late = builders.traffic_class(ttft_ms=0.5)
    outcome = solve_whole(builders.two_sites(classes=[too_late]))

    assert outcome.plan is not None, outcome.message
    assert [one.basis_points for one in outcome.plan.shed] == [10_000]
    assert outcome.plan.shares == ()


def test_contradictory_limits_are_infeasible() -> None:
    too_late = builders.traffic_class(ttft_ms=0.5)
    problem = builders.two_sites(
        classes=[too_late], plan_policy=PlanPolicy(max_shed_basis_points=0)
    )

    assert solve_whole(problem).status is SolveStatus.INFEASIBLE


def test_the_penalty_of_traffic_left_out_rises_where_it_is_too_low(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix = matrix_of(facility_location(sites=12, classes=40, seed=3))
    whole = take_whole(matrix)
    first = first_columns(matrix, upper=whole.upper).columns
    right = Relaxation(whole, first=first).solve(whole.lower, whole.upper)

    monkeypatch.setattr(relaxations, "_penalty", lambda _: 0.01)
    low = Relaxation(whole, first=first).solve(whole.lower, whole.upper)

    assert low.artificial <= relaxations.ARTIFICIAL
    assert low.bound == pytest.approx(right.bound, rel=1e-9)
