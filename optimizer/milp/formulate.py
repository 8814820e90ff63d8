"""Puts the formulation together and solves it: the doors through which `optimizer.solve` comes in.

Nothing outside this folder sees a Pyomo or HiGHS object.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from optimizer.milp.constraints import add_rows
from optimizer.milp.highs import Budget, Point, Told, compile_model, run
from optimizer.milp.inputs import Inputs, take_inputs
from optimizer.milp.model import Elasticity, Formulation, RowKey, start_formulation
from optimizer.milp.objective import add_cost
from optimizer.plan import CandidateArc
from optimizer.problem import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One solve: what went in and what came out."""

    inputs: Inputs
    point: Point


def budget_of(problem: Problem, *, presolve: bool = True) -> Budget:
    """The search budget the plan policy sets."""
    policy = problem.plan_policy
    return Budget(
        gap=policy.gap_limit,
        nodes=policy.node_limit,
        time_s=policy.time_limit_s,
        seed=policy.seed,
        presolve=presolve,
    )


def formulate(
    problem: Problem,
    arcs: Iterable[CandidateArc],
    *,
    slack: Mapping[RowKey, float] | None = None,
) -> Formulation:
    """The whole formulation of a problem: variables, rows, cost."""
    formulation = start_formulation(take_inputs(problem, arcs), Elasticity(slack=slack or {}))
    add_rows(formulation)
    add_cost(formulation)
    return formulation


def attempt(
    formulation: Formulation,
    *,
    budget: Budget | None = None,
    start: Mapping[str, int] | None = None,
    near: Collection[str] | None = None,
    told: Told | None = None,
) -> Attempt:
    """Solve a formulation within a budget, its problem's if none is given; `start`, `near` and
    `told` as in `run`. Raises FatalError if the solver errs.
    """
    budget = budget or budget_of(formulation.inputs.problem)
    guess = None if start is None else (start,)
    point = run(compile_model(formulation), budget, start=guess, near=near, told=told)
    return Attempt(inputs=formulation.inputs, point=point)
