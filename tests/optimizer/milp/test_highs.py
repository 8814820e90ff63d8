"""The hand-over to HiGHS: the matrix is the model's, the answer is named for what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import highspy
import pytest

from optimizer.arcs import find_arcs
from optimizer.milp.formulate import budget_of, formulate
from optimizer.milp.highs import Budget, PointStatus, compile_model, run
from optimizer.milp.model import lp_text
from optimizer.milp.support import integer_columns, relaxed_support, restricted_start
from tests.optimizer import builders as b
from tests.optimizer.milp.cases import crowded

BUDGET = Budget(gap=0.0, nodes=10_000, time_s=60.0)


def test_the_matrix_handed_over_is_the_one_pyomo_writes(tmp_path: Path) -> None:
    problem = b.two_sites(classes=[b.traffic_class(spread_sites=2, bytes_per_request=1e4)])
    formulation = formulate(problem, find_arcs(problem).arcs)
    path = tmp_path / "model.lp"
    path.write_text(lp_text(formulation), encoding="ascii")
    reader = highspy.Highs()
    reader.setOptionValue("output_flag", False)
    reader.readModel(str(path))
    reader.run()
    compiled = compile_model(formulation)

    handed = run(compiled, BUDGET)

    assert reader.getInfo().objective_function_value == pytest.approx(handed.cost, rel=1e-9)
    written, ours = reader.getLp(), compiled.lp
    assert written.num_row_ == ours.num_row_
    assert sorted(written.a_matrix_.value_) == pytest.approx(sorted(ours.a_matrix_.value_))
    assert _priced(written.col_cost_) == pytest.approx(_priced(ours.col_cost_))


def test_infeasible_is_named_infeasible() -> None:
    policy = replace(b.DEFAULT_POLICY, max_shed_basis_points=0)
    problem = b.problem(sites=[b.site(pools=[])], plan_policy=policy)
    point = run(compile_model(formulate(problem, find_arcs(problem).arcs)), BUDGET)

    assert point.status is PointStatus.INFEASIBLE
    assert point.values == {}


def test_no_time_is_named_and_nothing_is_made_up() -> None:
    problem = crowded()
    compiled = compile_model(formulate(problem, find_arcs(problem).arcs))
    point = run(compiled, replace(BUDGET, time_s=1e-9))

    assert point.hit_limit == "time_limit_s"
    assert point.status in {PointStatus.NONE, PointStatus.STOPPED}


def test_two_runs_of_one_model_agree_to_the_last_bit() -> None:
    problem = crowded()
    budget = budget_of(problem)
    first, second = (
        run(compile_model(formulate(problem, find_arcs(problem).arcs)), budget) for _ in range(2)
    )

    assert first == second
    assert first.status is PointStatus.PROVEN


def test_presolve_on_and_off_agree() -> None:
    problem = b.two_sites(classes=[b.traffic_class(rate_rps=65.0)])
    compiled = compile_model(formulate(problem, find_arcs(problem).arcs))

    assert run(compiled, BUDGET).cost == pytest.approx(
        run(compiled, replace(BUDGET, presolve=False)).cost, rel=1e-9
    )


def test_the_start_is_whole_within_the_support_and_near_the_optimum() -> None:
    problem = crowded()
    compiled = compile_model(formulate(problem, find_arcs(problem).arcs))
    support = relaxed_support(_quiet(), compiled.lp)
    assert support is not None
    start = restricted_start(_quiet(), compiled.lp, support=support)

    assert start is not None
    assert set(start) == set(integer_columns(compiled.lp))
    assert {at for at, value in start.items() if value > 0} <= support
    assert len(support) < len(start) / 4


def test_a_large_search_with_its_own_start_keeps_its_promise() -> None:
    problem = crowded()
    compiled = compile_model(formulate(problem, find_arcs(problem).arcs))
    assert len(integer_columns(compiled.lp)) > 300
    point = run(compiled, budget_of(problem))
    best = run(compiled, BUDGET)

    assert best.status is PointStatus.PROVEN
    assert point.bound <= best.cost * (1 + 1e-9)
    assert best.cost <= point.cost * (1 + 1e-9)
    assert point.cost - best.cost <= 0.01 * point.cost


def _quiet() -> highspy.Highs:
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    return highs


def _priced(costs: Sequence[float]) -> list[float]:
    """A file leaves out columns that no row and no price speaks of."""
    return sorted(cost for cost in costs if cost)
