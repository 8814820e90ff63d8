"""Hands arrays to HiGHS: one matrix from triplets, one set of options, what came back.

Decides the solver's settings for the large search, nothing about placement. One thread per object
and a fixed seed; budgets are nodes and gap, never seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from optimizer.tables import Floats
from sites.errors import FatalError

INF = float("inf")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows in triplets: entry i puts `value[i]` at (`row[i]`, `column[i]`)."""

    row: NDArray[np.intp]
    column: NDArray[np.intp]
    value: Floats
    lower: Floats
    upper: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What HiGHS found: `values` None without a feasible point. `bound` is proven."""

    values: Floats | None
    row_duals: Floats
    cost: float
    bound: float
    nodes: int


class RowBuilder:
    """Collects blocks of rows; each block's rows are numbered after the last one's."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.intp], NDArray[np.intp], Floats]] = []
        self._lower: list[Floats] = []
        self._upper: list[Floats] = []
        self.count = 0

    def block(
        self,
        lower: Floats | float,
        upper: Floats | float,
        *,
        entries: list[tuple[NDArray[np.intp], NDArray[np.intp], Floats]],
        count: int,
    ) -> None:
        """Add `count` rows; `entries` are (row within the block, column, value) triplets."""
        for row, column, value in entries:
            self._parts.append((row + self.count, column, value))
        self._lower.append(np.broadcast_to(np.asarray(lower, dtype=np.float64), (count,)))
        self._upper.append(np.broadcast_to(np.asarray(upper, dtype=np.float64), (count,)))
        self.count += count

    def rows(self) -> Rows:
        """Everything collected."""
        return Rows(
            row=np.concatenate([p[0] for p in self._parts]),
            column=np.concatenate([p[1] for p in self._parts]),
            value=np.concatenate([p[2] for p in self._parts]),
            lower=np.concatenate(self._lower),
            upper=np.concatenate(self._upper),
        )


def make(
    *,
    cost: Floats,
    upper: Floats,
    rows: Rows,
    whole: NDArray[np.intp] | None = None,
    lower: Floats | None = None,
) -> Any:
    """A HighsLp with columns from `lower` (0) to `upper`, row-wise; `whole` columns are integer."""
    order = np.lexsort((rows.column, rows.row))
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(cost), len(rows.lower)
    least = np.zeros(len(cost)) if lower is None else lower
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, least, upper
    lp.row_lower_, lp.row_upper_ = rows.lower, rows.upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    sorted_rows = rows.row[order]
    starts = np.searchsorted(sorted_rows, np.arange(len(rows.lower) + 1))
    lp.a_matrix_.start_ = starts.astype(np.int32)
    lp.a_matrix_.index_ = rows.column[order].astype(np.int32)
    lp.a_matrix_.value_ = rows.value[order]
    if whole is not None:
        kinds = [highspy.HighsVarType.kContinuous] * len(cost)
        for at in whole:
            kinds[at] = highspy.HighsVarType.kInteger
        lp.integrality_ = kinds
    return lp


def opened(lp: Any) -> Any:
    """A HiGHS object that holds an LP and keeps its basis from run to run."""
    highs = highspy.Highs()
    for name, value in {"output_flag": False, "threads": 1}.items():
        _must(highs.setOptionValue(name, value), f"set {name}")
    _must(highs.passModel(lp), "take the model")
    return highs


def run(highs: Any) -> None:
    """Run to an optimum. Raises FatalError if HiGHS errs or finds none."""
    _must(highs.run(), "run")
    status = highs.getModelStatus()
    if status != highspy.HighsModelStatus.kOptimal:
        raise FatalError(f"HiGHS stopped a relaxation with {status}; report the problem")


def bounds(highs: Any, columns: NDArray[np.int32], lower: Floats, upper: Floats) -> None:
    """Put new bounds on some columns of an open LP."""
    _must(highs.changeColsBounds(len(columns), columns, lower, upper), "change bounds")


def solve(
    lp: Any,
    *,
    gap: float = 0.0,
    nodes: int = 1,
    seed: int = 0,
    start: tuple[NDArray[np.intp], Floats] | None = None,
) -> Answer:
    """Solve an LP or, within a gap and node budget, a MIP from a partial first guess.

    Raises FatalError if HiGHS errs.
    """
    highs = highspy.Highs()
    options: dict[str, Any] = {
        "output_flag": False,
        "threads": 1,
        "random_seed": seed,
        "mip_rel_gap": gap,
        "mip_max_nodes": nodes,
        "mip_pscost_minreliable": 1,
        # measured on clusters of sites: the points come from RENS, the others cost as much time
        "mip_heuristic_run_rins": False,
        "mip_heuristic_run_root_reduced_cost": False,
        "mip_heuristic_run_feasibility_jump": False,
        "mip_allow_restart": False,
        "mip_feasibility_tolerance": 1e-7,
        "primal_feasibility_tolerance": 1e-8,
    }
    for name, value in options.items():
        _must(highs.setOptionValue(name, value), f"set {name}")
    _must(highs.passModel(lp), "take the model")
    if start is not None:
        index, value = start
        _must(highs.setSolution(len(index), index.astype(np.int32), value), "take the start")
    _must(highs.run(), "run")
    info = highs.getInfo()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    is_mip = len(lp.integrality_) > 0
    cost = float(info.objective_function_value) if feasible else INF
    optimal = highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    solution = highs.getSolution()
    return Answer(
        values=np.array(solution.col_value) if feasible else None,
        row_duals=np.array(solution.row_dual),
        cost=cost,
        bound=float(info.mip_dual_bound) if is_mip else cost if optimal else -INF,
        nodes=max(0, int(info.mip_node_count)),
    )


def _must(status: Any, action: str) -> None:
    if status == highspy.HighsStatus.kError:
        raise FatalError(f"HiGHS could not {action}; report the problem that causes it")
