"""Both compilers make the same matrix of the hours of a horizon."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from optimizer.arcs import find_arcs
from optimizer.milp.arrays import Matrix
from optimizer.milp.arrays_hours import compile_hours
from optimizer.milp.constraints import FAMILIES, HORIZON_FAMILIES
from optimizer.milp.constraints_survive import SurvivalCut
from optimizer.milp.day import Horizon, Hour, add_cuts, formulate_hours
from optimizer.milp.model import Formulation
from optimizer.problem import Problem
from optimizer.schedule import hour_problem
from sites.fleet import at_period
from tests.optimizer import days
from tests.optimizer.arrays.canonical import assert_same, of_formulation, of_matrix
from tests.optimizer.milp.cases import tiny_fleet

Pending = dict[str, dict[int, float]]


def _both(
    problem: Problem, periods: int, pending: Pending, *, planned: int
) -> tuple[Matrix, Formulation]:
    hours = _hours(problem, periods)
    horizon = Horizon(
        hours=tuple(Hour(problem=one) for one in hours),
        arcs=find_arcs(problem).arcs,
        left=periods,
        planned=planned,
        method="test",
        pending=pending,
    )
    return compile_hours(hours, planned=planned, pending=pending), formulate_hours(horizon)[0]


def _hours(problem: Problem, periods: int) -> list[Problem]:
    return [
        hour_problem(
            problem,
            at,
            rates={c.class_id: at_period(c.rate_rps, problem.period + at) for c in problem.classes},
            running=problem.running,
        )
        for at in range(periods)
    ]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(days.day_problems(limits=True), st.integers(1, 4), st.data())
def test_hours_give_the_same_matrix(problem: Problem, periods: int, data: st.DataObject) -> None:
    pending: Pending = {
        c.class_id: {ago: data.draw(st.sampled_from([0.5, 3.0])) for ago in range(1, 3)}
        for c in problem.classes
        if c.deferrable_h > 1 and data.draw(st.booleans())
    }
    matrix, formulation = _both(
        problem, periods, pending, planned=data.draw(st.integers(1, periods))
    )
    assert_same(of_matrix(matrix), of_formulation(formulation))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(days.day_problems(max_sites=3), st.data())
def test_cuts_of_hours_give_the_same_rows(problem: Problem, data: st.DataObject) -> None:
    """What leaves an hour need not outlive its losses, what arrives must; groups that are only
    worth having after a loss have columns in both.
    """
    policy = replace(problem.plan_policy, exposure_part=1.0)
    classes = tuple(replace(c, protected=True) for c in problem.classes)
    problem = replace(problem, plan_policy=policy, classes=classes)
    assume(any(rate > 0 for c in classes for rate in c.rate_rps[:3]))
    _, formulation = _both(problem, 3, {}, planned=3)
    worth = st.sampled_from([0.0, 0.5, 3.0])
    cuts = [
        tuple(
            SurvivalCut(
                lost_site_id=data.draw(st.sampled_from(["a", "b"])),
                parts=("chat",),
                per_replica={g: data.draw(worth) for g in list(f.inputs.groups)[:3]},
                per_rps={d: data.draw(worth) for d in f.inputs.classes},
                least=data.draw(worth),
            )
            for _ in range(data.draw(st.integers(0, 2)))
        )
        for f in formulation.horizon
    ]
    for f, own in zip(formulation.horizon, cuts, strict=True):
        if own:
            add_cuts(f, own)
    matrix = compile_hours(_hours(problem, 3), planned=3, cuts=cuts)
    assert_same(of_matrix(matrix), of_formulation(formulation))


def test_every_row_family_of_a_horizon_is_compared() -> None:
    problem = days.dear_then_cheap(start_ms=900_000.0)
    matrix, formulation = _both(problem, 3, {"later": {1: 2.0}}, planned=2)
    canonical = of_matrix(matrix)
    assert_same(canonical, of_formulation(formulation))
    mine = {family for _, family, _ in canonical.rows}
    assert {family.__name__ for family in HORIZON_FAMILIES} <= mine
    matrix, formulation = _both(tiny_fleet(), 2, {}, planned=2)
    canonical = of_matrix(matrix)
    assert_same(canonical, of_formulation(formulation))
    theirs = {family for _, family, _ in [*canonical.rows, *canonical.lazy]}
    assert theirs == {family.__name__ for family in FAMILIES}
