"""Both compilers make the same matrix, for every row family, whatever arcs are chosen."""

from __future__ import annotations

from dataclasses import replace

import highspy
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.milp.arrays import compile_arrays, hand_over
from optimizer.milp.constraints import FAMILIES
from optimizer.milp.constraints_survive import SurvivalCut, survive_one
from optimizer.milp.formulate import formulate
from optimizer.milp.highs import compile_model
from optimizer.milp.model import Formulation
from optimizer.policy import GroupBound
from optimizer.problem import Problem
from optimizer.sweep import ArcTable, Sweep
from optimizer.tables import Tables
from optimizer.tabulate import tabulate
from sites.errors import FatalError
from tests.optimizer import builders as b
from tests.optimizer.arrays.canonical import assert_same, of_formulation, of_matrix
from tests.optimizer.milp.cases import crowded, tiny_fleet

_QUICK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _chosen(
    problem: Problem, kept: list[bool] | None = None
) -> tuple[Tables, ArcTable, Formulation]:
    """Some of a problem's arcs (all: None), as both compilers take them."""
    tables = tabulate(problem)
    arcs = Sweep(tables).table()
    if kept is not None:
        arcs = arcs.only(np.resize(np.array(kept, dtype=np.bool_), arcs.count))
    wanted = {
        (tables.classes.ids[cls], tables.group_id(int(group)))
        for cls, group in zip(arcs.cls, arcs.group, strict=True)
    }
    mine = [a for a in find_arcs(problem).arcs if (a.class_id, a.group.group_id) in wanted]
    return tables, arcs, formulate(problem, mine)


@_QUICK
@given(b.rich_problems(limits=True), st.sampled_from([(), ("a",)]))
def test_all_arcs_give_the_same_matrix(problem: Problem, lost: tuple[str, ...]) -> None:
    tables, arcs, formulation = _chosen(replace(problem, lost_sites=lost))
    assert_same(of_matrix(compile_arrays(tables, arcs)), of_formulation(formulation))


@_QUICK
@given(
    b.rich_problems(limits=True, max_sites=5, max_classes=6),
    st.lists(st.booleans(), min_size=1, max_size=7),
)
def test_chosen_arcs_give_the_same_matrix(problem: Problem, kept: list[bool]) -> None:
    tables, arcs, formulation = _chosen(problem, kept)
    assert_same(of_matrix(compile_arrays(tables, arcs)), of_formulation(formulation))


def test_every_row_family_of_a_period_is_compared() -> None:
    tables, arcs, formulation = _chosen(tiny_fleet())
    canonical = of_matrix(compile_arrays(tables, arcs))
    assert_same(canonical, of_formulation(formulation))
    families = {family for _, family, _ in [*canonical.rows, *canonical.lazy]}
    assert families == {family.__name__ for family in FAMILIES}


@_QUICK
@given(b.rich_problems(max_sites=4), st.data())
def test_cuts_give_the_same_rows(problem: Problem, data: st.DataObject) -> None:
    tables, arcs, formulation = _chosen(problem)
    groups, classes = sorted(formulation.inputs.groups), sorted(formulation.inputs.classes)
    worth = st.sampled_from([0.0, 0.5, 3.0])
    cuts = tuple(
        SurvivalCut(
            lost_site_id=data.draw(st.sampled_from(["a", "b"])),
            parts=data.draw(st.sampled_from([("chat",), ("fast",), ("chat", "fast")])),
            per_replica={g: data.draw(worth) for g in groups[:4]},
            per_rps={d: data.draw(worth) for d in classes},
            least=data.draw(worth),
        )
        for _ in range(data.draw(st.integers(1, 3)))
    )
    survive_one(formulation, cuts)
    assert_same(of_matrix(compile_arrays(tables, arcs, cuts=cuts)), of_formulation(formulation))


_ODD = {
    "no demand": b.problem(classes=[b.traffic_class(rate_rps=0.0)]),
    "no class": b.problem(classes=[]),
    "no lawful arc": b.problem(
        classes=[b.traffic_class(policy_id="eu")], sites=[b.site(country="US")]
    ),
    "no pool": b.problem(sites=[b.site(pools=[])]),
    "no accelerator": b.problem(sites=[b.site(pools=[b.pool(count=0)])]),
    "all lost": b.problem(lost=["a"]),
    "runs what no longer fits": b.problem(
        sites=[b.site(pools=[b.pool(memory_mib=1.0)])],
        running={"a/p/v/x1": 2},
        plan_policy=replace(b.DEFAULT_POLICY, move_limit_replicas=1),
    ),
    "runs what nobody knows": b.problem(running={"a/p/v/x7": 2, "a/p/v/x1": 1}),
    "a floor where nothing can be": b.problem(
        plan_policy=replace(
            b.DEFAULT_POLICY,
            replica_bounds=(GroupBound(site_id="z", variant_id="v", fewest=1, most=2),),
        )
    ),
    "a floor without traffic": b.problem(
        variants=[b.variant("v"), b.variant("w")],
        points=[b.point("v"), b.point("w")],
        plan_policy=replace(
            b.DEFAULT_POLICY, replica_bounds=(GroupBound(site_id="a", variant_id="w", fewest=1),)
        ),
    ),
    "a cordoned site": b.problem(sites=[b.site(cordoned=True)], running={"a/p/v/x1": 1}),
    "power that pays": b.problem(sites=[b.site(supplies=[b.supply(price=-0.1)])]),
    "power for nothing": b.problem(points=[b.point(idle_w=0.0, full_w=0.0)]),
    "a long class and a short one": b.problem(
        variants=[b.variant(kv_bytes_per_token=1e7)],
        classes=[b.traffic_class("c1", output_tokens=4_000.0), b.traffic_class("c2")],
    ),
}


@pytest.mark.parametrize("case", sorted(_ODD))
def test_odd_problems_give_the_same_matrix(case: str) -> None:
    tables, arcs, formulation = _chosen(_ODD[case])
    assert_same(of_matrix(compile_arrays(tables, arcs)), of_formulation(formulation))


@pytest.mark.parametrize("problem", [tiny_fleet(), crowded(sites=4)], ids=["tiny", "crowded"])
def test_highs_finds_the_same_optimum(problem: Problem) -> None:
    tables, arcs, formulation = _chosen(problem)
    mine, theirs = _quiet(), _quiet()
    hand_over(mine, compile_arrays(tables, arcs))
    theirs.passModel(compile_model(formulation).lp)
    for highs in (mine, theirs):
        highs.run()
        assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    assert mine.getObjectiveValue() == pytest.approx(theirs.getObjectiveValue(), rel=1e-6)


def _quiet() -> highspy.Highs:
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("mip_rel_gap", 0.0)
    return highs


def test_a_matrix_that_is_refused_is_an_error() -> None:
    tables, arcs, _ = _chosen(b.two_sites())
    matrix = compile_arrays(tables, arcs)
    wrong = replace(matrix, rows=replace(matrix.rows, index=matrix.rows.index + 1_000))
    with pytest.raises(FatalError, match="could not take the matrix"):
        hand_over(_quiet(), wrong)


def test_a_changed_coefficient_is_told_apart() -> None:
    tables, arcs, formulation = _chosen(tiny_fleet())
    matrix = compile_arrays(tables, arcs)
    value = matrix.rows.value.copy()
    value[3] *= 1.0 + 1e-6
    with pytest.raises(AssertionError):
        doctored = replace(matrix, rows=replace(matrix.rows, value=value))
        assert_same(of_matrix(doctored), of_formulation(formulation))
