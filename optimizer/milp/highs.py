"""Hands a Pyomo model to HiGHS and brings back a point, its bound and why the search stopped.

Decides the solver's settings, nothing about placement. Repeatable: one thread, a fixed seed, a
budget in nodes and gap; the time limit is only an outer abort. A fresh `Highs` per run, because its
time limit adds up over runs of one object.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import highspy
import numpy as np
import pyomo.environ as pyo
from pyomo.common.errors import DeveloperError
from pyomo.repn.linear import LinearRepnVisitor
from pyomo.repn.util import VarRecorder

from optimizer.milp.model import LAZY_FAMILIES, Formulation
from optimizer.milp.stopping import INTERRUPT, TIME_LIMIT
from optimizer.milp.support import (
    WORTHWHILE_INTEGERS,
    SparseRows,
    add_rows,
    integer_columns,
    relax,
    restricted_start,
    run_interruptibly,
)
from sites.errors import FatalError

Told = Callable[[float, float], None]
"""Hears what the best point so far costs and what any costs at least, from a thread of HiGHS's."""

_INT32_MAX = 2_147_483_647
_START_GAP = 0.0025
_START_NODES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How far to search: relative gap, nodes, seconds (outer abort), seed; presolve on or off."""

    gap: float
    nodes: int
    time_s: float
    seed: int = 0
    presolve: bool = True


class PointStatus(StrEnum):
    """PROVEN: gap within the budget. STOPPED: a point, budget spent. NONE: spent before any."""

    PROVEN = "proven"
    STOPPED = "stopped"
    NONE = "none"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What HiGHS answered. `values[variable][index]`, e.g. ``values["n"]["a/p/v/x1"]``.

    Of a horizon, `values` are the first period's and `later` those of the periods after it. `cost`
    and `bound` in the objective's unit; `hit_limit` names the budget that ended the search, or the
    time limit where that cut the start of the search short.
    """

    status: PointStatus
    values: Mapping[str, Mapping[Any, float]] = field(default_factory=dict)
    later: tuple[Mapping[str, Mapping[Any, float]], ...] = ()
    cost: float = float("inf")
    bound: float = float("-inf")
    nodes: int = 0
    hit_limit: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """A model as HiGHS takes it, the Pyomo variable of each column, and rows held back."""

    lp: Any
    columns: tuple[Any, ...]
    lazy: SparseRows


def compile_model(formulation: Formulation) -> Compiled:
    """Translate rows and objective, of a whole horizon, into one sparse row-wise matrix.

    Pyomo's own `LinearStandardFormCompiler` does the same and needs scipy for two arrays; its
    walker is used directly instead.
    """
    model = formulation.root
    columns = tuple(model.component_data_objects(pyo.Var, descend_into=True))
    column_of = {id(variable): at for at, variable in enumerate(columns)}
    visitor = LinearRepnVisitor({}, var_recorder=VarRecorder({}, None))
    lp = highspy.HighsLp()
    _set_columns(lp, columns)
    objective = next(model.component_data_objects(pyo.Objective, active=True))
    cost = visitor.walk_expression(objective.expr)
    assert cost.nonlinear is None
    prices = np.zeros(len(columns))
    for variable_id, coefficient in cost.linear.items():
        prices[column_of[variable_id]] = coefficient
    lp.col_cost_ = prices
    lp.offset_ = float(cost.constant)
    rows = list(model.component_data_objects(pyo.Constraint, active=True, descend_into=True))
    lazy: list[Any] = []
    eager: list[Any] = []
    for row in rows:
        is_lazy = row.parent_component().local_name in LAZY_FAMILIES
        (lazy if is_lazy else eager).append(row)
    first = _sparse(eager, visitor, column_of)
    lp.num_row_ = first.count
    lp.row_lower_, lp.row_upper_ = first.lower, first.upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = first.start
    lp.a_matrix_.index_ = first.index
    lp.a_matrix_.value_ = first.value
    return Compiled(lp=lp, columns=columns, lazy=_sparse(lazy, visitor, column_of))


