"""Searches over few columns: what they prove holds for all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fleets import facility_location
from optimizer.milp.arrays import Matrix
from optimizer.milp.stopping import never
from optimizer.milp.whole import search as searches
from optimizer.milp.whole.core import Budget, Core, _only_uses, _tied
from optimizer.milp.whole.matrix import Whole, take_whole
from optimizer.milp.whole.relaxation import INF, Relaxation, Relaxed
from optimizer.problem import Problem
from tests.optimizer import builders
from tests.optimizer.whole.test_whole import Looks, matrix_of, search

EXACT = Budget(gap=0.0, nodes=100_000, is_over=never)


def bare(matrix: Matrix) -> tuple[Whole, Core, Relaxed]:
    """A core whose relaxation was given no traffic column to start with."""
    whole = take_whole(matrix)
    relaxation = Relaxation(whole, first=np.zeros(0, dtype=np.intp))
    root = relaxation.solve(whole.lower, whole.upper)
    return whole, Core(relaxation, root, seed=0), root


def optimum(matrix: Matrix, problem: Problem) -> float:
    """What the best point costs (USD/h), inf if there is none."""
    policy = replace(problem.plan_policy, gap_limit=1e-7)
    return search(matrix, policy=policy, is_over=never).found.cost


@pytest.mark.parametrize("seed", range(6))
def test_escapes_prove_a_bound_and_then_give_the_optimum(seed: int) -> None:
    problem = facility_location(sites=12, classes=60, seed=seed, gap_limit=1e-7)
    matrix = matrix_of(problem)
    best = optimum(matrix, problem)
    _, core, _ = bare(matrix)

    narrow = core.search(-INF, EXACT, guess=None)
    assert not core.is_everything

    bounds = [narrow.bound, *(core.search(-INF, EXACT, guess=None).bound for _ in range(30))]
    assert bounds[-1] == pytest.approx(best, rel=1e-6)
    assert all(one <= best * (1 + 1e-7) for one in bounds)


def test_some_escape_is_used_where_columns_are_few() -> None:
    """Without one the test above says nothing."""
    matrix = matrix_of(facility_location(sites=12, classes=60, seed=0, gap_limit=1e-7))
    _, core, _ = bare(matrix)

    first, second = (core.search(-INF, EXACT, guess=None) for _ in range(2))

    assert second.bound > first.bound * (1 + 1e-6)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(problem=builders.rich_problems(), width=st.sampled_from((-INF, 0.0, 0.1)))
def test_no_row_is_forgotten_by_an_escape(problem: Problem, width: float) -> None:
    matrix = matrix_of(problem)
    best = optimum(matrix, problem)
    _, core, root = bare(matrix)
    if root.is_empty:
        assert best == INF
        return

    found = core.search(width, EXACT, guess=None)

    assert found.bound <= best + 1e-6 * max(1.0, abs(best))


@pytest.mark.parametrize("seed", range(4))
def test_a_cutoff_keeps_every_better_point(seed: int) -> None:
    problem = facility_location(sites=12, classes=60, seed=seed, gap_limit=1e-7)
    matrix = matrix_of(problem)
    best = optimum(matrix, problem)

    _, above, _ = bare(matrix)
    above.fix(best * 1.001)
    _, below, _ = bare(matrix)
    below.fix(best * 0.999)

    assert above.search(INF, EXACT, guess=None).bound == pytest.approx(best, rel=1e-6)
    assert below.search(INF, EXACT, guess=None).bound >= best * (1 - 1e-6)


def test_a_site_of_one_replica_is_open_when_it_has_it() -> None:
    matrix = matrix_of(facility_location(sites=12, classes=60, seed=1))
    whole = take_whole(matrix)
    p = matrix.horizon[0]

    tied = _tied(whole)

    entry = whole.start[tied]
    ends = {
        tuple(sorted(pair)) for pair in zip(whole.index[entry], whole.index[entry + 1], strict=True)
    }
    assert ends == set(zip(p.column("n").tolist(), p.column("open").tolist(), strict=True))


@pytest.mark.parametrize("count", [1, 2])
def test_a_site_that_may_hold_two_kinds_is_not_tied_to_one(count: int) -> None:
    """Nor where only one of them stands alone: more of the other need the site open too."""
    problem = facility_location(sites=12, classes=60, seed=1)
    two = tuple(
        replace(s, pools=(*s.pools, replace(s.pools[0], pool_id="q", count=count)))
        if s.pools
        else s
        for s in problem.fleet.sites
    )
    problem = replace(problem, fleet=replace(problem.fleet, sites=two))

    assert len(_tied(take_whole(matrix_of(problem)))) == 0


def test_a_column_that_lifts_a_mean_is_never_left_out() -> None:
    """Traffic on the better variant makes room for the other in the class's mean quality."""
    problem = builders.problem(
        variants=[builders.variant("v", quality=0.9), builders.variant("w", quality=0.5)],
        points=[builders.point("v"), builders.point("w")],
        services={"chat": ["v", "w"]},
        classes=[builders.traffic_class(mean_quality_floor=0.7)],
    )
    matrix = matrix_of(problem)
    p = matrix.horizon[0]
    named = [p.tables.group_id(int(at)) for at in p.arcs.group]

    uses = _only_uses(take_whole(matrix))[p.column("x")]

    assert dict(zip(named, uses.tolist(), strict=True)) == {"a/p/v/x1": False, "a/p/w/x1": True}


@pytest.mark.parametrize("seed", range(4))
def test_widening_ends_at_the_optimum(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = facility_location(sites=12, classes=60, seed=seed, gap_limit=1e-6)
    matrix = matrix_of(problem)
    at_once = search(matrix, policy=problem.plan_policy, is_over=never)

    monkeypatch.setattr(searches, "_FEW", 0)
    monkeypatch.setattr(searches, "_WIDTHS", (-INF, 0.0, 0.1))
    widened = search(matrix, policy=problem.plan_policy, is_over=never)

    assert widened.hit_limit == ""
    assert widened.found.cost == pytest.approx(at_once.found.cost, rel=1e-6)
    assert widened.found.bound <= widened.found.cost


def test_an_interrupt_waits_for_the_point_the_solver_has() -> None:
    problem = facility_location(sites=20, classes=80, seed=4, gap_limit=0.0)
    matrix = matrix_of(problem)

    for looks in range(2, 200):
        _, core, _ = bare(matrix)
        budget = replace(EXACT, is_over=Looks(looks, interrupt=True))
        answer = core.search(INF, budget, guess=None)
        if answer.was_interrupted and answer.values is not None:
            return
    pytest.fail("no interrupt came while the solver had a point")


def test_traffic_that_must_be_served_is_not_left_out_at_a_price() -> None:
    """The one price at which the relaxation may leave traffic out is less than a whole replica for
    3 mrps costs a request/s: where nothing is left out of the columns, nothing may escape.
    """
    dear = builders.site(pools=[builders.pool(price=1_000.0)])
    problem = builders.problem(
        sites=[dear],
        classes=[builders.traffic_class(rate_rps=0.003)],
        plan_policy=replace(builders.DEFAULT_POLICY, max_shed_basis_points=0),
    )

    assert optimum(matrix_of(problem), problem) == pytest.approx(1_000.0, rel=1e-3)
