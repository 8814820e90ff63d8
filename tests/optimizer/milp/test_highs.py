"""The hand-over to HiGHS: the matrix is the model's, the answer is named for what it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import highspy
import numpy as np
import pytest

from optimizer.arcs import find_arcs
from optimizer.milp.formulate import budget_of, formulate
from optimizer.milp.highs import Budget, PointStatus, compile_model, index_of, run, was_cut
from optimizer.milp.model import lp_text
from optimizer.milp.support import add_rows, integer_columns, relax, restricted_start
from tests.optimizer import builders as b
from tests.optimizer.milp.cases import crowded, tough

BUDGET = Budget(gap=0.0, nodes=10_000, time_s=60.0)


def test_the_matrix_handed_over_is_the_one_pyomo_writes(tmp_path: Path) -> None:
    problem = b.two_sites(
        classes=[b.traffic_class(rate_rps=6.0, spread_sites=2, bytes_per_request=1e4)]
    )
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
    assert written.num_row_ == ours.num_row_ + compiled.lazy.count
    assert compiled.lazy.count > 0
    assert sorted(written.a_matrix_.value_) == pytest.approx(
        sorted([*ours.a_matrix_.value_, *compiled.lazy.value])
    )
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


def test_a_relaxation_without_time_says_it_was_cut() -> None:
    problem = crowded()
    compiled = compile_model(formulate(problem, find_arcs(problem).arcs))
    hurried, calm = _quiet(), _quiet()
    hurried.setOptionValue("time_limit", 0.0)

    assert relax(hurried, compiled.lp, lazy=compiled.lazy) is None
    assert was_cut(hurried)
    assert relax(calm, compiled.lp, lazy=compiled.lazy) is not None
    assert not was_cut(calm)


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
    relaxed = relax(_quiet(), compiled.lp, lazy=compiled.lazy)
    assert relaxed is not None
    start = restricted_start(_quiet(), compiled.lp, relaxed=relaxed)

    assert start is not None
    assert set(start) == set(integer_columns(compiled.lp))
    assert {at for at, value in start.items() if value > 0} <= relaxed.support
    assert len(relaxed.support) < len(start) / 4


def test_lazy_rows_tighten_the_relaxation_and_cut_off_no_whole_plan() -> None:
    problem = tough(node_limit=100)
    compiled = compile_model(formulate(problem, find_arcs(problem).arcs))
    relaxed = relax(_quiet(), compiled.lp, lazy=compiled.lazy)
    assert relaxed is not None
    assert 0 < relaxed.needed.count < compiled.lazy.count
    plain, tight, point = _quiet(), _quiet(), run(compiled, replace(BUDGET, gap=0.05))
    for one in (plain, tight):
        one.passModel(compiled.lp)
        one.setOptionValue("solve_relaxation", True)
    add_rows(tight, compiled.lazy)
    for one in (plain, tight):
        one.run()

    looser, tighter = (one.getInfo().objective_function_value for one in (plain, tight))
    assert looser < tighter <= point.cost + 1e-9
    best = np.array(
        [point.values[v.parent_component().local_name][v.index()] for v in compiled.columns]
    )
    assert len(compiled.lazy.broken_at(best)) == 0


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


def test_an_interrupt_inside_pyomo_stays_one() -> None:
    compiled = compile_model(formulate(b.two_sites(), find_arcs(b.two_sites()).arcs))
    variable = compiled.columns[0]
    index, told = index_of(variable), 0
    for at in range(2, 12):  # the first call is ours
        calls = count(1)

        def on_event(_frame: object, event: str, _argument: object, at: int = at) -> None:
            if event == "call" and next(calls) == at:  # noqa: B023
                raise KeyboardInterrupt

        sys.setprofile(on_event)
        try:
            assert index_of(variable) == index
        except KeyboardInterrupt:
            told += 1
        finally:
            sys.setprofile(None)
    assert told > 0


def _quiet() -> highspy.Highs:
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    return highs


def _priced(costs: Sequence[float]) -> list[float]:
    """A file leaves out columns that no row and no price speaks of."""
    return sorted(cost for cost in costs if cost)