def _sparse(rows: list[Any], visitor: Any, column_of: Mapping[int, int]) -> SparseRows:
    starts, index, value = [0], [], []
    lower, upper = [], []
    for row in rows:
        low, body, high = row.to_bounded_expression(evaluate_bounds=True)
        terms = visitor.walk_expression(body)
        assert terms.nonlinear is None, row.name
        pairs = sorted((column_of[v], c) for v, c in terms.linear.items())
        index += [at for at, _ in pairs]
        value += [c for _, c in pairs]
        starts.append(len(index))
        lower.append(-highspy.kHighsInf if low is None else low - terms.constant)
        upper.append(highspy.kHighsInf if high is None else high - terms.constant)
    return SparseRows(
        start=np.array(starts, dtype=np.int32),
        index=np.array(index, dtype=np.int32),
        value=np.array(value, dtype=np.float64),
        lower=np.array(lower, dtype=np.float64),
        upper=np.array(upper, dtype=np.float64),
    )


def _set_columns(lp: Any, columns: tuple[Any, ...]) -> None:
    lp.num_col_ = len(columns)
    lp.col_lower_ = np.array([-highspy.kHighsInf if v.lb is None else v.lb for v in columns])
    lp.col_upper_ = np.array([highspy.kHighsInf if v.ub is None else v.ub for v in columns])
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    lp.integrality_ = [kinds[v.is_integer()] for v in columns]


def run(
    compiled: Compiled,
    budget: Budget,
    *,
    start: Sequence[Mapping[str, int]] | None = None,
    near: Collection[str] | None = None,
    told: Told | None = None,
) -> Point:
    """Solve once; `told` hears how the search goes.

    `start` (replicas by group id, for the first periods) is a first guess that the solver completes
    itself; without one, a large search looks for its own. Relaxation, own start (a quarter of the
    time at most) and search share the budget's time. Where it cuts one of the first two short the
    point names that limit too, even if it is proven: with more time the search would have started
    elsewhere. Of a large search that is given `near` (group ids) only those and what the relaxation
    uses may have replicas, and its bound holds for those alone.

    Raises FatalError where HiGHS reports an error rather than an answer.
    """
    relaxing, starting = _fresh(budget), _fresh(_shorter(budget))
    relaxed = None
    if len(integer_columns(compiled.lp)) >= WORTHWHILE_INTEGERS:
        relaxed = relax(relaxing, compiled.lp, lazy=compiled.lazy)
    guess = None
    if start is not None:
        guess = _columns_of(compiled, start)
    elif relaxed is not None:
        guess = restricted_start(starting, compiled.lp, relaxed=relaxed)
    left_s = budget.time_s - relaxing.getRunTime() - starting.getRunTime()
    highs = _fresh(replace(budget, time_s=max(0.0, left_s)))
    _must(highs.passModel(compiled.lp), "take the model")
    if relaxed is not None:
        add_rows(highs, relaxed.needed)
    if near is not None and relaxed is not None:
        _confine(highs, compiled, near, used=relaxed.support)
    if guess:
        index, value = np.array(list(guess), dtype=np.int32), np.array(list(guess.values()))
        _must(highs.setSolution(len(guess), index, value), "take the first guess")
    if told is not None:
        highs.cbMipInterrupt += _telling(told)
    _must(run_interruptibly(highs), "run")
    answer = _answer(highs, compiled)
    if answer.status is not PointStatus.INFEASIBLE and (was_cut(relaxing) or was_cut(starting)):
        return replace(answer, hit_limit=answer.hit_limit or TIME_LIMIT)
    return answer


def _telling(told: Told) -> Callable[[Any], None]:
    def tell(event: Any) -> None:
        told(float(event.data_out.mip_primal_bound), float(event.data_out.mip_dual_bound))

    return tell


def was_cut(highs: Any) -> bool:
    """Whether a run ended for lack of time."""
    return bool(highs.getModelStatus() == highspy.HighsModelStatus.kTimeLimit)


def _shorter(budget: Budget) -> Budget:
    return replace(
        budget,
        gap=max(budget.gap / 4, _START_GAP),
        nodes=min(budget.nodes, _START_NODES),
        time_s=budget.time_s / 4,
    )


