"""Rounded rows and sites alone at prices: they hold for every whole point, and bounds rise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from benchmarks.fleets import facility_location
from optimizer.milp.whole.ascent import first_columns
from optimizer.milp.whole.matrix import NewRow, joined, take_whole
from optimizer.milp.whole.relaxation import INF, Relaxation
from optimizer.milp.whole.rounding import Rounding
from optimizer.problem import Problem
from optimizer.tables import Floats
from tests.optimizer import builders
from tests.optimizer.whole.test_whole import matrix_of, search


def rounded(problem: Problem, rounds: int = 5) -> tuple[float, float, list[NewRow]]:
    """The relaxation's bound without and with rounded rows, and these."""
    matrix = matrix_of(problem)
    whole = take_whole(matrix)
    first = first_columns(matrix, upper=whole.upper).columns
    relaxation, rows = Relaxation(whole, first=first), list[NewRow]()
    plain = relaxed = relaxation.solve(whole.lower, whole.upper)
    for _ in range(rounds):
        new = Rounding(relaxation.groups, whole.upper).broken(relaxed.values)
        if relaxed.is_empty or not new:
            break
        rows += new
        relaxation.join(new)
        relaxed = relaxation.solve(whole.lower, whole.upper)
    return plain.bound, relaxed.bound, rows


def best(problem: Problem) -> tuple[float, Floats | None]:
    """The cost of the best point, and it."""
    policy = replace(problem.plan_policy, gap_limit=1e-7)
    found = search(matrix_of(problem), policy=policy).found
    return found.cost, found.values


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(problem=builders.rich_problems())
def test_the_best_point_keeps_every_rounded_row(problem: Problem) -> None:
    _, bound, rows = rounded(problem)
    cost, values = best(problem)

    assert bound <= cost + 1e-6 * max(1.0, abs(cost)) or cost == INF
    for row in rows if values is not None else ():
        scale = float(np.abs(row.value).max())
        assert values is not None
        assert row.value @ values[row.index] >= row.least - 1e-6 * max(1.0, scale)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ratio", [1.5, 2.0, 5.0])
def test_rounded_rows_lift_the_bound_and_never_above_the_optimum(seed: int, ratio: float) -> None:
    problem = facility_location(sites=12, classes=120, seed=seed, ratio=ratio)
    plain, bound, rows = rounded(problem)
    cost, values = best(problem)

    assert plain <= bound <= cost * (1 + 1e-7)
    assert values is not None
    for row in rows:
        assert row.value @ values[row.index] >= row.least - 1e-6


def test_rounded_rows_close_half_the_gap_where_throughput_is_short() -> None:
    """Without them the tests above would hold for no rows at all."""
    problem = facility_location(sites=12, classes=120, seed=0, ratio=2.0)
    plain, bound, rows = rounded(problem, rounds=20)
    cost, _ = best(problem)

    assert len(rows) > 0
    assert bound - plain >= 0.3 * (cost - plain)


def test_rows_that_join_are_held_by_row_and_by_column() -> None:
    whole = take_whole(matrix_of(facility_location(sites=6, classes=20, seed=1)))
    row = NewRow(index=np.array([3, 1]), value=np.array([2.0, -1.0]), least=0.5)

    more = joined(whole, [row])

    assert (more.rows, more.row_lower[-1], more.row_upper[-1]) == (whole.rows + 1, 0.5, INF)
    assert more.index[-2:].tolist() == [3, 1] and more.value[-2:].tolist() == [2.0, -1.0]
    for column, value in ((3, 2.0), (1, -1.0)):
        entry = slice(more.column_start[column], more.column_start[column + 1])
        at = np.flatnonzero(more.row_of[entry] == whole.rows)
        assert more.value_of[entry][at].tolist() == [value]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(problem=builders.rich_problems())
def test_sites_alone_prove_no_more_than_the_best_point(problem: Problem) -> None:
    """At any prices, those of a relaxation with hardly a column included."""
    cost, _ = best(problem)
    whole = take_whole(matrix_of(problem))
    relaxation = Relaxation(whole, first=np.zeros(0, dtype=np.intp))
    relaxed = relaxation.solve(whole.lower, whole.upper)

    assert relaxed.bound <= cost + 1e-6 * max(1.0, abs(cost)) or cost == INF