def _columns_of(compiled: Compiled, start: Sequence[Mapping[str, int]]) -> dict[int, float]:
    return {
        at: float(min(start[_period_of(variable)].get(index_of(variable), 0), variable.ub))
        for at, variable in enumerate(compiled.columns)
        if variable.parent_component().local_name == "n" and _period_of(variable) < len(start)
    }


def _confine(
    highs: Any, compiled: Compiled, near: Collection[str], *, used: Collection[int]
) -> None:
    """Leave no replicas to groups that are neither near nor of the columns used."""
    for at, variable in enumerate(compiled.columns):
        is_group = variable.parent_component().local_name == "n"
        if is_group and at not in used and index_of(variable) not in near and variable.lb <= 0:
            highs.changeColBounds(at, 0.0, 0.0)


def _period_of(variable: Any) -> int:
    """The period a variable belongs to: its block's place in the horizon, 0 without blocks."""
    block = variable.parent_block()
    return 0 if block is block.model() else int(index_of(block))


def _fresh(budget: Budget) -> Any:
    highs = highspy.Highs()
    _set_options(highs, budget)
    return highs


def _set_options(highs: Any, budget: Budget) -> None:
    options: dict[str, Any] = {
        "output_flag": False,
        "threads": 1,
        "random_seed": budget.seed % _INT32_MAX,
        "mip_rel_gap": budget.gap,
        "mip_abs_gap": 1e-9,
        "mip_max_nodes": min(budget.nodes, _INT32_MAX),
        "time_limit": budget.time_s,
        "presolve": "choose" if budget.presolve else "off",
        "mip_feasibility_tolerance": 1e-7,
        "primal_feasibility_tolerance": 1e-8,
    }
    for name, value in options.items():
        _must(highs.setOptionValue(name, value), f"set {name}")


def _must(status: Any, action: str) -> None:
    if status == highspy.HighsStatus.kError:
        raise FatalError(f"HiGHS could not {action}; report the problem file that causes it")


_LIMITS = {
    highspy.HighsModelStatus.kTimeLimit: TIME_LIMIT,
    highspy.HighsModelStatus.kSolutionLimit: "node_limit",
    highspy.HighsModelStatus.kIterationLimit: "iteration_limit",
    highspy.HighsModelStatus.kInterrupt: INTERRUPT,
}
_PROVEN = (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kModelEmpty)
_INFEASIBLE = (
    highspy.HighsModelStatus.kInfeasible,
    # every variable is bounded, so a model that is "unbounded or infeasible" is infeasible
    highspy.HighsModelStatus.kUnboundedOrInfeasible,
)


def index_of(component: Any) -> Any:
    """Index of a Pyomo component. Pyomo's own swallows an interrupt and then calls itself broken:
    asked again it answers, unless it is.
    """
    try:
        return component.index()
    except DeveloperError:
        component.index()
        raise KeyboardInterrupt from None


def _answer(highs: Any, compiled: Compiled) -> Point:
    status, info = highs.getModelStatus(), highs.getInfo()
    nodes = max(0, int(info.mip_node_count))
    if status in _INFEASIBLE:
        return Point(status=PointStatus.INFEASIBLE, nodes=nodes)
    if status not in _PROVEN and status not in _LIMITS:
        raise FatalError(f"HiGHS stopped with {highs.modelStatusToString(status)!r}")
    is_mip = highspy.HighsVarType.kInteger in compiled.lp.integrality_
    proven = status in _PROVEN
    cost = float(info.objective_function_value)
    bound = float(info.mip_dual_bound) if is_mip else cost if proven else float("-inf")
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return Point(
            status=PointStatus.NONE, bound=bound, nodes=nodes, hit_limit=_LIMITS.get(status, "")
        )
    periods: list[dict[str, dict[Any, float]]] = [{}]
    for variable, value in zip(compiled.columns, highs.getSolution().col_value, strict=True):
        at, name = _period_of(variable), variable.parent_component().local_name
        periods += [{} for _ in range(at + 1 - len(periods))]
        periods[at].setdefault(name, {})[index_of(variable)] = float(value)
    return Point(
        status=PointStatus.PROVEN if proven else PointStatus.STOPPED,
        values=periods[0],
        later=tuple(periods[1:]),
        cost=cost,
        bound=bound,
        nodes=nodes,
        hit_limit=_LIMITS.get(status, ""),
    )
